"""How the version is written: to both version tables at once, with its event in the history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from guvnor.bookkeeping import history, tables
from guvnor.bookkeeping.state import NO_VERSION, State
from guvnor.postgres import Connection, transaction
from guvnor.revisions.identifiers import number


def write_golang(cursor: Any, version: int | None, *, dirty: bool) -> None:
    """Write golang-migrate's row in the current transaction.

    golang-migrate itself uses TRUNCATE, which locks out readers; a DELETE has the same result.

    :param version: the number of the revision; None for no row at all.
    """
    cursor.execute("DELETE FROM public.schema_migrations")
    if version is not None:
        cursor.execute(
            "INSERT INTO public.schema_migrations (version, dirty) VALUES (%s, %s)", (version, dirty)
        )


def set_version(
    connection: Connection, current: State, version: str | None, direction: str, *, note: str | None = None
) -> None:
    """Set the version in both version tables and clear the dirty flag, in one transaction with its history.

    :param connection: in autocommit mode, holding the run lock and golang-migrate's.
    :param version: the identifier of the revision; None for no version.
    :param direction: the history's word for it: ``force``, ``adopt``.
    :param note: the reason, for the history.
    """
    attempt = history.Attempt(direction, version, current.version, version, note=note)
    with _transaction(connection) as cursor:
        history.record(cursor, attempt, "started")
        _write_alembic(cursor, version)
        write_golang(cursor, number(version) or None, dirty=False)
        history.record(cursor, attempt, "succeeded")


def prepare_repair(connection: Connection, attempt: history.Attempt) -> None:
    """Make both version tables say that a revision is half done, so that it can be run.

    A run that dies after this leaves a dirty state again, which can be repaired again.

    :param connection: in autocommit mode, holding the run lock and golang-migrate's.
    """
    with _transaction(connection) as cursor:
        _write_alembic(cursor, attempt.from_version)
        write_golang(cursor, number(attempt.to_version) or NO_VERSION, dirty=True)
        history.record(cursor, attempt, "repair", step="the repair, before anything was committed")


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[Any]:
    """Run the body in one transaction on a connection in autocommit mode; the tables exist in it."""
    tables.create_missing(connection)
    with transaction(connection) as cursor:
        yield cursor


def _write_alembic(cursor: Any, version: str | None) -> None:
    cursor.execute("DELETE FROM public.alembic_version")
    if version is not None:
        cursor.execute("INSERT INTO public.alembic_version (version_num) VALUES (%s)", (version,))
