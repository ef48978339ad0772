"""A backfill beside a replica that does not keep up: is the wait named, and does it have an end?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from guvnor.embedded import LocalServer
from tests.support.choice import in_memory
from tests.support.command import Command
from tests.support.observe import wait_for
from tests.support.project import Project
from tests.support.server import Target, run

pytestmark = pytest.mark.integration

BACK = "op.execute('SELECT 1')"  # every revision has a way back
REPLICA = "reporting"


@pytest.fixture(scope="module")
def primary() -> Iterator[Target]:
    """A server with a replica that is delayed by an hour, as some are on purpose."""
    with tempfile.TemporaryDirectory(prefix="guvnor-replica-", dir=in_memory()) as directory:
        homes = [Path(directory) / name / ".guvnor" for name in ("primary", "replica")]
        server, replica = (LocalServer(home) for home in homes)
        try:
            place = server.start()
            server.stop()
            homes[1].mkdir(parents=True)
            shutil.copytree(homes[0] / "data", homes[1] / "data")
            (homes[1] / "data" / "standby.signal").touch()
            source = f"host={place.socket_directory} port={place.port} user=postgres"
            with (homes[1] / "data" / "postgresql.auto.conf").open("a") as file:
                file.write(f"primary_conninfo = '{source} application_name={REPLICA}'\n")
                file.write("recovery_min_apply_delay = '1h'\n")
                file.write("wal_receiver_status_interval = '1s'\n")
            server.start()
            replica.start()
            with closing(psycopg2.connect(f"{source} dbname=guvnor")) as superuser:
                run(superuser, "GRANT pg_monitor TO guvnor")
                lag = "SELECT 1 FROM pg_stat_replication WHERE replay_lag > interval '5.5 s'"
                wait_for("the replica to be behind", lambda: run(superuser, lag), seconds=30)
            yield Target(server.url())
        finally:
            replica.stop()
            server.stop()


@pytest.fixture
def items(primary: Target, guvnor: Command, project: Project) -> Iterator[Target]:
    """The database at the head, with a table that takes several batches to fill."""
    assert guvnor("migrate", "up", "--to", "2", "--no-verify", database=primary).code == 0
    primary.execute("CREATE TABLE items (n integer, label text) WITH (fillfactor = 10)")
    primary.execute("INSERT INTO items SELECT n FROM generate_series(1, 3000) AS n")
    project.add_revision('op.backfill("items", "label = n", "label IS NULL")', BACK, python=True)
    yield primary
    assert guvnor("migrate", "down", "--to", "2", database=primary, cwd=project.directory).code == 0
    primary.execute("DROP TABLE items")
    primary.close()


def up(guvnor: Command, database: Target, project: Project, **env: str) -> tuple[int, str]:
    words = ("migrate", "up", "--no-verify", "--max-wait", "1s")
    result = guvnor(*words, database=database, cwd=project.directory, env=env)
    return result.code, result.err


def unfilled(database: Target) -> int:
    ((count,),) = database.execute("SELECT count(*) FROM items WHERE label IS NULL")
    return int(count)


def test_it_is_named_and_not_waited_for_without_end(items: Target, guvnor: Command, project: Project) -> None:
    code, said = up(guvnor, items, project)
    assert code == 7, said
    assert f"Waited 1 s for replica {REPLICA}, which is " in said
    assert "the next run finishes the revision" in said
    assert 0 < unfilled(items) < 3000
    code, said = up(guvnor, items, project, GUVNOR_REPLICAS_IGNORE="report*")
    assert code == 0, said
    assert unfilled(items) == 0


def test_nothing_is_waited_for_after_the_last_batch(items: Target, guvnor: Command, project: Project) -> None:
    items.execute("UPDATE items SET label = 'set' WHERE n > 3")
    code, said = up(guvnor, items, project)
    assert code == 0, said
    assert unfilled(items) == 0


def test_a_lock_that_its_readers_have_to_wait_for_is_told_and_recorded(
    items: Target, guvnor: Command, project: Project
) -> None:
    """The replay of ACCESS EXCLUSIVE stops them for as long as it was held."""
    project.add_revision("LOCK TABLE items; SELECT pg_sleep(0.8)")
    code, said = up(guvnor, items, project, GUVNOR_REPLICAS_IGNORE=REPLICA, GUVNOR_MAX_STALL="400ms")
    assert code == 0, said
    assert "readers on a standby wait for its replay" in said
    ((note,),) = items.execute(
        "SELECT note FROM guvnor_migration_history WHERE event = 'succeeded' AND revision = '004'"
    )
    assert "readers on a standby wait for its replay" in note
    shown = guvnor("migrate", "history", "--json", database=items, cwd=project.directory)
    assert "readers on a standby wait for its replay" in shown.out


def test_a_synchronous_standby_confirms_a_revision(items: Target, guvnor: Command, project: Project) -> None:
    superuser = Target(items.dsn.replace("//guvnor@", "//postgres@"))
    superuser.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{REPLICA}'")
    superuser.execute("SELECT pg_reload_conf()")
    try:
        confirming = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_for("the standby to be synchronous", lambda: superuser.execute(confirming))
        code, said = up(guvnor, items, project, GUVNOR_REPLICAS_IGNORE=REPLICA)
        assert code == 0, said
        assert "not confirmed" not in said
    finally:
        superuser.execute("ALTER SYSTEM RESET synchronous_standby_names")
        superuser.execute("SELECT pg_reload_conf()")
        superuser.close()
