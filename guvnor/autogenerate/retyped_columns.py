"""What fits only one of the two types of a column: it goes before the type changes, or comes after it.

The server parses a check again for the new type, and refuses the change where there is no such operator; it
builds each index again; and it changes no column that a generated one is computed from.
"""

from __future__ import annotations

from guvnor.autogenerate.changes import Changes
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object

_CHANGES = frozenset({"type", "collation", "generated"})
_MADE_AGAIN = ("constraint", "index", "statistics")  # by the server

GOES_FIRST = {
    "require-concurrent-index-deletion": "the new type of its column may not fit it.",
    "ban-drop-constraint": "the models no longer have it, and the new type of its column may not fit it.",
}
"""Why a drop that comes before the change of a type breaks rules of lint, by rule."""


def changed(changes: Changes) -> frozenset[str]:
    """Return the handles of the columns that get another type or another way to be computed."""
    return frozenset(
        found.after.handle
        for found in changes.altered
        if found.after.kind == "column" and _CHANGES & set(found.names)
    )


def comes_later(changes: Changes, item: Object) -> bool:
    """Tell whether something new needs a column as it is after the change, also by way of a new column."""
    columns = changed(changes)
    above = [p for p in item.parents if p.startswith("column:") and p != item.handle]
    if any(parent in columns for parent in above):
        return True
    added = (changes.added.get(parent) for parent in above)
    return any(column is not None and comes_later(changes, column) for column in added)


def goes_first(changes: Changes, shadow: Shadow, item: Object) -> bool:
    """Tell whether something is dropped before the change, since it may not fit a column after it."""
    if item.kind not in _MADE_AGAIN or changed(changes).isdisjoint(item.parents):
        return False
    if changes.back:  # the shadow has the types of the models
        return True
    with shadow.undone():
        return not shadow.attempt(str(item.sql))
