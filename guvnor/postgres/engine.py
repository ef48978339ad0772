"""Connections of this project for SQLAlchemy and Alembic, and the driver's errors within theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg2
import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from guvnor.postgres import Connection


@contextlib.contextmanager
def connected(connect: Callable[[], Connection]) -> Iterator[sqlalchemy.Connection]:
    """Open a connection for Alembic, and close it at the end.

    :param connect: opens the driver's connection.
    """

    def create() -> Connection:
        connection = connect()
        connection.autocommit = False
        return connection

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=create, poolclass=NullPool, hide_parameters=True
    )
    try:
        with engine.connect() as connection:
            try:
                yield connection
            finally:
                # The pool would try to roll back on a lost connection, and log how that fails.
                driver = None if connection.invalidated else connection.connection.dbapi_connection
                if driver is not None and driver.closed:
                    connection.invalidate()
    finally:
        engine.dispose()


def driver_error(error: BaseException) -> psycopg2.Error | None:
    """Return the driver's error in an error of SQLAlchemy or of the driver; None for others."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg2.Error):
        return error.orig
    return error if isinstance(error, psycopg2.Error) else None
