"""What prevents another type of a column in the shadow: dropped before it, and made again after it."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

from guvnor.schema import column_ddl, ddl
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import table_of, terminated

_VIEWS = ("view", "materialized view")
_PREVENTS = (*_VIEWS, "rule", "trigger", "policy")
_PARTS = ("index", "trigger", "rule")  # of a view


def retyped(expected: Snapshot, column: Object, values: Mapping[str, Any]) -> str:
    """Return the statements that give a column of the shadow the type and collation among some attributes.

    The server changes no column that a view, a rule, a policy or a trigger uses (SQLSTATE 0A000). What it
    forgets by the change is set again.
    """
    action = column_ddl.retype(column, values, cast=not column.attributes["generated"])
    dependents = _dependents(expected, column)
    views = {item.handle for item in dependents if item.kind in _VIEWS}
    drops = [
        made.sql
        for item in reversed(dependents)
        if not views & set(item.parents[:1]) or item.kind in _VIEWS
        for made in ddl.drop(item, online=False) or []
    ]
    creates = []
    for item in dependents:
        statements = ddl.further(item) if item.kind == "column" else ddl.create(item, in_use=False)
        creates += [made.sql for made in statements or []]
    again = [made.sql for made in ddl.lost_with_type(expected, column)]
    return terminated([*drops, f"ALTER TABLE {table_of(column)} {action}", *again, *creates])


def _dependents(expected: Snapshot, column: Object) -> list[Object]:
    """Return what prevents the change, each after what it needs."""
    found: dict[str, Object] = {}
    reached = {column.handle}
    size = -1
    while size != len(reached):
        size = len(reached)
        for item in expected:
            if item.handle in reached or reached.isdisjoint(item.parents):
                continue
            of_view = bool(item.parents) and item.parents[0] in found
            if item.kind in _PREVENTS or (of_view and item.kind in (*_PARTS, "column")):
                found[item.handle] = item
                reached.add(item.handle)
    needs = {key: {parent for parent in item.parents if parent in found} for key, item in found.items()}
    return [found[key] for key in TopologicalSorter(needs).static_order()]
