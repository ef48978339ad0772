"""A synchronous standby that is gone: no lock is held while it is waited for, and the wait ends."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import psycopg2
import pytest

from guvnor.bookkeeping import confirmation
from guvnor.embedded import LocalServer
from guvnor.postgres import connect
from tests.support.expect import AT_HEAD, versions
from tests.support.forked import ForkedCommand
from tests.support.observe import wait_for
from tests.support.server import Target, uri

pytestmark = pytest.mark.integration

WAITING = """
    SELECT a.pid, ARRAY(SELECT c.relname::text FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
                        WHERE l.pid = a.pid AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r')
    FROM pg_stat_activity AS a WHERE a.wait_event = 'SyncRep'
"""


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose commits wait for a standby that is not there."""
    server = LocalServer(tmp_path_factory.mktemp("primary") / "server")
    status = server.start()
    place = {"host": str(status.socket_directory), "port": status.port, "dbname": "postgres"}
    target = Target(uri({**place, "user": "postgres"}))
    target.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    target.execute("SELECT pg_reload_conf()")
    wait_for("the setting", lambda: target.execute("SHOW synchronous_standby_names") == [("gone",)])
    yield target
    server.stop()


@pytest.fixture
def emptied(primary: Target) -> Target:
    with contextlib.closing(psycopg2.connect(primary.dsn)) as session, session.cursor() as cursor:
        session.autocommit = True
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")
    return primary


def test_a_revision_is_applied_at_once_and_the_wait_can_be_cancelled(
    guvnor: ForkedCommand, emptied: Target
) -> None:
    process = guvnor.start("migrate", "up", database=emptied)
    held: list[str] = []
    while process.poll() is None:
        for pid, relations in emptied.execute(WAITING):
            held += relations
            emptied.execute("SELECT pg_cancel_backend(%s)", [pid])
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert err.count("applied, but not confirmed by the standby") == 2
    assert "none is connected" in out + err  # pre-flight's warning
    assert set(held) <= {"guvnor_migration_history"}
    assert versions(emptied) == AT_HEAD


def test_a_signal_ends_the_wait(guvnor: ForkedCommand, emptied: Target) -> None:
    process = guvnor.start("migrate", "up", database=emptied)
    wait_for("the wait", lambda: emptied.execute(WAITING))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=6)
    assert process.returncode == 143, err
    assert versions(emptied)[0] == ["001"]


def test_the_wait_for_a_standby_ends_by_itself(emptied: Target) -> None:
    with contextlib.closing(connect(emptied.dsn)) as session, session.cursor() as cursor:
        assert confirmation.is_awaited(session)
        assert confirmation.is_missing(session)
        cursor.execute("CREATE TABLE written (i integer)")
        done = confirmation.commit_confirmed(
            session, lambda: cursor.execute("INSERT INTO written VALUES (1)"), limit=0.2
        )
        assert not done
        assert emptied.execute("SELECT i FROM written") == [(1,)]
        cursor.execute("SELECT 1")  # the cancellation has hit nothing else


def test_where_nobody_is_waited_for_a_commit_is_confirmed(server: Target) -> None:
    with contextlib.closing(connect(server.dsn)) as session, session.cursor() as cursor:
        assert not confirmation.is_awaited(session)
        assert confirmation.commit_confirmed(session, lambda: cursor.execute("SELECT 1"))
