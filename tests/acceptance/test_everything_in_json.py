"""With JSON asked for, and in production without a terminal: is each line a record, however a run ends?"""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from guvnor.migrate.locks import RUN_LOCK
from tests.support.command import Result
from tests.support.expect import AT_1, AT_HEAD, versions
from tests.support.observe import wait_for

PASSWORD = "hun_ter2-secret"
NOBODY = f"host=/nowhere dbname=x user=y password={PASSWORD}"
MODES = {"json": {"GUVNOR_LOG_FORMAT": "json"}, "production": {"GUVNOR_ENV": "production"}}
RUNS = ["up", "down", "deploy", "preflight", "repair", "adopt"]


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


def said(result, code=0):
    """The records of both streams; a run that fails has one at ERROR, which says how to go on."""
    assert PASSWORD not in result.out + result.err
    found = [json.loads(line) for line in (result.out + result.err).splitlines()]
    assert result.code == code, found
    assert all({"time", "level", "msg"} <= record.keys() for record in found)
    assert all(
        datetime.now(UTC) - datetime.fromisoformat(each["time"]) < timedelta(minutes=10) for each in found
    )
    errors = [record for record in found if record["level"] == "ERROR"]
    assert len(errors) == (code != 0), errors
    for record in errors:
        assert record["exit_code"] == code
        assert record["state"]
        assert record["next"]
    return found


def one(found, words):
    (record,) = [record for record in found if words in record["msg"]]
    return record


def test_success_and_nothing_to_do(database, guvnor, mode):
    up = said(guvnor("migrate", "up", database=database, env=mode))
    assert one(up, "Applied 002")["revision"] == "002"
    assert one(up, "Migration completed: version 2")["version"] == 2
    assert one(said(guvnor("migrate", "up", database=database, env=mode)), "No change")["version"] == 2
    nothing = said(guvnor("migrate", "deploy", database=database, env=mode))
    assert one(nothing, "Nothing to deploy")["exit_code"] == 0
    said(guvnor("migrate", "deploy", "--dry-run", database=database, env=mode))
    said(guvnor("migrate", "deploy", "--wait-only", database=database, env=mode))
    checked = said(guvnor("migrate", "preflight", database=database, env=mode))
    assert one(checked, "Pre-flight checks passed")["level"] == "INFO"
    said(guvnor("migrate", "repair", database=database, env=mode))
    said(guvnor("migrate", "adopt", database=database, env=mode))
    down = guvnor("migrate", "down", "--no-backup", database=database, env=mode)
    if "GUVNOR_ENV" in mode:
        refused = said(down, 4)
        assert one(refused, "You are about to rollback")["plan_hash"] in refused[-1]["next"]
    else:
        assert one(said(down), "Rolled back 002")["direction"] == "down"
        assert (
            one(said(guvnor("migrate", "deploy", database=database, env=mode)), "Deployed 1")["version"] == 2
        )


@pytest.mark.parametrize("command", RUNS)
def test_failures(guvnor, mode, command):
    said(guvnor("migrate", command, database=NOBODY, env=mode), 3)
    said(guvnor("migrate", command, database=f"postgres://u:{PASSWORD}@h:x/y", env=mode), 2)


def test_what_is_wrong_before_anything_is_known(guvnor, mode, tmp_path):
    for words in (("--nope",), ("--config", tmp_path / "missing.yaml"), ("--max-wait", "x"), ("extra",)):
        said(guvnor.process("migrate", "up", *words, env=mode), 2)
    (tmp_path / "broken.yaml").write_text(f"storage: [dsn: postgres://u:{PASSWORD}@h/d\n")
    said(guvnor("migrate", "up", "--config", tmp_path / "broken.yaml", env=mode), 2)
    said(guvnor("up", env=mode), 2)
    said(guvnor("migrate", "up", env={**mode, "GUVNOR_LOG_LEVEL": "loud"}), 2)
    said(guvnor("migrate", "up", env={"GUVNOR_ENV": "produktion"}), 2)


def test_it_is_asked_for_in_a_dotenv_file_too(guvnor, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / ".env").write_text("GUVNOR_LOG_FORMAT=json\n")
    said(guvnor("migrate", "up", database=NOBODY, cwd=tmp_path / "app"), 3)


PRINTS = """
import sys, warnings
print("two\\nlines", "and one without an end", end="")
print("to standard error", file=sys.stderr)
warnings.warn("take care")
op.execute("SELECT 1")
"""


