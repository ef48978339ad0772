"""The deploy job: three at once, killed in any stage, stopped, failed; and what its record says of that."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from tests.support import facts, sample_data
from tests.support.expect import AT_1, AT_HEAD, ends, events, succeeds, versions
from tests.support.observe import wait_for
from tests.support.proxy import Proxy

STAGES = ["plan", "backup", "up", "verification"]


@pytest.fixture
def filled(at_version_1):
    sample_data.fill(at_version_1)
    return at_version_1


@pytest.fixture
def result(tmp_path):
    """Where the record goes, and what it says."""
    return Record(tmp_path / "result.json")


class Record:
    def __init__(self, path):
        self.path = path

    def read(self):
        return json.loads(self.path.read_text(encoding="utf-8"))

    def outcomes(self):
        """Each stage with how it ended, those of pre-flight as one."""
        found = {stage["name"].partition(":")[0]: stage["outcome"] for stage in self.read()["stages"]}
        return list(found.items())

    def stage(self, name):
        return next(stage for stage in self.read()["stages"] if stage["name"] == name)


def as_it_should_be(database, template, before):
    """Exactly the catalogs of version 2, each revision applied once, no row lost."""
    connection = database.connect()
    assert facts.read(connection) == facts.expected(connection, 2)
    assert facts.details(connection) == facts.details(template.connect())
    template.close()
    assert versions(database) == AT_HEAD
    applied = [revision for event, _, revision in events(database) if event == "succeeded"]
    assert applied == ["001", "002"]
    after = sample_data.contents(database)
    for table, rows in before.items():
        assert [without_link(row) for row in after[table]] == rows
    database.close()


def without_link(row):
    return {name: value for name, value in row.items() if name != "escalation_policy_id"}


@pytest.mark.parametrize("start", ["empty", "version 1"])
def test_of_three_jobs_one_works_and_the_others_find_nothing_to_do(
    request, guvnor, tmp_path, template_at_head, start
):
    database = request.getfixturevalue("database" if start == "empty" else "filled")
    before = sample_data.contents(database)
    records = [Record(tmp_path / f"{number}.json") for number in range(3)]

    def job(record, dsn):
        return guvnor.start("migrate", "deploy", "--result", record.path, database=dsn)

    with Proxy(database, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        jobs = [job(records[0], proxy.dsn)]
        assert proxy.wait_until_stopped(lambda: jobs[0].poll() is None)
        jobs += [job(record, database) for record in records[1:]]
        for waiting in jobs[1:]:
            assert any("waiting for another migration" in line for line in waiting.stderr)
        proxy.go_on()
        ended = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], ended
    assert [record.read()["exit_code"] for record in records] == [0, 0, 0]
    assert records[0].read()["applied"] == (["001", "002"] if start == "empty" else ["002"])
    for record, (out, _) in zip(records[1:], ended[1:], strict=True):
        assert record.read()["applied"] == []
        assert record.read()["summary"] == "Nothing to deploy: the database is at version 2"
        assert out.splitlines()[-1] == "✅ Nothing to deploy: the database is at version 2"
        assert record.outcomes() == [("pre-flight", "done"), *((stage, "skipped") for stage in STAGES)]
    as_it_should_be(database, template_at_head, before)


def test_three_jobs_that_start_at_the_same_moment(database, guvnor, template_at_head, tmp_path):
    records = [Record(tmp_path / f"{number}.json") for number in range(3)]
    jobs = [guvnor.start("migrate", "deploy", "--result", r.path, database=database) for r in records]
    ended = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], ended
    assert sorted(record.read()["applied"] for record in records) == [[], [], ["001", "002"]]
    as_it_should_be(database, template_at_head, {})


# The first message of each stage, and whether it is sent before the job is killed.
WHERE = {
    "pre-flight": (r"SELECT\s+current_database\(\)", False),
    "plan": (r"SELECT pg_try_advisory_lock", True),
    "backup": (r"COPY public\.incidents ", False),  # pg_dump's
    "up, in the transaction": (r"CREATE TABLE", True),
    "up, the index": (r"CREATE INDEX CONCURRENTLY", True),
    "verification": (r"SET LOCAL.*CREATE SCHEMA|CREATE SCHEMA", False),
}


@pytest.mark.parametrize("stage", WHERE)
def test_killed_in_a_stage_the_next_job_finishes(
    filled, tools, guvnor, directory, result, template_at_head, stage
):
    before = sample_data.contents(filled)
    pattern, sent = WHERE[stage]
    words = ("migrate", "deploy", "--backup", directory, "--result", result.path)
    with Proxy(filled, lambda message: bool(re.search(pattern, message.text)), sent=sent) as proxy:
        job = guvnor.start(*words, database=proxy.dsn)
        stopped = proxy.wait_until_stopped(lambda: job.poll() is None)
        assert stopped, job.communicate()
        job.kill()
        job.communicate(timeout=10)
    assert result.read()["exit_code"] is None
    assert "was killed" in result.read()["summary"]
    whole = [path for path in directory.iterdir() if path.suffix == ".dump"]
    reached = stage.startswith(("up", "verification"))
    assert len(whole) == reached, "what there is of a backup does not pass for one"
    if stage == "backup":
        assert [path.suffix for path in directory.iterdir()] == [".unfinished"]
    wait_for("pg_dump to be gone", lambda: not sessions_of_pg_dump(filled))

    done = guvnor(*words, database=filled)
    succeeds(done)
    if stage == "verification":  # there is no more to do, and it says so
        assert result.outcomes() == [("pre-flight", "done"), *((name, "skipped") for name in STAGES)]
    else:
        assert result.outcomes() == [("pre-flight", "done"), *((name, "done") for name in STAGES)]
    as_it_should_be(filled, template_at_head, before)
    files = sorted(path.name for path in directory.iterdir())
    assert len(files) == 2 * (1 + (stage.startswith("up")))
    for name in files:
        if name.endswith(".dump"):
            listed = [tools.directory / "pg_restore", "--list", directory / name]
            assert (
                b"TABLE DATA public incidents"
                in subprocess.run(listed, capture_output=True, check=True).stdout
            )


def sessions_of_pg_dump(database):
    return database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pg_dump'"
    )


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_in_the_backup_it_leaves_nothing(filled, guvnor, directory, result, number, code):
    before = events(filled)
    with filled.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
        words = ("migrate", "deploy", "--backup", directory, "--result", result.path)
        job = guvnor.start(*words, database=filled)
        wait_for("pg_dump to wait", lambda: waits_for_a_lock(filled))
        job.send_signal(number)
        out, err = job.communicate(timeout=15)
        wait_for("pg_dump to be gone", lambda: not sessions_of_pg_dump(filled))
        cursor.execute("ROLLBACK")
    blocker.close()
    assert job.returncode == code, out + err
    assert "Traceback" not in out + err
    assert list(directory.iterdir()) == []
    summary = (
        f"Deployment was interrupted in the stage backup with exit code {code}: Interrupted by {number.name}."
    )
    assert out.splitlines()[-1] == f"❌ {summary}"
    assert result.read()["summary"] == summary
    assert result.read()["exit_code"] == code
    assert result.outcomes() == [("pre-flight", "done"), ("plan", "done"), ("backup", "failed")]
    assert (versions(filled), events(filled)) == (AT_1, before)
    succeeds(guvnor(*words, database=filled), "Deployed 1 revision(s): the database is at version 2")


def waits_for_a_lock(database):
    return database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'pg_dump' AND wait_event_type = 'Lock'"
    )


@pytest.mark.parametrize("words", [("--dry-run",), ("--wait-only",), ()], ids=lambda words: " ".join(words))
def test_stopped_elsewhere_it_says_so(filled, guvnor, words):
    """While it looks at the state, before any transaction."""
    with Proxy(filled, lambda message: "schema_migrations" in message.text) as proxy:
        job = guvnor.start("migrate", "deploy", *words, database=proxy.dsn)
        assert proxy.wait_until_stopped(lambda: job.poll() is None)
        job.send_signal(signal.SIGTERM)
        proxy.go_on()
        out, err = job.communicate(timeout=15)
    assert job.returncode == 143, out + err
    assert "Traceback" not in out + err
    assert "Interrupted by SIGTERM" in err
    if words != ("--wait-only",):
        assert out.splitlines()[-1].startswith("❌ Deployment was interrupted in the stage pre-flight")


def test_the_record_of_a_deployment(filled, guvnor, directory, result, tools):
    words = ("migrate", "deploy", "--backup", directory, "--result", result.path)
    done = succeeds(guvnor(*words, database=filled), "✅ Backup taken: ", "✅ Applied 002")
    record = result.read()
    assert done.out.splitlines()[-1] == f"✅ {record['summary']}"
    assert record["summary"] == "Deployed 1 revision(s): the database is at version 2"
    assert (record["exit_code"], record["version"], record["applied"], record["error"]) == (
        0,
        2,
        ["002"],
        None,
    )
    assert result.outcomes() == [("pre-flight", "done"), *((name, "done") for name in STAGES)]
    assert result.stage("plan")["detail"]["steps"] == ["up 002"]
    detail = result.stage("backup")["detail"]
    assert detail["path"].startswith(str(directory))
    (row,) = result.stage("up")["detail"]["applied"]
    assert (row["revision"], row["direction"], row["tries"]) == ("002", "up", 1)
    assert {"stalled_seconds", "stalled_sessions", "stalled_statement"} <= row.keys()
    assert filled.execute(
        "SELECT note FROM guvnor_migration_history WHERE event = 'succeeded' AND revision = '002'"
    ) == [(f"backup: {detail['path']}",)]
    assert f'"program": "pg_dump {tools.version}"' in done.err


def test_what_is_left_out_is_said(filled, guvnor, result):
    flags = ("--no-verify", "--no-backup")
    done = guvnor("migrate", "deploy", *flags, "--result", result.path, database=filled)
    succeeds(done)
    assert result.outcomes() == [
        ("pre-flight", "done"),
        ("plan", "done"),
        ("backup", "skipped"),
        ("up", "done"),
        ("verification", "skipped"),
    ]
    for stage, why in (("backup", "not asked for"), ("verification", "--no-verify")):
        assert why in result.stage(stage)["detail"]["why"]
        assert f"stage skipped: {stage}" in done.err
    ends(guvnor("migrate", "deploy", "--no-backup", "--backup", ".", database=filled), 2)
    ends(guvnor("migrate", "deploy", "--require-encryption", database=filled), 2, "--backup DIR")


def test_a_look_at_the_schema_that_is_not_possible_is_not_said_to_be_done(filled, guvnor, result):
    env = {"GUVNOR_SHADOW_DSN": "host=127.0.0.1 port=1 dbname=scratch user=nobody"}
    succeeds(guvnor("migrate", "deploy", "--result", result.path, database=filled, env=env))
    assert result.outcomes()[-2:] == [("up", "done"), ("verification", "skipped")]


def test_a_dry_run_changes_nothing(filled, guvnor, result):
    before = events(filled)
    done = guvnor("migrate", "deploy", "--dry-run", "--result", result.path, database=filled)
    succeeds(done, "Dry run: 1 revision would be applied", "audit_logs")
    assert result.outcomes() == [
        ("pre-flight", "done"),
        ("plan", "done"),
        ("backup", "skipped"),
        ("up", "skipped"),
        ("verification", "skipped"),
    ]
    assert (versions(filled), events(filled)) == (AT_1, before)


def test_to_a_revision(database, guvnor, result):
    succeeds(guvnor("migrate", "deploy", "--to", "1", "--result", result.path, database=database))
    assert result.read()["applied"] == ["001"]
    assert versions(database) == AT_1
    ends(guvnor("migrate", "deploy", "--at-most", "7", "--result", result.path, database=database), 2, "7")
    assert result.read()["exit_code"] == 2


def test_wait_only_waits_for_the_newest_revision(filled, guvnor):
    late = guvnor("migrate", "deploy", "--wait-only", "--max-wait", "300ms", database=filled)
    ends(late, 8, "version 1", "002")
    waiting = guvnor.start("migrate", "deploy", "--wait-only", "--max-wait", "30s", database=filled)
    succeeds(guvnor("migrate", "up", database=filled))
    out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, err
    assert out == "✅ The database is at version 2\n"


DROPS = "ALTER TABLE incidents DROP COLUMN title"


def test_what_the_guard_stops_is_let_through_by_its_hash(migrated, guvnor, project, result):
    sample_data.fill(migrated)
    project.add_revision(DROPS, "ALTER TABLE incidents ADD COLUMN title text")

    def job(*flags):
        words = ("migrate", "deploy", "--result", result.path, *flags)
        return guvnor(*words, database=migrated, cwd=project.directory, env={"GUVNOR_ENV": "production"})

    refused = ends(job(), 4, "column incidents.title with 4 values")
    assert result.read()["exit_code"] == 4
    assert result.outcomes() == [("pre-flight", "done"), ("plan", "failed")]
    (confirmation,) = set(re.findall(r"Plan hash: ([0-9a-f]{16})", refused.err))
    succeeds(job("--confirm", confirmation), "Deployed 1 revision(s): the database is at version 3")


def test_a_failed_revision_is_on_record(migrated, guvnor, project, result):
    project.add_revision("SELECT 1 / 0")
    failed = guvnor("migrate", "deploy", "--result", result.path, database=migrated, cwd=project.directory)
    ends(failed, 1, "division by zero")
    record = result.read()
    assert record["exit_code"] == 1
    assert record["summary"].startswith("Deployment failed in the stage up with exit code 1: Revision 003")
    assert "rolled back" in record["error"]["state"]
    assert record["error"]["next"]
    assert result.outcomes()[-1] == ("up", "failed")


def test_a_server_that_is_not_there_is_on_record(guvnor, result):
    failed = guvnor(
        "migrate", "deploy", "--result", result.path, database="host=127.0.0.1 port=1 dbname=x user=x"
    )
    ends(failed, 3)
    assert result.read()["exit_code"] == 3
    assert result.outcomes() == [("pre-flight", "failed")]


def test_a_result_file_that_cannot_be_written_is_said_before_anything_starts(filled, guvnor, tmp_path):
    missing = tmp_path / "missing" / "result.json"
    ends(guvnor("migrate", "deploy", "--result", missing, database=filled), 2, "cannot be written")
    assert versions(filled) == AT_1


DRIFTS = """
if op.get_context().connection.exec_driver_sql("SELECT current_schema()").scalar() == "public":
    op.execute("CREATE TABLE by_hand ()")
