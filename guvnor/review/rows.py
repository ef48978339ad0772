"""Fills the tables of any schema with a few rows, and reads rows back to be compared.

No value is known to fit beforehand: values are tried under a savepoint, and the server's error names the
constraint, and so the columns, whose values are to be tried next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg2

from guvnor.postgres import Connection, closing, connect
from guvnor.review import candidates, tables
from guvnor.review.tables import Table

ROWS = 3
_TRIES = 300  # for one row
_REFERRED = 20  # rows of another table that are tried
_DEFAULT = object()  # leaves a column to the server

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Filled:
    """What a fill has done.

    :ivar rows: how many rows each table got.
    :ivar empty: why a table got none.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    empty: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slot:
    """Columns that get their values together, and the values to try: all that a foreign key has, or one."""

    columns: tuple[int, ...]
    choices: tuple[tuple[object, ...], ...]


def fill(dsn: str, *, first: int = 1) -> Filled:
    """Insert a few rows into every table; the last row of each has NULL wherever it is allowed.

    :param first: the number of the first row, from which its values are made: another one at a second fill.
    """
    done: dict[str, int] = {}
    empty: dict[str, str] = {}
    with closing(connect(dsn, purpose="review")) as connection:
        connection.autocommit = False
        waiting = list(tables.read(connection))
        while waiting:
            # What others refer to comes first; where tables refer to each other, one has to begin.
            unfilled = {table.name for table in waiting}
            table = min(waiting, key=lambda t: len({r.table for r in t.references} & unfilled - {t.name}))
            waiting.remove(table)
            count, reason = 0, ""
            for number in range(first, first + ROWS):
                problem = _insert(connection, table, number, sparse=number == first + ROWS - 1)
                count, reason = (count, problem) if problem else (count + 1, reason)
            connection.commit()
            if count:
                done[table.name] = count
            else:
                empty[table.name] = reason
    return Filled(done, empty)


def read(connection: Connection, table: str, columns: Sequence[str]) -> list[Row]:
    """Return all rows of a table as text, in any order."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'{column}::text' for column in columns)} FROM {table}")
        return cursor.fetchall()


def kept_by_triggers(connection: Connection, table: Table) -> set[str]:
    """Return the columns that an UPDATE changes although it sets nothing anew, such as ``updated_at``.

    :param connection: in autocommit mode.
    """
    columns = [column.name for column in table.columns if not column.always_identity]
    if not columns:
        return set()
    before = read(connection, table.name, columns)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"UPDATE {table.name} SET {columns[0]} = {columns[0]}")
            return set(changed_columns(before, read(connection, table.name, columns), columns))
        except psycopg2.Error:
            return set()  # a table that refuses updates keeps nothing up to date
        finally:
            cursor.execute("ROLLBACK")


def changed_columns(before: Sequence[Row], after: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return the columns in which values of before are missing afterwards."""
    return [
        column
        for place, column in enumerate(columns)
        if Counter(row[place] for row in before) - Counter(row[place] for row in after)
    ]


def _insert(connection: Connection, table: Table, number: int, *, sparse: bool) -> str | None:
    """Insert one row.

    :param sparse: prefer NULL.
    :returns: why it could not be done; None when it was.
    """
    slots = _slots(connection, table, number, sparse=sparse)
    turn = [0] * len(slots)
    turned: Counter[tuple[int, ...]] = Counter()
    reason = ""
    for _ in range(_TRIES):
        chosen = {
            column: value
            for slot, at in zip(slots, turn, strict=True)
            for column, value in zip(slot.columns, slot.choices[at] if slot.choices else (), strict=False)
        }
        try:
            _try(connection, table, chosen)
        except psycopg2.Error as error:
            reason = error.diag.message_primary or str(error).strip()
            blamed = _blamed(table, error)
            involved = tuple(
                place
                for place, slot in enumerate(slots)
                if len(slot.choices) > 1 and (not blamed or blamed & set(slot.columns))
            )
            turned[involved] += 1
            if turned[involved] >= math.prod(len(slots[place].choices) for place in involved):
                return reason
            count = turned[involved]
            for place in involved:  # the next combination of their values
                count, turn[place] = divmod(count, len(slots[place].choices))
        else:
            return None
    return reason


def _try(connection: Connection, table: Table, chosen: Mapping[int, object]) -> None:
    named = [column for column in table.columns if chosen.get(column.number, _DEFAULT) is not _DEFAULT]
    names = ", ".join(column.name for column in named)
    casts = ", ".join(f"CAST(%s AS {column.type.sql})" for column in named)
    values = f"({names}) VALUES ({casts})" if named else "DEFAULT VALUES"
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT one_row")
        try:
            cursor.execute(f"INSERT INTO {table.name} {values}", [chosen[column.number] for column in named])
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg2.Error:
            cursor.execute("ROLLBACK TO SAVEPOINT one_row")
            raise
        cursor.execute("RELEASE SAVEPOINT one_row")


def _blamed(table: Table, error: psycopg2.Error) -> set[int]:
    """Return the numbers of the columns that an error is about; none when it does not say."""
    if (columns := table.blamed.get(error.diag.constraint_name or "")) is not None:
        return set(columns) - {0}  # an expression: any column may be in it
    return {column.number for column in table.columns if column.plain == error.diag.column_name}


def _slots(connection: Connection, table: Table, number: int, *, sparse: bool) -> list[_Slot]:
    columns = {column.number: column for column in table.columns}
    slots: list[_Slot] = []
    taken: set[int] = set()
    choices: list[tuple[object, ...]]
    for reference in table.references:
        # A column of two foreign keys follows the first; whether the second agrees, the server says.
        if taken & set(reference.columns) or not columns.keys() >= set(reference.columns):
            continue
        there = read(connection, reference.table, reference.their_columns)[:_REFERRED]
        start = number % len(there) if there else 0
        choices = [*there[start:], *there[:start]]
        if all(columns[place].nullable for place in reference.columns):
            choices.insert(0 if sparse else len(choices), (None,) * len(reference.columns))
        slots.append(_Slot(reference.columns, tuple(choices)))
        taken |= set(reference.columns)
    for column in table.columns:
        if column.number in taken or column.always_identity:
            continue
        hints = [text for key, text in table.checks if column.number in key]
        singles: list[object] = list(candidates.values(column.type, column.plain, number, hints))
        if column.has_default:
            singles.insert(0 if column.in_key else len(singles), _DEFAULT)
        if column.nullable:
            singles.insert(0 if sparse else len(singles), None)
        slots.append(_Slot((column.number,), tuple((single,) for single in singles)))
    return slots
