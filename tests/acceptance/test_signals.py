"""SIGINT and SIGTERM at any moment, also twice: does the run end soon, with its own exit code, and well?"""

from __future__ import annotations

import signal
import subprocess

import pytest
from psycopg2.extensions import connection

from guvnor.migrate.locks import RUN_LOCK
from tests.support import sample_data
from tests.support.command import Command, Result
from tests.support.observe import running, sessions, wait_for
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.server import Database, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def ended(process: subprocess.Popen[str], database: Database) -> Result:
    """Wait for the end of a run, which must leave nothing running on the server."""
    out, err = process.communicate(timeout=10)
    assert "Traceback" not in err, err
    wait_for("the sessions to be gone", lambda: sessions(database) == 0, seconds=3)
    return Result(process.returncode, out, err)


def versions(database: Database) -> tuple[str, int, bool]:
    ((alembic, golang, dirty),) = database.execute(
        "SELECT (SELECT version_num FROM alembic_version), version, dirty FROM schema_migrations"
    )
    return alembic, golang, dirty


def last_event(database: Database) -> str:
    ((event,),) = database.execute("SELECT event FROM guvnor_migration_history ORDER BY id DESC LIMIT 1")
    return str(event)


def old_snapshot(database: Database) -> connection:
    """A transaction that a concurrent index build waits for at its end; it holds no lock on a table."""
    session = database.connect()
    run(session, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(session, "SELECT txid_current()")
    return session


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_in_a_transaction(
    migrated: Database,
    guvnor: Command,
    alembic: Command,
    project: Project,
    tool: str,
    number: signal.Signals,
    code: int,
) -> None:
    project.add_revision(
        "op.execute('CREATE TABLE slow ()')\nop.execute('SELECT pg_sleep(60)')", BACK, python=True
    )
    if tool == "guvnor":
        process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    else:
        process = alembic.start("upgrade", "head", database=migrated, cwd=project.directory)
    running(migrated, "pg_sleep")
    process.send_signal(number)
    result = ended(process, migrated)
    assert result.code == code, result
    assert f"Interrupted by {number.name}" in result.err
    assert "rolled back" in result.err
    assert ("guvnor migrate up" if tool == "guvnor" else "alembic upgrade head") in result.err
    assert versions(migrated) == ("002", 2, False)
    assert migrated.execute("SELECT to_regclass('slow')") == [(None,)]
    assert last_event(migrated) == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # Python sees two equal ones as one
def test_twice(migrated: Database, guvnor: Command, project: Project, number: signal.Signals) -> None:
    """The second one comes while the server is still busy with ending the statement."""
    project.add_revision("""
        DO $$
        BEGIN
            FOR turn IN 1..8 LOOP
                BEGIN
                    PERFORM pg_sleep(CASE turn WHEN 1 THEN 60 ELSE 0.3 END);
                EXCEPTION WHEN query_canceled THEN
                END;
                PERFORM pg_advisory_xact_lock(4711);
            END LOOP;
            RAISE query_canceled;
        END
        $$
    """)
    process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    running(migrated, "pg_sleep")
    process.send_signal(signal.SIGINT)
    wait_for(
        "the first to arrive",
        lambda: migrated.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"),
    )
    process.send_signal(number)
    result = ended(process, migrated)
    assert result.code == 130, result
    assert versions(migrated) == ("002", 2, False)
    assert last_event(migrated) == "interrupted"
    assert guvnor("migrate", "up", "--to", "002", database=migrated).code == 0


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_an_index_is_being_built(
    at_version_1: Database, guvnor: Command, number: signal.Signals, code: int
) -> None:
    sample_data.fill(at_version_1)
    snapshot = old_snapshot(at_version_1)
    process = guvnor.start("migrate", "up", database=at_version_1)
    running(at_version_1, "CREATE INDEX CONCURRENTLY")
    process.send_signal(number)
    result = ended(process, at_version_1)
    assert result.code == code, result
    assert "half done" in result.err
    assert "build index idx_incidents_escalation_policy" in result.err
    assert "guvnor migrate up" in result.err
    assert versions(at_version_1) == ("001", 2, True)
    assert last_event(at_version_1) == "interrupted"
    run(snapshot, "ROLLBACK")
    recovered = guvnor("migrate", "up", database=at_version_1)
    assert recovered.code == 0, recovered
    assert "can be finished" in recovered.out
    assert versions(at_version_1) == ("002", 2, False)


def test_an_index_build_that_is_stopped_waits_for_nobody(at_version_1: Database, guvnor: Command) -> None:
    """Dropping what it has left would wait for the report; that can be done by the next run."""
    report = at_version_1.connect()
    with Proxy(at_version_1, lambda m: m.text.startswith("CREATE INDEX CONCURRENTLY")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        run(report, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        run(report, "SELECT count(*) FROM incidents")
        proxy.go_on()
        running(at_version_1, "CREATE INDEX CONCURRENTLY")
        process.send_signal(signal.SIGINT)
        result = ended(process, at_version_1)
    assert result.code == 130, result
    assert versions(at_version_1) == ("001", 2, True)
    run(report, "ROLLBACK")
    recovered = guvnor("migrate", "up", database=at_version_1)
    assert recovered.code == 0, recovered
    assert at_version_1.execute("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []


def test_in_a_backfill(migrated: Database, guvnor: Command, project: Project) -> None:
    sample_data.fill(migrated)
    project.add_revision(
        "op.backfill('incidents', 'description = (SELECT title FROM pg_sleep(60))', 'description IS NULL')",
        BACK,
        python=True,
    )
    process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    running(migrated, "pg_sleep")
    process.send_signal(signal.SIGTERM)
    result = ended(process, migrated)
    assert result.code == 143, result
    assert "backfill incidents" in result.err
    assert versions(migrated) == ("002", 3, True)


@pytest.mark.parametrize("words", [("up",), ("force", "1")], ids=" ".join)
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_waiting_for_another_migration(
    at_version_1: Database, guvnor: Command, number: signal.Signals, code: int, words: tuple[str, ...]
) -> None:
    other = at_version_1.connect()
    run(other, "SELECT pg_advisory_lock(%s)", [RUN_LOCK])
    process = guvnor.start("migrate", *words, database=at_version_1)
    assert process.stderr is not None
    assert any("waiting for another migration" in line for line in process.stderr)
    process.send_signal(number)
    result = ended(process, at_version_1)
    assert result.code == code, result
    assert "No revision was being run" in result.err
    assert versions(at_version_1) == ("001", 1, False)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_waiting_for_a_busy_table(
    at_version_1: Database, guvnor: Command, number: signal.Signals, code: int
) -> None:
    other = at_version_1.connect()
    run(other, "BEGIN")
    run(other, "SELECT count(*) FROM incidents")
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    assert any("could not get a lock" in line for line in process.stderr)
    process.send_signal(number)
    result = ended(process, at_version_1)
    assert result.code == code, result
    assert "rolled back" in result.err
    assert versions(at_version_1) == ("001", 1, False)
    assert last_event(at_version_1) == "interrupted"


def test_control_c_on_a_terminal(migrated: Database, guvnor: Command, project: Project) -> None:
    project.add_revision("SELECT pg_sleep(60)")
    answers = [("Running upgrade 002 -> 003", "\x03")]
    result = guvnor.terminal("migrate", "up", database=migrated, cwd=project.directory, answers=answers)
    assert result.code == 130, result
    assert "Interrupted by SIGINT" in result.plain
    assert versions(migrated) == ("002", 2, False)
