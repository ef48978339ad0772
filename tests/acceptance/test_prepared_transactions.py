"""A prepared transaction in the way, which belongs to no session: is it named, and how it is ended?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guvnor.embedded import LocalServer
from tests.support.choice import in_memory
from tests.support.command import Command
from tests.support.project import Project
from tests.support.server import Target, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back
GID = "payment 'seven'"


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server that allows prepared transactions, with a database at version 1; the DSN of its owner."""
    with tempfile.TemporaryDirectory(prefix="guvnor-prepared-", dir=in_memory()) as directory:
        local = LocalServer(Path(directory) / ".guvnor")
        try:
            local.start()
            local.stop()
            with (Path(directory) / ".guvnor" / "data" / "postgresql.auto.conf").open("a") as file:
                file.write("max_prepared_transactions = 5\n")
            local.start()
            yield local.url()
        finally:
            local.stop()
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def database(own_server: str, guvnor: Command) -> Iterator[Target]:
    target = Target(own_server)
    assert guvnor("migrate", "up", "--to", "1", database=target).code == 0
    target.execute("CREATE TABLE IF NOT EXISTS others (n integer)")
    yield target
    for (gid,) in target.execute("SELECT gid FROM pg_prepared_xacts"):
        run(target.connect(), "ROLLBACK PREPARED %s", [gid])
    target.execute("DROP TABLE IF EXISTS others")
    target.close()


def prepare(database: Target, gid: str, *statements: str) -> None:
    """Leave a transaction behind."""
    session = database.connect()
    run(session, "BEGIN")
    for statement in statements:
        run(session, statement)
    run(session, "PREPARE TRANSACTION %s", [gid])
    session.close()


@pytest.mark.integration
def test_one_that_has_a_table_locked_is_named(database: Target, guvnor: Command) -> None:
    prepare(database, GID, "INSERT INTO incidents (title, severity, team_id) VALUES ('a', 'low', 'b')")
    prepare(database, "innocent", "SELECT pg_current_xact_id()", "INSERT INTO others VALUES (1)")
    prepare(database, "harmless", "SELECT pg_current_xact_id()", "SELECT FROM alembic_version")
    result = guvnor("migrate", "up", "--max-wait", "700ms", database=database)
    assert result.code == 7, result
    assert "the prepared transaction 'payment ''seven''' on incidents (role guvnor, prepared " in result.err
    ((end,),) = [
        [line.strip() for line in result.err.splitlines() if line.strip().startswith("ROLLBACK PREPARED")]
    ]
    assert end.startswith("ROLLBACK PREPARED 'payment ''seven''';")
    assert "innocent" not in result.err
    assert "harmless" not in result.err
    run(database.connect(), end)
    assert guvnor("migrate", "up", database=database).code == 0
    assert guvnor("migrate", "down", database=database).code == 0


@pytest.mark.integration
def test_one_that_has_a_version_table_locked_is_named(database: Target, guvnor: Command) -> None:
    prepare(database, GID, "LOCK TABLE guvnor_migration_history IN ACCESS EXCLUSIVE MODE")
    result = guvnor("migrate", "status", database=database, env={"GUVNOR_MAX_WAIT": "1s"})
    assert result.code == 7, result
    assert "the prepared transaction 'payment ''seven''' on guvnor_migration_history" in result.err
    assert "ROLLBACK PREPARED 'payment ''seven''';" in result.err


@pytest.mark.integration
def test_one_that_has_changed_a_row_is_named(database: Target, guvnor: Command, project: Project) -> None:
    """A backfill waits for the row, and has no lock timeout."""
    for path in project.versions.glob("002_*"):
        path.unlink()
    project.add_revision('op.backfill("others", "n = 2", "n = 1")', BACK, python=True)
    database.execute("INSERT INTO others VALUES (1)")
    prepare(database, GID, "UPDATE others SET n = 1")
    process = guvnor.start("migrate", "up", database=database, cwd=project.directory)
    assert process.stderr is not None
    said = next((line for line in process.stderr if "waits for" in line), "")
    assert "waits for the prepared transaction 'payment ''seven''' on others" in said
    run(database.connect(), "ROLLBACK PREPARED %s", [GID])
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, out + err
    assert guvnor("migrate", "down", database=database, cwd=project.directory).code == 0
