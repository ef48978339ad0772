"""Does a scratch database go at the end, whoever is in it, and does its end decide nothing?"""

from __future__ import annotations

import logging

import psycopg2
import pytest
from psycopg2 import extensions

from guvnor.review import scratch
from tests.support.autovacuum import eager, parameters, worker
from tests.support.server import Database, Server

THERE = "SELECT datname FROM pg_database WHERE starts_with(datname, 'guvnor_review_')"


@pytest.fixture
def dsn(server: Server, database: Database) -> str:
    """A connection string with a role that may create databases, and no more."""
    role = server.create_role("CREATEDB")
    return database.dsn_with(role)


def _inside(server: Server, dsn: str) -> Database:
    """The scratch database, with the rights of the server's owner."""
    name = extensions.parse_dsn(dsn)["dbname"]
    return Database(extensions.make_dsn(server.dsn, dbname=name), name)


def test_autovacuum_is_at_work_in_it(server: Server, dsn: str) -> None:
    """A role may not end an autovacuum worker, which makes DROP DATABASE ... WITH (FORCE) fail."""
    with eager(server), scratch.database(dsn) as place:
        inside = _inside(server, place)
        inside.execute(f"CREATE TABLE busy (n integer) WITH ({parameters()})")
        inside.execute("INSERT INTO busy SELECT generate_series(1, 100000)")
        worker(inside, "busy")
        inside.close()
    assert server.execute(THERE) == []


def test_somebody_of_the_same_role_stays_in_it(server: Server, dsn: str) -> None:
    with scratch.database(dsn) as place:
        left = psycopg2.connect(place)
    assert server.execute(THERE) == []
    left.close()


def test_what_cannot_be_dropped_is_a_warning(
    server: Server, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), scratch.database(dsn) as place:
        stranger = _inside(server, place).connect()  # a superuser, whose session the role may not end
    assert "was not dropped; the next review tries again. database" in caplog.text
    assert len(server.execute(THERE)) == 1
    with scratch.database(dsn):  # nor does it end the next one
        stranger.close()
    with scratch.database(dsn):
        assert len(server.execute(THERE)) == 1
    assert server.execute(THERE) == []
