"""Reads the live side of a comparison: its schema, and the revision that it says it is at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes

from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, closing
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


@dataclass(frozen=True)
class LiveReader:
    """A live schema that a thread of its own reads, so that the expected one can be built meanwhile.

    :ivar connection: that the thread reads on; only its facts may be asked for.
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
            recorded = _recorded(cursor)
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
                recorded = _recorded(cursor)
                return catalog.read(connection), recorded
        except psycopg2.Error as error:
            # Another session has dropped an object while it was being printed: read again.
            vanished = (errorcodes.INTERNAL_ERROR, errorcodes.UNDEFINED_TABLE)
            if attempt == _TRIES or error.pgcode not in vanished:
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """Hold one snapshot, and roll back at the end."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"
            )
            yield cursor
    except psycopg2.errors.LockNotAvailable as error:
        raise LiveSchemaBusyError from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise LiveSchemaError(
            f"The live schema could not be read: {error.diag.message_primary}.",
            next_step="GRANT SELECT ON alembic_version, schema_migrations TO ...;",
        ) from error
    finally:
        if not connection.closed:
            with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
                cursor.execute("ROLLBACK")


def _recorded(cursor: psycopg2.extensions.cursor) -> str | None:
    """Read the revision that the database says it is at."""
    cursor.execute(
        """
        SELECT to_regclass('public.alembic_version') IS NOT NULL,
               -- other tools have a table of this name, too, with a version that is a text
               EXISTS (SELECT FROM pg_catalog.pg_attribute
                       WHERE attrelid = to_regclass('public.schema_migrations') AND attname = 'version'
                         AND atttypid = 'bigint'::regtype)
        """
    )
    has_alembic, has_golang = cursor.fetchone() or (False, False)
    if has_alembic:
        cursor.execute("SELECT version_num FROM public.alembic_version")
        if row := cursor.fetchone():
            return str(row[0])
    if has_golang:
        cursor.execute("SELECT version FROM public.schema_migrations WHERE version > 0")
        if row := cursor.fetchone():
            return f"{row[0]:03d}"
    return None
