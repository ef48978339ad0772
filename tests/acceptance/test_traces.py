"""Does a run tell a collector of traces what it did, and is it never held up by one?"""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest

pytest.importorskip("opentelemetry.sdk")

from tests.support.collector import collecting
from tests.support.expect import ends, succeeds
from tests.support.observe import finds_it_busy

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_spans_of_a_run_are_those_of_its_history(at_version_1, guvnor):
    """With a table that is busy at first, and an online step."""
    at_version_1.execute(
        "INSERT INTO incidents (title, severity, team_id) "
        "SELECT repeat('x', 200), 'low', 'x' FROM generate_series(1, 3000)"
    )
    with collecting() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "TRACEPARENT": f"00-{TRACE}-{PARENT}-01",
            "OTEL_SERVICE_NAME": "ours",
        }
        with closing(at_version_1.connect()) as report, report.cursor() as cursor:
            cursor.execute("BEGIN; SELECT FROM incidents")
            process = guvnor.start("migrate", "up", database=at_version_1, env=env)
            finds_it_busy(process)
            cursor.execute("ROLLBACK")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "the collector of traces" not in err
        (run,) = collector.roots
    history = succeeds(guvnor("migrate", "history", "--json", database=at_version_1)).out
    (entry,) = [found for found in json.loads(history) if found["revision"] == "002"]
    assert (run.name, run.trace, run.parent, run.failed) == ("migrate up", TRACE, PARENT, False)
    assert run.attributes["db.system.name"] == "postgresql"
    assert run.attributes["db.namespace"] == at_version_1.name
    assert [child.name for child in run.children if child.name.startswith("revision")] == ["revision 002 up"]
    (revision,) = run.find("revision 002 up")
    ((attempt,),) = at_version_1.execute(
        "SELECT DISTINCT attempt::text FROM guvnor_migration_history WHERE revision = '002'"
    )
    assert revision.attributes["guvnor.attempt"] == attempt
    for name in ("lock_wait_ms", "tries", "stalled_ms", "stalled_sessions"):
        assert revision.attributes[f"guvnor.{name}"] == entry[name]
    tries = [child for child in revision.children if child.name == "try"]
    assert len(tries) == entry["tries"] >= 2
    assert [each.failed for each in tries] == [True] * (len(tries) - 1) + [False]
    assert tries[0].attributes["db.response.status_code"] == "55P03"
    assert "waiting for a lock" in revision.events
    assert [step.name for step in tries[-1].children] == ["build index idx_incidents_escalation_policy"]
    assert [len(run.find(name)) for name in ("backup", "verification")] == [1, 1]


def test_a_run_that_fails(migrated, guvnor, project):
    project.add_revision("SELECT 'a secret'::integer", "SELECT 1")
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        ends(guvnor("migrate", "up", database=migrated, cwd=project.directory, env=env), 1)
        (run,) = collector.roots
        assert not any(b"secret" in body for body in collector.received)
    (attempt,) = run.find("try")
    assert run.failed
    assert attempt.failed
    assert attempt.attributes["db.response.status_code"] == "22P02"


def test_plain_alembic_is_traced_too(at_version_1, alembic):
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        succeeds(alembic("upgrade", "head", database=at_version_1, env=env))
        (run,) = collector.roots
    assert len(run.find("revision 002 up")) == 1


@pytest.mark.parametrize("way", ["hangs", "answers errors", "refuses", "has no name", "is no address"])
def test_a_collector_that_does_not_work_changes_nothing(at_version_1, guvnor, way):
    urls = {"refuses": "http://127.0.0.1:1", "has no name": "http://nowhere.invalid", "is no address": "x"}
    with collecting(None if way == "hangs" else 500) as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": urls.get(way, collector.url)}
        began = time.monotonic()
        result = guvnor("migrate", "up", database=at_version_1, env=env)
        took = time.monotonic() - began
    succeeds(result, "Migration completed: version 2")
    assert result.err.count("the collector of traces did not take all of this run's") == 1
    assert "Traceback" not in result.err
    began = time.monotonic()
    succeeds(guvnor("migrate", "down", database=at_version_1))
    assert took < time.monotonic() - began + 10, "it is given two seconds"


def test_without_a_collector_nothing_is_imported(migrated, guvnor):
    result = guvnor("migrate", "status", database=migrated, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "opentelemetry" not in result.err
    result = guvnor("migrate", "up", database=migrated, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "opentelemetry" not in succeeds(result).err
