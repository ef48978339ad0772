"""Fills the tables of any schema with a few rows, and reads rows back to compare them.

It is not known in advance which values a table accepts. So values are tried under a savepoint; the server's
error names the constraint, and thereby the columns for which other values are tried next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg2
from psycopg2 import extensions

from guvnor.postgres import Connection, closing, connect, primary_message
from guvnor.review import candidates, tables
from guvnor.review.tables import Table
from guvnor.schema.constraints import RowConstraint

ROWS = 3
_TRIES = 300  # for one row
_REFERRED = 20  # rows of a referenced table that are tried
_DEFAULT = object()  # the server's default is used

Row = dict[str, str | None]
"""The values of a row as text, by column."""


@dataclass(frozen=True)
class Filled:
    """The result of a fill.

    :ivar rows: how many rows each table got.
    :ivar empty: for each table without rows, why it got none.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    empty: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slot:
    """The columns of a foreign key, or one other column, and the values to try in them."""

    columns: tuple[int, ...]
    choices: tuple[tuple[object, ...], ...]


def fill(dsn: str, *, first: int = 1, satisfying: Iterable[RowConstraint] = ()) -> Filled:
    """Insert a few rows into every table of ``public``; see :func:`fill_schema`."""
    with closing(connect(dsn, purpose="review")) as connection:
        connection.autocommit = False
        filled = fill_schema(connection, "public", first=first, satisfying=satisfying)
        connection.commit()
    return filled


def fill_schema(
    connection: Connection, schema: str, *, first: int = 1, satisfying: Iterable[RowConstraint] = ()
) -> Filled:
    """Insert a few rows into every table; the last row of each table has NULL wherever it is allowed.

    :param connection: in a transaction.
    :param schema: the first one in the search path.
    :param first: the number of the first row, from which values are made; a second fill needs another number.
    :param satisfying: constraints that the rows satisfy, too, as far as the schema has what they are about.
    """
    done: dict[str, int] = {}
    empty: dict[str, str] = {}
    with connection.cursor() as cursor:
        added = _add(cursor, satisfying)
        waiting = list(tables.read(connection, schema))
        while waiting:
            # Tables that others refer to come first; tables that refer to each other, in any order.
            unfilled = {table.name for table in waiting}
            table = min(waiting, key=lambda t: len({c.table for c in t.constraints} & unfilled - {t.name}))
            waiting.remove(table)
            numbers = range(first, first + ROWS)
            problems = [_insert(connection, table, n, sparse=n == numbers[-1]) for n in numbers]
            if count := problems.count(None):
                done[table.name] = count
            else:
                empty[table.name] = problems[-1] or ""
        for statement in reversed(added):
            cursor.execute(statement)
    return Filled(done, empty)


def _add(cursor: extensions.cursor, constraints: Iterable[RowConstraint]) -> list[str]:
    """Add constraints for as long as rows are made, and return the statements that drop them again."""
    added: list[str] = []
    for number, item in enumerate(constraints, 1):
        name = f"guvnor_review_{number}"
        cursor.execute("SAVEPOINT one_constraint")
        try:
            cursor.execute(item.add(name))
            added.append(item.drop(name))
        except psycopg2.Error:  # it is about what only the revision makes
            cursor.execute("ROLLBACK TO SAVEPOINT one_constraint")
        cursor.execute("RELEASE SAVEPOINT one_constraint")
    return added


def read(connection: Connection, table: str, columns: Sequence[str]) -> list[Row]:
    """Return all rows of a table, in any order; none for a table without columns."""
    if not columns:
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'{column}::text' for column in columns)} FROM {table}")
        return [dict(zip(columns, row, strict=True)) for row in cursor]


def kept_by_triggers(connection: Connection, table: Table) -> set[str]:
    """Return the columns that an UPDATE changes although it sets no new value, such as ``updated_at``.

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
            return set()  # no trigger changes a table that refuses updates
        finally:
            cursor.execute("ROLLBACK")


def missing_rows(before: Sequence[Row], after: Sequence[Row], columns: Sequence[str]) -> int:
    """Return how many rows are missing afterwards, compared by some columns."""
    old, new = (Counter(tuple(row[name] for name in columns) for row in rows) for rows in (before, after))
    return (old - new).total()


def without(all_rows: Sequence[Row], some: Sequence[Row]) -> list[Row]:
    """Return the rows that remain when some of them are taken away."""
    taken = Counter(tuple(row.items()) for row in some)
    kept = []
    for row in all_rows:
        content = tuple(row.items())
        if taken[content] > 0:
            taken[content] -= 1
        else:
            kept.append(row)
    return kept


def inserts(found: Mapping[str, Sequence[Row]], filled: Filled) -> tuple[str, ...]:
    """Return a statement for each table that inserts its rows, as PostgreSQL reads them back from text.

    :param filled: the fill that made the rows; tables that others refer to come first in it.
    """
    statements = []
    for table in filled.rows:
        if not (every := found.get(table)):
            continue
        values = ", ".join(f"({', '.join(map(_literal, row.values()))})" for row in every)
        columns = ", ".join(every[0])
        statements.append(f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE VALUES {values};")
    return tuple(statements)


def _literal(value: str | None) -> str:
    """Return a text as SQL writes it, on one line."""
    if value is None:
        return "NULL"
    if value.isprintable() and "\\" not in value:
        return "'" + value.replace("'", "''") + "'"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return "E'" + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + "'"


def changed_columns(before: Sequence[Row], after: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return the columns in which values are missing afterwards."""
    return [column for column in columns if missing_rows(before, after, [column])]


def _insert(connection: Connection, table: Table, number: int, *, sparse: bool) -> str | None:
    """Insert one row.

    :param sparse: whether to prefer NULL.
    :returns: why the row was refused; None when it was inserted.
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
            reason = primary_message(error)
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
            for place in involved:  # choose the next combination of their values
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
    """Return the numbers of the columns that an error is about; none when the error names none."""
    keys = [item.columns for item in table.constraints if item.name == error.diag.constraint_name]
    if keys:
        return {number for key in keys for number in key} - {0}  # an expression: any column may be in it
    return {column.number for column in table.columns if column.plain == error.diag.column_name}


def _slots(connection: Connection, table: Table, number: int, *, sparse: bool) -> list[_Slot]:
    columns = {column.number: column for column in table.columns}
    slots: list[_Slot] = []
    taken: set[int] = set()
    choices: list[tuple[object, ...]]
    for key in table.constraints:
        # A column of two foreign keys follows the first one; the server says whether the second one agrees.
        if not key.table or taken & set(key.columns) or not columns.keys() >= set(key.columns):
            continue
        referred = read(connection, key.table, key.their_columns)[:_REFERRED]
        start = number % len(referred) if referred else 0
        choices = [tuple(row.values()) for row in (*referred[start:], *referred[:start])]
        if all(columns[place].nullable for place in key.columns):
            choices.insert(0 if sparse else len(choices), (None,) * len(key.columns))
        slots.append(_Slot(key.columns, tuple(choices)))
        taken |= set(key.columns)
    for column in table.columns:
        if column.number in taken or column.always_identity:
            continue
        hints = [key.check for key in table.constraints if key.check and column.number in key.columns]
        singles: list[object] = list(candidates.values(column.type, column.plain, number, hints))
        if column.has_default:
            singles.insert(0 if column.in_key else len(singles), _DEFAULT)
        if column.nullable:
            singles.insert(0 if sparse else len(singles), None)
        slots.append(_Slot((column.number,), tuple((single,) for single in singles)))
    return slots
