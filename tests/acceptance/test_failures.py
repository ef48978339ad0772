"""Errors, lost connections, a full disk, a restarted server: a clear end, and an `up` that recovers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest

from guvnor.embedded import LocalServer
from tests.support import facts, sample_data
from tests.support.command import Command, Result
from tests.support.observe import running, wait_for
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.server import Database, Server, Target

BUILD = "CREATE INDEX CONCURRENTLY"
BACK = "op.execute('SELECT 1')"  # every revision has a way back


def versions(target: Target) -> tuple[str | None, int, bool]:
    """What the version tables say: Alembic's version, golang-migrate's, and its dirty flag."""
    ((alembic, golang, dirty),) = target.execute(
        "SELECT (SELECT version_num FROM alembic_version), version, dirty FROM schema_migrations"
    )
    return alembic, golang, dirty


def ended(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err, err
    return Result(process.returncode, out, err)


def recovers(
    guvnor: Command,
    target: Target,
    number: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run a plain `up` and see that it reaches a version."""
    result = guvnor("migrate", "up", database=target, cwd=cwd, env=env)
    assert result.code == 0, result
    assert versions(target) == (f"{number:03}", number, False)
    assert target.execute("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    return result


def last_end(target: Target) -> tuple[str, str | None]:
    """The event and the SQLSTATE with which the last attempt ended."""
    ((event, code),) = target.execute("""
        SELECT event, sqlstate FROM guvnor_migration_history
        WHERE event IN ('succeeded', 'failed', 'interrupted') ORDER BY id DESC LIMIT 1
    """)
    return event, code


# A block that may correct rows, for all that can be told beforehand, so that pre-flight refuses nothing.
MAY_MEND = "op.execute('DO $$ BEGIN PERFORM 1; END $$')\n"


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_statement_that_fails(
    migrated: Database, guvnor: Command, alembic: Command, project: Project, tool: str
) -> None:
    sample_data.fill(migrated)
    before = facts.details(migrated.connect())
    path = project.add_revision(
        f"{MAY_MEND}op.execute('CREATE TABLE teams (id integer PRIMARY KEY)')\n"
        "op.execute('ALTER TABLE incidents ADD CONSTRAINT short CHECK (length(title) < 5)')",
        downgrade=BACK,
        python=True,
    )
    if tool == "guvnor":
        result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    else:
        result = alembic("upgrade", "head", database=migrated, cwd=project.directory)
    assert result.code == 1, result
    assert "Traceback" not in result.err
    for word in ("003", '"short"', "23514", "ADD CONSTRAINT short", "rolled back", "version 2", "Next:"):
        assert word in result.err
    assert versions(migrated) == ("002", 2, False)
    assert facts.details(migrated.connect()) == before
    assert last_end(migrated) == ("failed", "23514")
    path.write_text(path.read_text().replace("< 5", "< 500"))
    recovers(guvnor, migrated, 3, project.directory)


def test_a_revision_whose_own_code_fails(migrated: Database, guvnor: Command, project: Project) -> None:
    project.add_revision("op.execute('CREATE TABLE teams ()')\n{}['team']", BACK, python=True)
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    assert result.code == 1
    assert "KeyError" in result.err
    assert "rolled back" in result.err
    assert migrated.execute("SELECT to_regclass('teams')") == [(None,)]
    assert versions(migrated) == ("002", 2, False)


def test_an_online_step_that_fails(migrated: Database, guvnor: Command, project: Project) -> None:
    sample_data.fill(migrated)
    migrated.execute("UPDATE incidents SET title = 'The same' WHERE severity <> 'low'")
    project.add_revision(
        f"{MAY_MEND}op.execute('CREATE TABLE IF NOT EXISTS teams ()')\n"
        "sql = 'CREATE UNIQUE INDEX CONCURRENTLY one_title ON incidents (title)'\n"
        "op.create_index_concurrently('one_title', sql)",
        downgrade=BACK,
        python=True,
    )
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    assert result.code == 1, result
    for word in ("23505", "The same", "half done", "build index one_title", "guvnor migrate up"):
        assert word in result.err
    assert versions(migrated) == ("002", 3, True)
    # An invalid unique index would refuse rows of the application.
    assert migrated.execute("SELECT to_regclass('one_title')") == [(None,)]
    status = guvnor("migrate", "status", "--exit-code", database=migrated, cwd=project.directory)
    assert "dirty" in status.out.lower()
    migrated.execute("UPDATE incidents SET title = title || id")
    recovered = recovers(guvnor, migrated, 3, project.directory)
    assert "can be finished" in recovered.out
    assert "build index one_title" in recovered.out


@pytest.mark.parametrize("online", [False, True], ids=["in the transaction", "in an online step"])
def test_the_session_is_ended_by_an_administrator(
    at_version_1: Database, guvnor: Command, online: bool
) -> None:
    statement = BUILD if online else "CREATE TABLE IF NOT EXISTS audit_logs"
    with Proxy(at_version_1, lambda message: message.text.startswith(statement)) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        proxy.terminate_backend()
        proxy.go_on()
        result = ended(process)
    assert result.code == 1, result
    assert "connection to the database was lost" in result.err
    assert "revision 002" in result.err
    assert ("half done" if online else "rolled back") in result.err
    assert "guvnor migrate up" in result.err
    assert versions(at_version_1) == (("001", 2, True) if online else ("001", 1, False))
    recovers(guvnor, at_version_1, 2)


@pytest.mark.parametrize("statement", ["CREATE TABLE IF NOT EXISTS audit_logs", "COMMIT", BUILD])
def test_the_network_goes_away(at_version_1: Database, guvnor: Command, statement: str) -> None:
    with Proxy(at_version_1, lambda message: message.text.startswith(statement), sent=True) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        proxy.drop_connections()
        proxy.go_on()
        result = ended(process)
    assert result.code == 1, result
    assert "connection to the database was lost" in result.err
    assert "guvnor migrate status" in result.err  # since nobody can say now what became of the last statement
    recovers(guvnor, at_version_1, 2)


def test_the_session_with_the_locks_is_ended(at_version_1: Database, guvnor: Command) -> None:
    """Without it another runner may be at work: the revision must not be committed."""
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        at_version_1.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'guvnor % control'"
        )
        proxy.go_on()
        result = ended(process)
    assert result.code == 1, result
    assert "it was before it (version 1)" in result.err  # the other session can still ask
    assert "Next:" in result.err
    assert versions(at_version_1) == ("001", 1, False)
    assert at_version_1.execute("SELECT to_regclass('audit_logs')") == [(None,)]
    recovers(guvnor, at_version_1, 2)


