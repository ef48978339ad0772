"""Side by side with golang-migrate: the same locks, the same version and dirty flag, and no deadlock."""

from __future__ import annotations

import threading

import pytest
from psycopg2.extensions import connection

from guvnor.migrate.locks import golang_keys
from tests.support.command import Command
from tests.support.golang import WAITING, Golang
from tests.support.observe import wait_for
from tests.support.proxy import Proxy
from tests.support.server import Database, run

# -- a client that does what golang-migrate does --


def lock_and_look(client: connection, key: int) -> None:
    """Do as it does when there is nothing to do, or when the dirty flag is set."""
    run(client, "SELECT pg_advisory_lock(%s)", [key])
    run(client, "SELECT version, dirty FROM schema_migrations")
    run(client, "SELECT pg_advisory_unlock(%s)", [key])


@pytest.mark.parametrize("which", [0, 1], ids=["the application's", "its own command's"])
def test_one_that_waits_for_its_lock_does_not_stop_an_index_build(
    at_version_1: Database, guvnor: Command, which: int
) -> None:
    """The build waits for its snapshot, so if it waited for us in turn, that would be a deadlock."""
    key = golang_keys(at_version_1.name)[which]
    client = at_version_1.connect()
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        assert run(client, "SELECT pg_try_advisory_lock(%s)", [key]) == [(False,)]  # ours, so far
        waiting = threading.Thread(target=lock_and_look, args=(client, key))
        waiting.start()
        wait_for("it to wait", lambda: at_version_1.execute(WAITING))
        proxy.go_on()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert "deadlock" not in err
    waiting.join(30)


def test_it_is_awaited_and_named(at_version_1: Database, guvnor: Command) -> None:
    client = at_version_1.connect(application_name="the Go application")
    run(client, "SELECT pg_advisory_lock(%s)", [golang_keys(at_version_1.name)[0]])
    refused = guvnor("migrate", "up", "--lock-wait", "200ms", database=at_version_1)
    assert refused.code == 7, refused
    assert f"pid {client.info.backend_pid}" in refused.err
    assert "the Go application" in refused.err
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    assert any("waiting for golang-migrate" in line for line in process.stderr)
    run(client, "SELECT pg_advisory_unlock_all()")
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_what_it_moves_while_we_wait_is_noticed(at_version_1: Database, guvnor: Command) -> None:
    client = at_version_1.connect()
    run(client, "SELECT pg_advisory_lock(%s)", [golang_keys(at_version_1.name)[1]])
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    assert any("waiting for golang-migrate" in line for line in process.stderr)
    run(client, "TRUNCATE schema_migrations")
    run(client, "INSERT INTO schema_migrations VALUES (2, false)")
    run(client, "SELECT pg_advisory_unlock_all()")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 5, out + err
    assert "golang-migrate moved the database to version 2 while this run was waiting" in err
    assert "the schema is not that of revision 002" in err
    assert at_version_1.execute("SELECT to_regclass('audit_logs')") == [(None,)]


# -- the real one --


def test_the_real_one_sees_our_version(database: Database, guvnor: Command, golang: Golang) -> None:
    assert guvnor("migrate", "up", "--to", "001", database=database).code == 0
    assert golang(database, "version") == "1"
    assert guvnor("migrate", "up", database=database).code == 0
    assert golang(database, "version") == "2"
    assert golang(database, "up") == "no change"
    assert guvnor("migrate", "down", "--to", "base", database=database).code == 0
    assert golang(database, "version") == "error: no migration"


def test_the_real_one_sees_what_is_half_done(at_version_1: Database, guvnor: Command, golang: Golang) -> None:
    """It waits for our transaction, is let in while the index is being built, and finds the dirty flag."""
    snapshot = at_version_1.connect()
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        other = golang.start(at_version_1, "up")
        wait_for("golang-migrate to wait", lambda: at_version_1.execute(WAITING))
        run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")  # so that the build lasts
        run(snapshot, "SELECT txid_current()")
        proxy.go_on()
        told, _ = other.communicate(timeout=30)
        assert process.poll() is None
        run(snapshot, "ROLLBACK")
        out, err = process.communicate(timeout=30)
    assert "Dirty database version 2" in told
    assert process.returncode == 0, out + err
    assert golang(at_version_1, "version") == "2"
    assert at_version_1.execute("SELECT to_regclass('golang_2')") == [(None,)]


def test_we_see_what_the_real_one_has_done(database: Database, guvnor: Command, golang: Golang) -> None:
    golang(database, "up", "1")
    refused = guvnor("migrate", "up", database=database)
    assert refused.code == 5, refused
    assert "golang-migrate" in refused.err
    assert database.execute("SELECT to_regclass('incidents')") == [(None,)]


def test_we_see_what_the_real_one_left_dirty(migrated: Database, guvnor: Command, golang: Golang) -> None:
    (golang.files / "000003_bad.up.sql").write_text("SELECT 1/0;")
    assert "division by zero" in golang(migrated, "up")
    refused = guvnor("migrate", "up", database=migrated)
    assert refused.code == 5, refused
    assert "dirty state at version 3" in refused.err
    assert "golang-migrate left it" in refused.err
