"""The version tables and the history are locked: does each command end in time, and name who it is?"""

from __future__ import annotations

import signal
import time

import pytest
from psycopg2.extensions import connection

from tests.support import facts
from tests.support.command import Command
from tests.support.observe import sessions, wait_for
from tests.support.project import Project
from tests.support.proxy import Message, Proxy
from tests.support.server import Database, run

TABLES = ["alembic_version", "schema_migrations", "guvnor_migration_history"]
MAINTENANCE = "nightly maintenance"
BACK = "op.execute('SELECT 1')"  # every revision has a way back


def locked(database: Database, table: str) -> connection:
    """A session that has locked a table, as VACUUM FULL does, until it is rolled back."""
    session = database.connect(application_name=MAINTENANCE)
    run(session, "BEGIN")
    run(session, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    return session


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
@pytest.mark.parametrize("table", TABLES)
def test_a_run_ends_after_max_wait(
    at_version_1: Database, guvnor: Command, alembic: Command, table: str, tool: str
) -> None:
    before = facts.details(at_version_1.connect())
    holder = locked(at_version_1, table)
    began = time.monotonic()
    if tool == "guvnor":
        result = guvnor("migrate", "up", "--max-wait", "1500ms", database=at_version_1)
    else:
        result = alembic("upgrade", "head", database=at_version_1, env={"GUVNOR_MAX_WAIT": "1500ms"})
    assert result.code == 7, result
    assert time.monotonic() - began < 8
    assert f"pid {holder.info.backend_pid} on {table} (" in result.err
    assert MAINTENANCE in result.err
    assert f"SELECT pg_terminate_backend({holder.info.backend_pid});" in result.err.split("Next:")[1]
    run(holder, "ROLLBACK")
    assert facts.details(at_version_1.connect()) == before
    assert guvnor("migrate", "up", database=at_version_1).code == 0


def test_a_run_goes_on_when_the_table_is_free_again(at_version_1: Database, guvnor: Command) -> None:
    holder = locked(at_version_1, "guvnor_migration_history")
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    waiting = next((line for line in process.stderr if "waiting for the tables" in line), "")
    assert f"pid {holder.info.backend_pid} on guvnor_migration_history" in waiting
    run(holder, "ROLLBACK")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err


@pytest.mark.parametrize(
    "words", [("status",), ("history",), ("plan",), ("force", "1"), ("adopt",), ("repair",)], ids=" ".join
)
def test_other_commands_end_after_max_wait(
    at_version_1: Database, guvnor: Command, words: tuple[str, ...]
) -> None:
    holder = locked(at_version_1, "guvnor_migration_history")
    result = guvnor("migrate", *words, database=at_version_1, env={"GUVNOR_MAX_WAIT": "1s"})
    assert result.code == 7, result
    assert f"pid {holder.info.backend_pid} on guvnor_migration_history" in result.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait(
    at_version_1: Database, guvnor: Command, number: signal.Signals, code: int
) -> None:
    holder = locked(at_version_1, "alembic_version")
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    assert any("waiting for the tables" in line for line in process.stderr)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code, out + err
    run(holder, "ROLLBACK")
    wait_for("the sessions to be gone", lambda: sessions(at_version_1) == 0, seconds=5)


def stops_at(event: str) -> object:
    return lambda message: (
        "INSERT INTO public.guvnor_migration_history" in message.text and (f"'{event}'" in message.text)
    )


def test_a_step_that_could_not_be_recorded_as_started_changes_nothing(
    at_version_1: Database, guvnor: Command
) -> None:
    with Proxy(at_version_1, stops_at("started")) as proxy:  # type: ignore[arg-type]
        process = guvnor.start("migrate", "up", "--max-wait", "2s", "--no-verify", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        holder = locked(at_version_1, "guvnor_migration_history")
        proxy.go_on()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 7, out + err
    assert f"pid {holder.info.backend_pid} on guvnor_migration_history" in err
    assert "State: " in err
    assert at_version_1.execute("SELECT to_regclass('escalation_policies')") == [(None,)]
    run(holder, "ROLLBACK")
    assert guvnor("migrate", "up", database=at_version_1).code == 0


def test_a_step_that_is_done_does_not_wait_for_the_measurement_that_follows_it(
    at_version_1: Database, guvnor: Command
) -> None:
    with Proxy(at_version_1, stops_at("measured")) as proxy:  # type: ignore[arg-type]
        process = guvnor.start("migrate", "up", "--no-verify", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        holder = locked(at_version_1, "guvnor_migration_history")
        proxy.go_on()
        wait_for(
            "the log to say so",
            lambda: any("waiting for the tables" in line for line in process.stderr or ()),
        )
        time.sleep(1.5)
        run(holder, "ROLLBACK")
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, out + err
    assert at_version_1.execute("SELECT version_num FROM alembic_version") == [("002",)]


def test_who_keeps_the_fence_waiting_is_named(at_version_1: Database, guvnor: Command) -> None:
    """A lock that lets the version be read, but not be written."""
    holder = at_version_1.connect(application_name=MAINTENANCE)
    run(holder, "BEGIN")
    run(holder, "LOCK TABLE alembic_version IN SHARE MODE")
    result = guvnor("migrate", "up", "--max-wait", "1s", database=at_version_1)
    assert result.code == 7, result
    assert f"In the way: pid {holder.info.backend_pid} on alembic_version (" in result.err
    assert "The revision was rolled back; the database is as it was before it (version 1)." in result.err
    assert f"SELECT pg_terminate_backend({holder.info.backend_pid});" in result.err


@pytest.mark.parametrize("table", ["schema_migrations", "guvnor_migration_history"])
def test_who_keeps_the_version_from_being_written_is_named(
    at_version_1: Database, guvnor: Command, project: Project, table: str
) -> None:
    project.add_revision("SELECT 'the last statement'", number=2)
    for path in project.versions.glob("002_add*"):
        path.unlink()

    def last_statement(message: Message) -> bool:
        return "the last statement" in message.text

    with Proxy(at_version_1, last_statement, sent=True) as proxy:
        process = guvnor.start(
            "migrate", "up", "--max-wait", "700ms", "--no-verify", database=proxy.dsn, cwd=project.directory
        )
        assert proxy.wait_until_stopped()
        holder = at_version_1.connect(application_name=MAINTENANCE)
        run(holder, "BEGIN")
        run(holder, f"LOCK TABLE {table} IN SHARE MODE")
        proxy.go_on()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 7, out + err
    assert f"In the way: pid {holder.info.backend_pid} on {table} (" in err
