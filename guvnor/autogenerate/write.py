"""Writes the steps of a revision: how each kind of object is added, dropped and altered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from guvnor.autogenerate import columns, constraints, others, tables, types
from guvnor.autogenerate.changes import Alteration, Changes, Rename, unquoted
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, guarded
from guvnor.postgres.quoting import constant
from guvnor.schema import reconcile
from guvnor.schema.snapshot import Object

_Write = Callable[[Changes, Probe, Object], Iterator[Step]]
_Alter = Callable[[Changes, Probe, Alteration], Iterator[Step]]

_ADD: dict[str, _Write] = {
    "table": tables.add,
    "column": columns.add,
    "constraint": constraints.add,
    "index": constraints.add_index,
    "type": types.add,
}
_DROP: dict[str, _Write] = {
    "table": tables.drop,
    "column": columns.drop,
    "constraint": constraints.drop,
    "index": constraints.drop_index,
    "type": types.drop,
}
_ALTER: dict[str, _Alter] = {
    "table": tables.alter,
    "column": columns.alter,
    "constraint": constraints.alter,
    "index": constraints.alter_index,
    "type": types.alter,
}


def steps(changes: Changes, probe: Probe) -> list[Step]:
    """Return the steps from one schema to another; their phases say in which order they run."""
    found: list[Step] = []
    for item in changes.in_order:
        found += _ADD.get(item.kind, others.add)(changes, probe, item)
    for item in reversed(changes.reversed.in_order):
        found += _DROP.get(item.kind, others.drop)(changes, probe, item)
    for alteration in changes.altered:
        found += _ALTER.get(alteration.after.kind, others.alter)(changes, probe, alteration)
    found += [_renamed(rename, back=changes.back) for rename in changes.renamed]
    return sorted(found, key=lambda step: step.phase)


def _renamed(rename: Rename, *, back: bool) -> Step:
    """Give an object another name; before all else on the way back, and after all else otherwise."""
    item = rename.item
    own = reconcile.own_name(item)
    prefix = item.identity.removesuffix(own)
    there = item if not back else _called(item, prefix + own.replace(own.partition("(")[0], rename.before, 1))
    remarks = []
    if item.kind in ("table", "column", "view", "materialized view"):
        remarks.append(
            f"BREAKS the application version that is running: it asks for {rename.before}. Rather add, "
            "backfill, and drop the old one in a later revision."
        )
    return guarded(
        Phase.RENAME_BACK if back else Phase.RENAME,
        f"EXISTS {_catalog(item, rename.before)}",
        [reconcile.rename(there, rename.after)],
        *remarks,
    )


def _called(item: Object, identity: str) -> Object:
    return Object(item.kind, identity, item.attributes, item.parents, item.sql)


def _catalog(item: Object, name: str) -> str:
    """Return the query that finds an object of a kind by its name."""
    named = constant(unquoted(name))
    table = f"{constant(reconcile.table_of(item))}::regclass"
    here = "current_schema()::regnamespace"
    return {
        "column": f"FROM pg_attribute\nWHERE attrelid = {table} AND attname = {named} AND NOT attisdropped",
        "constraint": f"FROM pg_constraint\nWHERE conrelid = {table} AND conname = {named}",
        "trigger": f"FROM pg_trigger\nWHERE tgrelid = {table} AND tgname = {named}",
        "policy": f"FROM pg_policy\nWHERE polrelid = {table} AND polname = {named}",
        "rule": f"FROM pg_rewrite\nWHERE ev_class = {table} AND rulename = {named}",
        "type": f"FROM pg_type\nWHERE typname = {named} AND typnamespace = {here}",
        "function": f"FROM pg_proc\nWHERE proname = {named} AND pronamespace = {here}",
        "procedure": f"FROM pg_proc\nWHERE proname = {named} AND pronamespace = {here}",
        "statistics": f"FROM pg_statistic_ext\nWHERE stxname = {named} AND stxnamespace = {here}",
    }.get(item.kind, f"FROM pg_class\nWHERE relname = {named} AND relnamespace = {here}")