"""


def test_a_schema_that_is_not_as_it_should_be_is_exit_6(migrated, guvnor, project, result):
    project.add_revision(DRIFTS, "op.execute('SELECT 1')", python=True)
    words = ("migrate", "deploy", "--result", result.path)
    ends(guvnor(*words, database=migrated, cwd=project.directory), 6, "by_hand")
    record = result.read()
    assert record["exit_code"] == 6
    assert record["summary"].startswith("Deployment failed in the stage verification with exit code 6")
    assert record["version"] == 3
    assert result.outcomes()[-2:] == [("up", "done"), ("verification", "failed")]
    assert any("by_hand" in title for title in result.stage("verification")["detail"]["differences"])


BACK = """
op.drop_index_concurrently("i3")
op.execute("DROP TABLE IF EXISTS t3")
"""
FORTH = """
op.execute("CREATE TABLE IF NOT EXISTS t3 (i integer)")
op.create_index_concurrently("i3", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (i)")
"""


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("whole", [True, False], ids=["the whole", "what is dropped"])
def test_a_rollback_that_it_finishes_is_backed_up(migrated, guvnor, project, directory, result, whole):
    project.add_revision(FORTH, BACK, python=True)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    migrated.execute("INSERT INTO t3 VALUES (1)")
    with Proxy(migrated, lambda message: message.text.startswith("DROP INDEX CONCURRENTLY")) as proxy:
        rollback = guvnor.start("migrate", "down", database=proxy.dsn, cwd=project.directory)
        assert proxy.wait_until_stopped(lambda: rollback.poll() is None)
        rollback.kill()
        rollback.communicate(timeout=10)
    assert versions(migrated) == (["003"], [(2, True)])
    flags = ("--backup", directory) if whole else ()
    job = guvnor(
        "migrate", "deploy", "--result", result.path, *flags,
        database=migrated, cwd=project.directory, env={"GUVNOR_BACKUP_DIR": str(directory)},
    )  # fmt: skip
    succeeds(job, "✅ Rolled back 003", "✅ Applied 003")
    (name,) = (path.name for path in directory.iterdir() if path.suffix != ".sha256")
    assert name.endswith("-003.dump" if whole else "-003-dropped.sql.gz")
    assert result.stage("backup")["detail"]["path"].endswith(name)


@pytest.mark.usefixtures("tools")
def test_a_backup_that_has_to_be_encrypted_and_is_not_stops_the_job(filled, guvnor, directory, result):
    words = ("migrate", "deploy", "--require-encryption", "--backup", directory, "--result", result.path)
    ends(guvnor(*words, database=filled), 3, "The backup has to be encrypted", "the database is unchanged")
    assert result.outcomes() == [("pre-flight", "done"), ("plan", "failed")]
    assert list(directory.iterdir()) == []
    assert versions(filled) == AT_1


@pytest.mark.usefixtures("tools")
def test_a_backup_command_that_fails_stops_the_job(filled, guvnor, result):
    words = ("migrate", "deploy", "--result", result.path, "--backup-command")
    ends(guvnor(*words, "echo the bucket is closed; exit 9", database=filled), 1, "the bucket is closed")
    assert result.outcomes() == [("pre-flight", "done"), ("plan", "done"), ("backup", "failed")]
    assert versions(filled) == AT_1
    succeeds(guvnor(*words, "echo saved", database=filled), "Backup taken: what the backup command saves")
