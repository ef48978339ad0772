"""Reads the live side of a comparison: its schema, and the revision that it says it is at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes

from guvnor.bookkeeping import state
from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, closing, snapshot
from guvnor.postgres.membership import instead_of_a_grant
from guvnor.schema import catalog
from guvnor.schema.snapshot import Snapshot

# A read waits only for an ACCESS EXCLUSIVE lock, and only other requests for one wait behind it.
LOCK_TIMEOUT = "2s"
_TRIES = 3


class LiveSchemaError(GuvnorError):
    """The live schema could not be read."""

    exit_code = ExitCode.PREFLIGHT
    state = "The database is unchanged."
    next_step = "guvnor migrate preflight"


class LiveSchemaBusyError(LiveSchemaError):
    """The live schema could not be read: a statement holds a table under ACCESS EXCLUSIVE."""

    exit_code = ExitCode.LOCKED
    repeat_when = "when that statement is done"


class MigratedMeanwhileError(LiveSchemaBusyError):
    """The database was migrated while its schema was being read."""


@dataclass(frozen=True)
class LiveReader:
    """A live schema that a thread of its own reads, so that the expected one can be built meanwhile.

    :ivar connection: the connection that the thread reads on; only its attributes may be read meanwhile.
    :ivar recorded: the revision that the database says it is at; None when it is at none.
    :ivar reading: the schema and the revision, once they are read.
    """

    connection: Connection
    recorded: str | None
    reading: Future[tuple[Snapshot, str | None]]

    def schema(self) -> Snapshot:
        """Wait for the schema.

        :raises LiveSchemaError: when it cannot be read.
        :raises MigratedMeanwhileError: when the database is no longer at the recorded revision.
        """
        schema, recorded = self.reading.result()
        if recorded != self.recorded:
            raise MigratedMeanwhileError
        return schema


@contextlib.contextmanager
def live_reader(database: Database) -> Iterator[LiveReader]:
    """Read a live schema in a thread; at the end of the block the reading stops, finished or not."""
    with closing(database.connect("schema check")) as connection, ThreadPoolExecutor(1) as thread:
        with _transaction(connection) as cursor:
            recorded = state.recorded_version(cursor)
        reading = thread.submit(read_live_schema, connection)
        try:
            yield LiveReader(connection, recorded, reading)
        finally:
            if not reading.cancel() and not reading.done():
                with contextlib.suppress(psycopg2.Error):
                    connection.cancel()


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
            vanished = (errorcodes.INTERNAL_ERROR, errorcodes.UNDEFINED_TABLE)
            if attempt == _TRIES or error.pgcode not in vanished:
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """Read in one snapshot, and explain why a read fails."""
    try:
        with snapshot(connection, LOCK_TIMEOUT) as cursor:
            yield cursor
    except psycopg2.errors.LockNotAvailable as error:
        raise LiveSchemaBusyError from error
    except psycopg2.errors.InsufficientPrivilege as error:
        grant = "GRANT SELECT ON alembic_version, schema_migrations TO ...;"
        raise LiveSchemaError(
            f"The live schema could not be read: {error.diag.message_primary}.",
            next_step=instead_of_a_grant(connection) or grant,
        ) from error
