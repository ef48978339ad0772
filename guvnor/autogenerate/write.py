"""Writes the operations of a revision: how each kind of object is added, dropped and altered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from guvnor.autogenerate import columns, other_objects, tables, types
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, guarded
from guvnor.autogenerate.probe import Probe
from guvnor.schema import ddl
from guvnor.schema.root_causes import Rename
from guvnor.schema.snapshot import Object

_Write = Callable[[Changes, Probe, Object], Iterator[EmittedOperation]]
_Alter = Callable[[Changes, Probe, Alteration], Iterator[EmittedOperation]]

_ADD: dict[str, _Write] = {"table": tables.add, "column": columns.add}
_DROP: dict[str, _Write] = {"column": columns.drop}
_ALTER: dict[str, _Alter] = {"table": tables.alter, "column": columns.alter, "type": types.alter}


def operations(changes: Changes, probe: Probe) -> list[EmittedOperation]:
    """Return the operations from one schema to another; their phases say in which order they run."""
    found: list[EmittedOperation] = []
    for item in changes.in_order:
        found += _ADD.get(item.kind, other_objects.add)(changes, probe, item)
    for item in reversed(changes.reversed.in_order):
        found += _DROP.get(item.kind, other_objects.drop)(changes, probe, item)
    for alteration in changes.altered:
        found += _ALTER.get(alteration.after.kind, other_objects.alter)(changes, probe, alteration)
    return found + [_renamed(rename, back=changes.back) for rename in changes.renamed]


def _renamed(rename: Rename, *, back: bool) -> EmittedOperation:
    """Give an object another name; before all else on the way back, and after all else otherwise."""
    asked_for = rename.item.kind in ("table", "column", "view", "materialized view")
    breaks = (
        f"BREAKS the application version that is running: it asks for {rename.before}. Rather add, "
        "backfill, and drop the old one in a later revision."
    )
    phase = Phase.RENAME_BACK if back else Phase.RENAME
    statement = ddl.rename(rename.item, rename.before, rename.after)
    return guarded(phase, statement, *([breaks] if asked_for else []))
