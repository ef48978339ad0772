"""Alembic's context on a connection of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.pool import NullPool

from guvnor import postgres


@contextlib.contextmanager
def connected(dsn: str, purpose: str) -> Iterator[sqlalchemy.Connection]:
    """Open a connection for Alembic; the connection string goes to libpq as it is."""

    def create() -> postgres.Connection:
        connection = postgres.connect(dsn, purpose=purpose)
        connection.autocommit = False
        return connection

    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=create, poolclass=NullPool)
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


def configure(context: Any, connection: sqlalchemy.Connection, **options: Any) -> None:
    """Configure Alembic's context for a connection; it creates no table by itself.

    :param context: the module ``alembic.context``.
    """
    from guvnor.models import metadata

    context.configure(
        connection=connection,
        target_metadata=metadata,
        dont_mutate=True,
        version_table_schema=postgres.SCHEMA,
        **options,
    )
