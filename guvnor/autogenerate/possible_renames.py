"""Columns and tables that are perhaps renamed and changed at once: one is dropped, and one is added.

Only a person can say whether they are the same. The backfill that keeps a column's values is written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from guvnor.autogenerate.changes import Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, as_todo, todo
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import unquoted
from guvnor.schema import column_ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import table_of

_ALIKE = 0.5  # the share of a table's columns that another one must have, too


def of_tables(changes: Changes) -> Iterator[EmittedOperation]:
    """Yield a TODO for each table that is dropped while one with most of its columns is added."""
    gone, new = (
        [item for item in side.values() if item.kind == "table"] for side in (changes.dropped, changes.added)
    )
    for old in gone:
        columns = set(old.attributes["column order"] or [])
        shared = {item.identity: len(columns & set(item.attributes["column order"] or [])) for item in new}
        alike = [name for name, number in shared.items() if number > _ALIKE * len(columns)]
        if alike:
            best = max(alike, key=lambda name: shared[name])
            yield todo(Phase.LEAVE, Todo.POSSIBLE_RENAME_OF_TABLE, old=old.identity, new=best)


def find(changes: Changes, shadow: Shadow) -> dict[str, EmittedOperation]:
    """Return the backfill of each added column that may be a dropped one, by the column's handle."""
    found = {}
    for old, new, value in _pairs(changes, shadow):
        kind = Todo.POSSIBLE_RENAME_BACK if changes.back else Todo.POSSIBLE_RENAME
        empty = f"{new.name} IS NULL"
        if new.attributes["default"] is not None:  # existing rows have it; some types cannot be compared
            empty = f"{new.name}::text IS DISTINCT FROM CAST({value} AS {new.attributes['type']})::text"
        arguments = (unquoted(table_of(new)), f"{new.name} = {value}", f"{empty} AND {old.name} IS NOT NULL")
        backfill = EmittedOperation(Phase.BACKFILL, "backfill", arguments)
        found[new.handle] = as_todo(backfill, kind, old=old.identity, new=new.identity)
    return found


def _pairs(changes: Changes, shadow: Shadow) -> Iterator[tuple[Object, Object, str]]:
    """Pair the columns of each table, the most similar ones first, with the expression that converts one."""
    candidates = []
    for new in changes.added.values():
        for old in changes.dropped.values():
            if _holds_data(new) and _holds_data(old) and new.parents[0] == old.parents[0] in changes.tables:
                effort, value = _conversion(shadow, old, new)
                likeness = SequenceMatcher(None, old.name, new.name).ratio()
                candidates.append((effort, -likeness, old.identity, new.identity, old, new, value))
    used: set[str] = set()
    for *_, old, new, value in sorted(candidates, key=lambda c: c[:4]):
        if used.isdisjoint({old.handle, new.handle}):
            used |= {old.handle, new.handle}
            yield old, new, value


def _holds_data(item: Object) -> bool:
    values = item.attributes
    if item.kind != "column" or item.inherited_from:
        return False
    return not values["generated"] and not values["identity generation"]


def _conversion(shadow: Shadow, old: Object, new: Object) -> tuple[int, str]:
    """Return the expression that makes a new value from an old one, and how much effort that takes.

    An assignment comes first: where a value does not fit, it fails, and a cast would cut it.
    """
    table, wanted = table_of(new), new.attributes["type"]
    if old.attributes["type"] == wanted:
        return 0, old.name
    columns = (
        ("guvnor_old", column_ddl.type_of(old.attributes)),
        ("guvnor_new", column_ddl.type_of(new.attributes)),
    )
    adds = ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in columns)
    casts = ("", f"::{wanted}", f"::text::{wanted}")
    for effort, cast in enumerate(casts, 1):
        with shadow.undone():
            if shadow.attempt(
                f"ALTER TABLE {table} {adds}; UPDATE {table} SET guvnor_new = guvnor_old{cast}"
            ):
                return effort, f"{old.name}{cast}"
    return len(casts) + 1, f"{old.name}{casts[-1]}"