def test_what_a_revision_prints_and_raises_is_a_record(migrated, project, guvnor, mode):
    project.add_revision(PRINTS, "op.execute('SELECT 1')", python=True)
    raises = f"raise KeyError('postgres://u:{PASSWORD}@h/d')"
    project.add_revision(raises, "op.execute('SELECT 1')", name="raise", python=True)
    here = {"database": migrated, "env": mode, "cwd": project.directory}
    confirmed = []
    if "GUVNOR_ENV" in mode:  # what the second one does is not known
        refused = said(guvnor("migrate", "up", **here), 4)
        confirmed = ["--confirm", refused[-1]["next"].partition("--confirm ")[2].split()[0]]
    up = said(guvnor("migrate", "up", *confirmed, **here), 1)
    printed = {record["msg"]: record["logger"] for record in up if "logger" in record}
    assert printed["two"] == printed["lines and one without an end"] == "stdout"
    assert printed["to standard error"] == "stderr"
    assert any("take care" in record["msg"] and record["level"] == "WARN" for record in up)


def test_a_repair_that_waits_for_a_choice(at_version_1, guvnor, mode):
    at_version_1.execute("UPDATE schema_migrations SET version = 2, dirty = true")
    for command in ("up", "deploy", "preflight", "adopt"):
        said(guvnor("migrate", command, database=at_version_1, env=mode), 5)
    shown = said(guvnor("migrate", "repair", database=at_version_1, env=mode), 5)
    assert "guvnor migrate repair --forward" in shown[-1]["next"]
    (ways,) = [record["choices"] for record in shown if "choices" in record]
    assert [way["name"] for way in ways] == ["forward", "back", "as-is"]
    if "GUVNOR_ENV" not in mode:
        said(guvnor("migrate", "repair", "--forward", database=at_version_1, env=mode))
        assert versions(at_version_1) == AT_HEAD


def test_a_schema_that_differs_is_told_in_the_record(migrated, guvnor):
    migrated.execute("DROP TABLE audit_logs; DELETE FROM alembic_version")
    words = ("migrate", "adopt")
    differs = said(guvnor(*words, database=migrated, env=MODES["json"]), 6)
    assert differs[-1]["differences"][0]["object"] == "audit_logs"
    accepted = said(guvnor(*words, "--accept-drift", database=migrated, env=MODES["json"]))
    assert one(accepted, "Drift: ")["differences"] == differs[-1]["differences"]
    assert one(accepted, "Adopted at version 2")["version"] == 2


@pytest.mark.parametrize("command", ["up", "deploy", "down", "preflight", "wait"])
def test_interrupted(at_version_1, guvnor, mode, command, tmp_path):
    holder = at_version_1.connect()
    with holder.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
    words, extra = ("migrate", command), {}
    if command == "wait":
        words = ("migrate", "deploy", "--wait-only", "--result", tmp_path / "result.json")
    elif command == "preflight":
        words, extra = (*words, "--wait-for-server", "60s"), {"GUVNOR_STORAGE_DSN": NOBODY}
    elif command == "down":
        words, mode = (*words, "--no-backup"), MODES["json"]
    job = guvnor.start(*words, database=at_version_1, env={**mode, **extra})
    for line in job.stderr:
        if "waiting for" in json.loads(line)["msg"]:
            break
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=30)
    found = said(Result(job.returncode, out, err), 143)
    assert found[-1]["msg"] == "Interrupted by SIGTERM."
    assert versions(at_version_1) == AT_1
    if command == "wait":
        assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 143


def test_a_connection_that_is_lost(migrated, project, guvnor, mode):
    project.add_revision("SELECT pg_sleep(60)")
    job = guvnor.start("migrate", "up", database=migrated, env=mode, cwd=project.directory)
    sleeping = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    )
    ((pid,),) = wait_for("the revision", lambda: migrated.execute(sleeping), seconds=30)
    migrated.execute(f"SELECT pg_terminate_backend({pid})")
    out, err = job.communicate(timeout=60)
    said(Result(job.returncode, out, err), job.returncode)
    assert job.returncode != 0


def test_one_stream_for_both_is_whole(at_version_1, guvnor):
    """As a pod's log takes them."""
    done = subprocess.run(
        guvnor._words(("migrate", "deploy"), None),
        env=guvnor._environment(at_version_1, MODES["json"]),
        cwd=guvnor.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    found = said(Result(done.returncode, done.stdout, ""))
    assert [record["time"] for record in found] == sorted(record["time"] for record in found)


# A document that is asked for stays as it is


def test_json_is_one_document_beside_the_records(at_version_1, guvnor, project):
    (project.versions / "002_add_schedules.py").unlink()
    project.add_revision(PRINTS, "op.execute('SELECT 1')", python=True)
    words = ("migrate", "up", "--json")
    done = guvnor(*words, database=at_version_1, env=MODES["json"], cwd=project.directory)
    assert json.loads(done.out)["applied"][0]["revision"] == "002"
    said(Result(done.code, "", done.err))
    at_version_1.execute("UPDATE alembic_version SET version_num = '001'")
    failed = guvnor("migrate", "up", "--json", database=NOBODY, env=MODES["json"])
    assert json.loads(failed.out)["exit_code"] == 3
    said(Result(failed.code, "", failed.err), 3)


def test_without_json_a_revision_that_prints_does_not_break_the_document(at_version_1, guvnor, project):
    (project.versions / "002_add_schedules.py").unlink()
    project.add_revision(PRINTS, "op.execute('SELECT 1')", python=True)
    done = guvnor("migrate", "up", "--json", database=at_version_1, cwd=project.directory)
    assert json.loads(done.out)["version"] == 2
    assert "and one without an end" in done.err


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (("migrate", "plan"), "Plan"),
        (("migrate", "status"), "Migration Status: Version 1"),
        (("migrate", "roles"), "--"),
        (("version",), "guvnor "),
        (("migrate", "up", "--help"), "Usage: "),
    ],
)
def test_documents(at_version_1, guvnor, words, begins):
    done = guvnor(*words, database=at_version_1, env=MODES["production"])
    assert done.code == 0
    assert done.out.lstrip().startswith(begins) or begins == "Plan"
    assert '"level"' not in done.out


