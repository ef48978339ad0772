"""The tables that a table consists of: its partitions at any depth, and those that inherit from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from guvnor.online.execute import OnlineStepError
from guvnor.postgres import Connection, rows
from guvnor.postgres.quoting import quoted

_NO_TABLES = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}


@dataclass(frozen=True)
class Member:
    """A table of a tree.

    :ivar name: as SQL writes it.
    :ivar kind: ``pg_class.relkind``.
    :ivar is_temporary: whether only a session has it.
    :ivar is_partition: whether it is a partition of the table above; it inherits from it otherwise.
    """

    oid: int
    name: str
    kind: str
    is_temporary: bool
    is_partition: bool

    @property
    def holds_rows(self) -> bool:
        """Whether the rows are its own: a partitioned table has none."""
        return self.kind == "r"


# The temporary child of another session cannot be read, so a statement over the parent leaves it out, too.
_TREE = """
    WITH RECURSIVE tree AS (
        SELECT c.oid, 0 AS level, c.relispartition AS is_partition
        FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass(%s)
        UNION
        SELECT c.oid, tree.level + 1, c.relispartition
        FROM tree
        JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid AND NOT h.inhdetachpending
        JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND NOT pg_is_other_temp_schema(c.relnamespace)
    )
    SELECT c.oid::bigint, c.oid::regclass::text, c.relkind::text, c.relpersistence = 't', tree.is_partition
    FROM (SELECT oid, min(level) AS level, bool_or(is_partition) AS is_partition
          FROM tree GROUP BY oid) AS tree
    JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
    ORDER BY tree.level, c.relname, c.oid
"""


def members(connection: Connection, table: str) -> list[Member]:
    """Return a table, and all those below it, level by level; nothing where there is no such table.

    :param table: without quotes.
    """
    return [Member(*found) for found in rows(connection, _TREE, (quoted(table),))]


def with_rows(connection: Connection, table: str) -> list[Member]:
    """Return the tables that hold the rows: the table itself, its leaves, and tables that inherit from it.

    :raises OnlineStepError: when rows are where they cannot be changed range by range.
    """
    found = members(connection, table)
    check(found, table, "Its rows cannot be changed range by range.")
    return [member for member in found if member.holds_rows]


def one_by_one(connection: Connection, table: str) -> Iterator[Member]:
    """Yield what :func:`with_rows` returns, and read it again before each: one may have come or gone."""
    seen = set[int]()
    while (left := [member for member in with_rows(connection, table) if member.oid not in seen]) != []:
        seen.add(left[0].oid)
        yield left[0]


def with_partitions(connection: Connection, table: str, why: str) -> list[Member]:
    """Return a table and its partitions, without the tables that inherit from it.

    :param why: what cannot be done on one that is no table, in a sentence.
    :raises OnlineStepError: that names a table on which it cannot.
    """
    found = members(connection, table)
    parts = [*found[:1], *(member for member in found[1:] if member.is_partition)]
    check(parts, table, why)
    return parts


def check(found: list[Member], table: str, why: str) -> None:
    """Check that a step can work on a table and on all below it.

    :param found: what :func:`members` has returned.
    :param why: what cannot be done, in a sentence.
    :raises OnlineStepError: that names the table on which it cannot, and says what to do.
    """
    if not found:
        raise OnlineStepError(f"There is no table {table}.")
    root, *others = found
    if root.kind not in ("r", "p"):
        raise refusal(f"{root.name} is {_NO_TABLES.get(root.kind, 'no table')}. {why}", _OF_ITS_OWN)
    if root.is_temporary:
        raise refusal(f"{root.name} is a temporary table, which is gone after a failure. {why}", _OF_ITS_OWN)
    for member in others:
        if member.kind == "f":
            what = "partition" if member.is_partition else "child"
            raise refusal(
                f"{what.capitalize()} {member.name} of table {table} is a foreign table. {why}",
                f"Detach {member.name} first, or name the other {what}s one by one, or write the plain "
                "statement with op.execute.",
            )


_OF_ITS_OWN = "Name a table, or write the plain statement with op.execute."


def refusal(message: str, instead: str) -> OnlineStepError:
    """Return the error of a step that cannot be done.

    :param instead: what to do instead, in a line.
    """
    error = OnlineStepError(message)
    error.add_note(instead)
    return error