# -- disk --


def test_no_more_temporary_space(migrated: Database, guvnor: Command, project: Project) -> None:
    """The server's own limit, which every server has, in place of a full disk."""
    migrated.execute(f'ALTER DATABASE "{migrated.name}" SET temp_file_limit = 64')
    project.add_revision("""
        SET LOCAL work_mem = '64kB';
        CREATE TABLE sorted AS SELECT md5(n::text) AS hash FROM generate_series(1, 20000) AS n ORDER BY 1
    """)
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    assert result.code == 1, result
    assert "53400" in result.err
    assert "temp_file_limit" in result.err
    assert "rolled back" in result.err
    assert versions(migrated) == ("002", 2, False)
    migrated.execute(f'ALTER DATABASE "{migrated.name}" RESET temp_file_limit')
    recovers(guvnor, migrated, 3, project.directory)


@pytest.fixture
def small_disk(server: Server, at_version_1: Database) -> Iterator[Path]:
    """A file system of half a megabyte that takes all new tables and indexes of the database."""
    ((data,),) = server.execute("SHOW data_directory")
    if os.geteuid() != 0 or sys.platform != "linux" or not Path(data).is_dir():
        pytest.skip("mounting a small file system for the server needs root, on the server's machine")
    name, place = f"{server.prefix}_small", Path(data).parent / "small-disk"
    place.mkdir()
    owner = Path(data).stat()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=512k,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"]
    try:
        if subprocess.run([*mount, "tmpfs", str(place)], capture_output=True).returncode != 0:
            pytest.skip("mounting is not allowed here")
        try:
            server.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{place}'")
            server.execute(f'ALTER DATABASE "{at_version_1.name}" SET default_tablespace = "{name}"')
            yield place
            at_version_1.close()
            server.execute(f'DROP DATABASE "{at_version_1.name}" WITH (FORCE)')
            server.execute(f'DROP TABLESPACE "{name}"')
        finally:
            subprocess.run(["umount", str(place)], check=True)
    finally:
        place.rmdir()


