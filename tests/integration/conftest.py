"""What the tests of drift share: a session in which the live schema of a file may be changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
import pytest

from guvnor.postgres import Connection
from tests.support.server import Database


@pytest.fixture(scope="module")
def session(live: Database) -> Iterator[Connection]:
    """One session for all tests of a file, so that the server keeps the catalogs in its caches."""
    with contextlib.closing(psycopg2.connect(live.dsn)) as connection:
        yield connection


@pytest.fixture
def changed(session: Connection) -> Iterator[Connection]:
    """A session in which the live schema may be changed: it is rolled back."""
    yield session
    session.rollback()
