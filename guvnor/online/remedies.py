"""What a person needs when an online step fails for a reason that stays: the rows in the way, or another way.

It travels as notes on the server's error (PEP 678), since what it is read from, such as a half-built index,
is dropped before the error is reported.
"""

from __future__ import annotations

import contextlib

import psycopg2

from guvnor.postgres import Connection, row, violations

_QUERY = "SELECT query FROM"
_NAMED = "WHERE conrelid = to_regclass(%s) AND conname = %s"


def notes(error: BaseException) -> tuple[str, ...]:
    """Return what an online step has noted on its error, a line each."""
    return tuple(getattr(error, "__notes__", ()))


def note_index(connection: Connection, name: str, error: psycopg2.Error) -> None:
    """Note on the error of an index build which rows are in the way, or how the index can be built instead.

    :param connection: in autocommit mode.
    :param name: of the index, quoted; what the build left of it is still there.
    """
    if isinstance(error, psycopg2.errors.UniqueViolation):
        _note_rows(
            error,
            connection,
            f"{_QUERY} ({violations.UNIQUE_INDEXES}) AS p WHERE oid = to_regclass(%s)",
            name,
        )


def note_constraint(connection: Connection, table: str, name: str, error: psycopg2.Error) -> None:
    """Note on the error of a validation which rows violate the constraint.

    :param connection: in autocommit mode.
    :param table: quoted.
    :param name: of the constraint.
    """
    if isinstance(error, psycopg2.errors.CheckViolation):
        _note_rows(error, connection, f"{_QUERY} ({violations.CHECKS}) AS p {_NAMED}", table, name)
    elif isinstance(error, psycopg2.errors.ForeignKeyViolation):
        _note_rows(error, connection, f"{_QUERY} ({violations.FOREIGN_KEYS}) AS p {_NAMED}", table, name)


def _note_rows(error: psycopg2.Error, connection: Connection, sql: str, *names: str) -> None:
    with contextlib.suppress(psycopg2.Error):  # the error itself is what has to be told
        if found := row(connection, sql, names):
            error.add_note(violations.shown(found[0]))
