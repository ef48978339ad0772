"""The statement that stands for each online operation in a transaction that must not commit."""

from __future__ import annotations

import re
from collections.abc import Sequence

from guvnor.online.kept_names import kept_name
from guvnor.postgres.quoting import constant, quoted

_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\s+", re.IGNORECASE)


class Index(str):
    """The statement for an index without CONCURRENTLY.

    :ivar name: of the index, without quotes.
    """

    __slots__ = ("name",)
    name: str


class TableConstraint(str):
    """The statement that adds a key or a foreign key.

    :ivar table: without quotes.
    """

    __slots__ = ("table",)
    table: str


def is_concurrent(sql: str) -> bool:
    """Return whether a statement for an index says CONCURRENTLY."""
    return _CONCURRENTLY.search(sql) is not None


def create_index(name: str, sql: str) -> Index:
    """Return the statement for an index without CONCURRENTLY."""
    statement = Index(_CONCURRENTLY.sub("", sql, count=1))
    statement.name = name
    return statement


def drop_index(name: str, *, concurrently: bool = False) -> str:
    """Return the statement that drops an index, or its online form."""
    return f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}IF EXISTS {quoted(name)}"


def validate_constraint(table: str, name: str) -> str:
    """Return the statement that validates a constraint."""
    return f"ALTER TABLE {quoted(table)} VALIDATE CONSTRAINT {quoted(name)}"


def add_foreign_key(table: str, name: str, definition: str) -> TableConstraint:
    """Return the statement that adds a foreign key."""
    statement = TableConstraint(f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(name)} {definition}")
    statement.table = table
    return statement


def add_key(
    table: str, name: str, kind: str, columns: Sequence[str], *, only: bool = False
) -> TableConstraint:
    """Return the statement that adds a unique constraint or a primary key.

    :param kind: ``UNIQUE`` or ``PRIMARY KEY``.
    :param only: whether to a partitioned table without its partitions.
    """
    definition = f"{kind} ({', '.join(map(quoted, columns))})"
    on = f"{'ONLY ' if only else ''}{quoted(table)}"
    statement = TableConstraint(f"ALTER TABLE {on} ADD CONSTRAINT {quoted(name)} {definition}")
    statement.table = table
    return statement


def add_enum_value(name: str, value: str, before: str | None, after: str | None) -> str:
    """Return the statement that adds a value to an enum.

    :param before: the value that comes after it; None for none.
    :param after: the value that comes before it; without either, it becomes the last one.
    """
    statement = f"ALTER TYPE {quoted(name)} ADD VALUE IF NOT EXISTS {constant(value)}"
    if before is not None:
        return f"{statement} BEFORE {constant(before)}"
    return statement if after is None else f"{statement} AFTER {constant(after)}"


class Backfill(str):
    """The statement that updates all rows of a backfill at once.

    :ivar table: without quotes.
    :ivar where: which rows.
    """

    __slots__ = ("table", "where")
    table: str
    where: str


def backfill(table: str, assignments: str, where: str) -> Backfill:
    """Return the statement that updates all rows at once."""
    statement = Backfill(f"UPDATE {quoted(table)} SET {assignments} WHERE {where}")
    statement.table, statement.where = table, where
    return statement


def next_transaction() -> str:
    """Return the statement that stands for the end of a transaction where it must not end."""
    return "SELECT 1 /* op.next_transaction */"


def forget_kept(table: str, revision: str) -> str:
    """Return the statement that drops what a revision kept of a table."""
    return f"DROP TABLE IF EXISTS {quoted(kept_name(table, revision))}"
