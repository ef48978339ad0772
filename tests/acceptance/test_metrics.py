"""Do the metrics say what the state and the history say, in a format that Prometheus reads?"""

from __future__ import annotations

import json
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.expect import ends, succeeds
from tests.support.observe import running

SLOW = "SELECT pg_sleep(CASE WHEN current_schema() = 'public' THEN 20 ELSE 0 END)"


def parsed(text):
    """The values, by name, direction, revision and outcome."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [sample.labels[n] for n in ("direction", "revision", "outcome") if n in sample.labels]
            found[sample.name.removeprefix("guvnor_migration_"), *labels] = sample.value
    return found


def measured(guvnor, database, *flags, **more):
    return parsed(succeeds(guvnor("migrate", "metrics", *flags, database=database, **more)).out)


def test_an_empty_database(database, guvnor):
    found = measured(guvnor, database)
    assert {name: found[name,] for name in ("version", "newest_version", "pending", "dirty", "running")} == {
        "version": 0, "newest_version": 2, "pending": 2, "dirty": 0, "running": 0
    }  # fmt: skip
    assert ("last_success_timestamp_seconds",) not in found


def test_after_a_success_they_are_those_of_the_history(migrated, guvnor):
    found = measured(guvnor, migrated)
    last = json.loads(succeeds(guvnor("migrate", "history", "--json", database=migrated)).out)[-1]
    assert (found["version",], found["pending",], found["decision_needed",]) == (2, 0, 0)
    assert found["attempts_total", "up", "002", "succeeded"] == 1
    assert found["duration_seconds", "up", "002"] == last["duration_ms"] / 1000
    assert found["lock_wait_seconds", "up", "002"] == last["lock_wait_ms"] / 1000
    assert found["tries", "up", "002"] == last["tries"]
    assert found["stalled_seconds", "up", "002"] == last["stalled_ms"] / 1000
    assert found["stalled_sessions", "up", "002"] == last["stalled_sessions"]
    sizes = found["size_before_bytes", "up", "002"], found["size_after_bytes", "up", "002"]
    assert sizes == (last["size_before"], last["size_after"])
    assert sizes[1] - sizes[0] == last["size_change"]
    ((finished,),) = migrated.execute(
        "SELECT max(EXTRACT(EPOCH FROM at))::float8 FROM guvnor_migration_history WHERE event = 'succeeded'"
    )
    assert abs(found["last_success_timestamp_seconds",] - finished) < 5
    assert ("drift_differences",) not in found


def test_a_failure_and_the_success_after_it(migrated, guvnor, project):
    here = {"database": migrated, "cwd": project.directory}
    path = project.add_revision("SELECT 1 / 0", "SELECT 1")
    ends(guvnor("migrate", "up", **here), 1)
    found = measured(guvnor, **here)
    assert (found["pending",], found["dirty",]) == (1, 0)
    assert found["attempts_total", "up", "003", "failed"] == 1
    path.write_text(path.read_text().replace("1 / 0", "1"))
    succeeds(guvnor("migrate", "up", **here))
    found = measured(guvnor, **here)
    assert (
        found["attempts_total", "up", "003", "failed"]
        == found["attempts_total", "up", "003", "succeeded"]
        == 1
    )


def test_a_run_and_its_kill(migrated, guvnor, project):
    here = {"database": migrated, "cwd": project.directory}
    project.add_revision(SLOW, "SELECT 1")
    process = guvnor.start("migrate", "up", **here)
    pid = running(migrated, r"SELECT pg_sleep")
    found = measured(guvnor, **here)
    assert found["running",] == 1
    ((started,),) = migrated.execute(
        "SELECT EXTRACT(EPOCH FROM at)::float8 FROM guvnor_migration_history ORDER BY id DESC LIMIT 1"
    )
    assert found["running_since_timestamp_seconds",] == pytest.approx(started, abs=0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    migrated.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    found = measured(guvnor, **here)
    assert found["attempts_total", "up", "003", "killed"] == 1
    assert ("running_since_timestamp_seconds",) not in found


def test_a_dirty_state_needs_a_decision(migrated, guvnor):
    migrated.execute("UPDATE schema_migrations SET dirty = true")
    found = measured(guvnor, migrated, "--check")
    assert (found["dirty",], found["decision_needed",]) == (1, 1)
    assert ("drift_differences",) not in found, "it is not known which revision that would be from"


def test_drift_is_counted(migrated, guvnor):
    assert measured(guvnor, migrated, "--check")["drift_differences",] == 0
    migrated.execute("DROP INDEX idx_incidents_status; ALTER TABLE incidents ADD COLUMN extra integer")
    assert measured(guvnor, migrated, "--check")["drift_differences",] == 2


def test_two_databases_of_a_machine_are_told_apart(migrated, database, guvnor, tmp_path):
    for target in (migrated, database):
        out = tmp_path / f"{target.name}.prom"
        succeeds(guvnor("migrate", "metrics", "--output", out, database=target))
    versions = {
        sample.labels["database"]: sample.value
        for path in tmp_path.glob("*.prom")
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.name == "guvnor_migration_version"
    }
    assert versions == {migrated.name: 2, database.name: 0}
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".prom"}


def test_a_role_that_may_only_read_is_enough(migrated, guvnor, server):
    role = server.create_role()
    migrated.execute(
        f'GRANT SELECT ON guvnor_migration_history, alembic_version, schema_migrations TO "{role.name}"'
    )
    result = guvnor("migrate", "metrics", database=migrated.dsn_with(role))
    assert parsed(succeeds(result).out)["version",] == 2


def test_a_deployment_writes_them_after_each_stage(migrated, guvnor, project, tmp_path):
    out, here = tmp_path / "guvnor.prom", {"database": migrated, "cwd": project.directory}
    project.add_revision(SLOW, "SELECT 1")
    process = guvnor.start("migrate", "deploy", "--metrics", out, **here)
    pid = running(migrated, r"SELECT pg_sleep")
    found = parsed(out.read_text())
    assert (found["version",], found["pending",], found["running",]) == (2, 1, 1)
    migrated.execute("SELECT pg_cancel_backend(%s)", [pid])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert parsed(out.read_text())["attempts_total", "up", "003", "failed"] == 1
    path = project.versions / "003_test.py"
    path.write_text(path.read_text().replace("20", "0"))
    succeeds(guvnor("migrate", "deploy", "--metrics", out, **here))
    found = parsed(out.read_text())
    assert (found["version",], found["pending",], found["running",]) == (3, 0, 0)
    assert found["size_after_bytes", "up", "003"] > 0


def test_metrics_that_cannot_be_written(migrated, guvnor, tmp_path):
    out = tmp_path / "nowhere" / "guvnor.prom"
    ends(guvnor("migrate", "metrics", "--output", out, database=migrated), 2, f"cannot be written to {out}: ")
    # A deployment goes on without them.
    succeeds(guvnor("migrate", "deploy", "--metrics", out, database=migrated), "the metrics were not written")