# Plain alembic


def test_alembic(at_version_1, alembic, project, mode):
    run = alembic.process
    up = said(run("upgrade", "head", database=at_version_1, env=mode))
    assert one(up, "Migration completed: version 2")["version"] == 2
    said(run("upgrade", "head", database=at_version_1, env=mode))
    said(run("upgrade", "nope", database=at_version_1, env=mode), 255)
    said(run("upgrade", env=mode), 2)
    said(run("upgrade", "head", "--nope", env=mode), 2)
    said(run("upgrade", "head", database=NOBODY, env=mode), 3)
    said(run("-x", "nope=1", "upgrade", "head", database=at_version_1, env=mode), 2)
    said(run("check", database=at_version_1, env=mode))
    assert run("current", database=at_version_1, env=mode).out == "002 (head)\n"
    sql = run("upgrade", "001:002", "--sql", database=at_version_1, env=mode)
    assert "CREATE TABLE" in sql.out
    assert '"level"' not in sql.out
    (project.versions / "003_broken.py").write_text("def upgrade(:")
    said(run("heads", env=mode, cwd=project.directory), 3)


# The result file

KEYS = {"tool", "time", "started", "host", "port", "database", "role", "stage", "exit_code", "summary",
        "version", "applied", "stages", "error"}  # fmt: skip


def test_the_result_file_has_the_same_keys_all_the_time(at_version_1, guvnor, tmp_path):
    path = tmp_path / "result.json"
    read = lambda: json.loads(path.read_text())  # noqa: E731
    holder = at_version_1.connect()
    with holder.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
    job = guvnor.start("migrate", "deploy", "--result", path, database=at_version_1)
    for line in job.stderr:
        if "waiting for" in json.loads(line)["msg"]:
            break
    meanwhile = read()
    assert (meanwhile["stage"], meanwhile["exit_code"], meanwhile["database"]) == (
        "plan",
        None,
        at_version_1.name,
    )
    holder.close()
    job.communicate(timeout=60)
    end = read()
    assert meanwhile.keys() == end.keys() == KEYS
    assert (end["stage"], end["exit_code"], end["version"], end["host"]) == (
        "verification", 0, 2, meanwhile["host"]
    )  # fmt: skip
    assert end["started"] == meanwhile["started"] < meanwhile["time"] < end["time"]


@pytest.mark.parametrize(
    "words", [("--wait-only",), ("--nope",), ("--config", "missing.yaml"), ("--backup-recipient", "x")]
)
def test_an_older_result_never_passes_for_this_one(guvnor, tmp_path, words):
    path = tmp_path / "result.json"
    path.write_text('{"exit_code": 0}')
    done = guvnor("migrate", "deploy", *words, "--result", path, "--max-wait", "1s", database=NOBODY)
    found = json.loads(path.read_text())
    assert found.keys() == KEYS
    assert found["exit_code"] == done.code != 0
    assert found["error"]["next"]


def test_wait_only_tells_what_it_waits_for(at_version_1, guvnor, tmp_path):
    path = tmp_path / "result.json"
    words = ("migrate", "deploy", "--wait-only", "--result", path)
    late = guvnor(*words, "--max-wait", "300ms", database=at_version_1, env=MODES["json"])
    found = said(late, 8)
    waiting = one(found, "waiting for the newest revision")
    assert (waiting["version"], waiting["newest"], waiting["stage"]) == (1, 2, "wait")
    result = json.loads(path.read_text())
    assert (result["stage"], result["exit_code"], result["version"]) == ("wait", 8, 1)
    assert result["database"] == at_version_1.name
    nobody = said(guvnor(*words, "--max-wait", "300ms", database=NOBODY, env=MODES["json"]), 3)
    assert one(nobody, "waiting for the server")["why"]
