"""Generated columns that are dropped and added again: their values are computed anew, so nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable

from guvnor.schema import column_ddl, ddl
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import table_of

_ALONG = (
    "constraint-missing-not-valid", "disallowed-unique-constraint", "adding-serial-primary-key-field",
    "require-concurrent-index-creation",
)  # fmt: skip

REASONS = {
    "ban-drop-column": "the same statement adds it again, and computes it.",
    "adding-field-with-default": "every row has to be computed anew.",
    "adding-not-nullable-field": "the same statement adds the column again, and reads all rows anyway.",
    **dict.fromkeys(_ALONG, "it goes with the column that is added again."),
}
"""Why the statements break rules of lint on purpose, by rule."""


def along_with(snapshot: Snapshot, other: Snapshot, column: Object) -> list[Object]:
    """Return the constraints, indexes and statistics that the server drops together with a column.

    :param other: only what is in this snapshot, too, is returned.
    """
    return [
        item
        for item in snapshot.of_kind("constraint", "index", "statistics")
        if column.handle in item.parents
        and table_of(item) == table_of(column)
        and item.handle in other.objects
    ]


def dropped(column: Object) -> str:
    """Return the statement that drops a column that is added again."""
    return f"ALTER TABLE {table_of(column)} DROP COLUMN {column.name}"


def added(column: Object, along: Iterable[Object]) -> list[str]:
    """Return the statements that add a column again, with all that was dropped along with it."""
    further = [made.sql for made in ddl.further(column)]
    return [column_ddl.add(column, column_ddl.definition(column)), *further, *again(along)]


def again(along: Iterable[Object]) -> list[str]:
    """Return the statements that create again what was dropped along with a column."""
    items = list(along)
    return [*(str(item.sql) for item in items), *(made.sql for item in items for made in ddl.further(item))]