def fill_up(disk: Path) -> Path:
    """Take all the space that is left on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


@pytest.mark.parametrize("statement", ["CREATE TABLE IF NOT EXISTS audit_logs", BUILD])
def test_a_full_disk(at_version_1: Database, guvnor: Command, small_disk: Path, statement: str) -> None:
    sample_data.fill(at_version_1)
    before = sample_data.contents(at_version_1)
    kept = {"GUVNOR_SESSION_KEEP": "default_tablespace"}  # new tables are put where the database says
    with Proxy(at_version_1, lambda message: message.text.startswith(statement)) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn, env=kept)
        assert proxy.wait_until_stopped()
        filler = fill_up(small_disk)
        proxy.go_on()
        result = ended(process)
    assert result.code == 1, result
    assert "No space left on device" in result.err
    assert "53100" in result.err
    assert "disk space" in result.err
    assert versions(at_version_1) == (("001", 2, True) if statement == BUILD else ("001", 1, False))
    filler.unlink()
    recovers(guvnor, at_version_1, 2, env=kept)
    after = sample_data.contents(at_version_1)
    assert {table: len(rows) for table, rows in before.items()} == {
        table: len(after[table]) for table in before
    }


# -- restart --


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[LocalServer]:
    """A server that this test may stop and start."""
    server = LocalServer(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.mark.integration
@pytest.mark.parametrize("online", [False, True], ids=["in the transaction", "in an online step"])
def test_the_server_is_restarted(
    own_server: LocalServer, guvnor: Command, project: Project, online: bool
) -> None:
    target = Target(own_server.url())
    assert guvnor("migrate", "up", database=target).code == 0
    project.add_revision(
        "op.execute('CREATE TABLE IF NOT EXISTS slow ()')\n"
        + (
            "op.backfill('schedules', 'active = (SELECT true FROM pg_sleep(60))', 'NOT active')"
            if online
            else "op.execute('SELECT pg_sleep(60)')"
        ),
        downgrade=BACK,
        python=True,
    )
    sample_data.fill(target)
    process = guvnor.start("migrate", "up", database=target, cwd=project.directory)
    running(target, "pg_sleep")
    own_server.stop()
    result = ended(process)
    assert result.code == 1, result
    assert "connection to the database was lost" in result.err
    assert "Next:" in result.err
    refused = guvnor("migrate", "up", database=target, cwd=project.directory)
    assert refused.code == 3
    own_server.start()
    wait_for("the server", lambda: answers(target))
    assert versions(target) == (("002", 3, True) if online else ("002", 2, False))
    for path in project.versions.glob("003*"):
        path.write_text(path.read_text().replace("pg_sleep(60)", "pg_sleep(0)"))
    recovers(guvnor, target, 3, project.directory)


def answers(target: Target) -> bool:
    try:
        return target.execute("SELECT true") == [(True,)]
    except psycopg2.OperationalError:
        return False


def last_error(target: Target) -> str:
    ((error,),) = target.execute(
        "SELECT error FROM guvnor_migration_history WHERE event = 'failed' ORDER BY id DESC LIMIT 1"
    )
    return str(error)


def test_a_failure_whose_text_the_database_cannot_hold_is_recorded(
    server: Server, guvnor: Command, project: Project
) -> None:
    provider = "LOCALE_PROVIDER libc" if server.major >= 15 else ""
    latin = server.create_database(options=f"{provider} ENCODING 'LATIN1' LOCALE 'C'")
    path = project.add_revision("SELECT 1 / 0")
    path.write_text(path.read_text().replace('"""Test.', '"""Zażółć → é.'))
    result = guvnor("migrate", "up", database=latin, cwd=project.directory)
    assert result.code == 1, result
    assert "Zażółć → é" in result.err
    assert last_end(latin) == ("failed", "22012")
    assert r"Za\u017có\u0142\u0107 \u2192 é" in last_error(latin)
    path.write_text(path.read_text().replace("1 / 0", "1"))
    recovers(guvnor, latin, 3, project.directory)


def test_a_long_statement_is_cut_in_log_and_history(
    migrated: Database, guvnor: Command, project: Project
) -> None:
    project.add_revision("op.execute('SELECT 1 / 0; --' + 'x' * 2_400_000)", BACK, python=True)
    json = {"GUVNOR_LOG_FORMAT": "json", "GUVNOR_LOG_LEVEL": "debug"}
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory, env=json)
    assert result.code == 1, result.err[:10_000]
    for text in (result.err, last_error(migrated)):
        assert "2,400,016 characters in all" in text
        assert len(text) < 10_000


def test_a_password_in_a_revision_is_masked_in_log_and_history(
    migrated: Database, guvnor: Command, alembic: Command, project: Project
) -> None:
    project.add_revision("CREATE ROLE guvnor_app_of_a_test LOGIN PASSWORD 'hunter2' IN ROLE nobody_at_all")
    for command, words in ((guvnor, ("-v", "migrate", "up")), (alembic, ("upgrade", "head"))):
        for level in ("info", "debug"):
            env = {"GUVNOR_LOG_LEVEL": level}
            result = command(*words, database=migrated, cwd=project.directory, env=env)
            assert result.code == 1, result
            assert "PASSWORD '***'" in result.err
            assert "hunter2" not in result.out + result.err + last_error(migrated)
