"""Reads the live side of a comparison: its schema, and the revision that it says it is at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg2
from psycopg2 import errorcodes

from guvnor.bookkeeping import state
from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, snapshot
from guvnor.schema import catalog
from guvnor.schema.snapshot import Snapshot

# A read waits only for an ACCESS EXCLUSIVE lock, and only other requests for one wait behind it.
_LOCK_TIMEOUT = "2s"
_TRIES = 3


class LiveSchemaError(GuvnorError):
    """The live schema could not be read."""

    exit_code = ExitCode.PREFLIGHT
    state = "The database is unchanged."
    next_step = "guvnor migrate preflight"


class LiveSchemaBusyError(LiveSchemaError):
    """The live schema could not be read: a statement holds a table under ACCESS EXCLUSIVE."""

    exit_code = ExitCode.LOCKED
    next_step = "guvnor schema check   # again, when it is over"


class MigratedMeanwhileError(LiveSchemaBusyError):
    """The database was migrated while its schema was being read."""


class LiveReader:
    """Reads a live schema in a thread of its own, so that the expected one can be built meanwhile."""

    def __init__(self, database: Database, thread: ThreadPoolExecutor) -> None:
        """Start reading.

        :param database: the live one.
        :param thread: has one worker, so that one thing is done after another.
        """
        self._connection = thread.submit(database.connect, "schema check")
        self._recorded = thread.submit(lambda: _read_recorded(self.connection()))
        self._schema = thread.submit(lambda: read_live_schema(self.connection()))

    def connection(self) -> Connection:
        """Wait for the connection, and return it; the thread goes on using it."""
        return self._connection.result()

    def recorded(self) -> str | None:
        """Wait for the revision that the database says it is at; None when it is at none."""
        return self._recorded.result()

    def schema(self) -> Snapshot:
        """Wait for the schema.

        :raises LiveSchemaError: when it cannot be read.
        :raises MigratedMeanwhileError: when it is no longer at the revision that :meth:`recorded` returned.
        """
        schema, recorded = self._schema.result()
        if recorded != self.recorded():
            raise MigratedMeanwhileError
        return schema

    def end(self) -> None:
        """Cancel what still runs, and close the connection."""
        steps: tuple[Future[Any], ...] = (self._connection, self._recorded, self._schema)
        running = [step for step in steps if not step.cancel() and not step.done()]
        if self._connection.cancelled() or self._connection.exception():
            return
        connection = self.connection()
        with contextlib.suppress(psycopg2.Error):
            if running:
                connection.cancel()
                for step in running:
                    step.exception()
            connection.close()


@contextlib.contextmanager
def live_reader(database: Database) -> Iterator[LiveReader]:
    """Read a live schema in a thread; at the end of the block the reading stops, finished or not."""
    with ThreadPoolExecutor(1) as thread:
        reader = LiveReader(database, thread)
        try:
            yield reader
        finally:
            reader.end()


def read_live_schema(connection: Connection) -> tuple[Snapshot, str | None]:
    """Read the live schema and the revision that it says it is at, in one snapshot.

    :param connection: in autocommit mode.
    :returns: the schema, and the revision as ``alembic_version`` says it, else as ``schema_migrations`` does.
    :raises LiveSchemaError: when the role may not read the version.
    :raises LiveSchemaBusyError: when a table stays locked.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            with _transaction(connection) as cursor:
                recorded = state.recorded_version(cursor)
                return catalog.read(connection), recorded
        except psycopg2.Error as error:
            # Another session has dropped an object while it was being printed: read again.
            if attempt == _TRIES or error.pgcode not in (
                errorcodes.INTERNAL_ERROR,
                errorcodes.UNDEFINED_TABLE,
            ):
                raise
    raise AssertionError("unreachable")


def _read_recorded(connection: Connection) -> str | None:
    with _transaction(connection) as cursor:
        return state.recorded_version(cursor)


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """Read in one snapshot, and explain why a read fails."""
    try:
        with snapshot(connection, _LOCK_TIMEOUT) as cursor:
            yield cursor
    except psycopg2.errors.LockNotAvailable as error:
        raise LiveSchemaBusyError from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise LiveSchemaError(
            f"The live schema could not be read: {error.diag.message_primary}.",
            next_step="GRANT SELECT ON alembic_version, schema_migrations TO ...;",
        ) from error
