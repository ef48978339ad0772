"""Tables: made as a whole, altered and dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from guvnor.autogenerate import columns
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, execute, guarded, todo
from guvnor.postgres.quoting import constant
from guvnor.schema import reconcile
from guvnor.schema.reconcile import extras, own_name
from guvnor.schema.snapshot import Object

_CONSTRAINTS = ("primary key", "foreign key", "unique", "check", "exclusion")  # in this order
_BEYOND = ("partition bound", "inherits from", "of type", "foreign server", "tablespace")

# What CREATE TABLE does not say here, with what a new table has.
_AFTERWARDS = {
    "options": None,
    "toast options": None,
    "row security": False,
    "row security forced": False,
    "comment": None,
}


def add(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Make a table with its columns and constraints; nobody uses it yet."""
    name, values = item.identity, item.attributes
    if any(values[attribute] for attribute in _BEYOND):
        yield todo(
            Phase.CREATE, f"the table {name}: partitions, inheritance and the like are written by hand."
        )
        return
    later = [constraint for constraint in _constraints(changes, item) if changes.refers_to_later(constraint)]
    inside = [constraint for constraint in _constraints(changes, item) if constraint not in later]
    lines = [*_columns(changes, item), *map(_constraint, inside)]
    persistence = "UNLOGGED " if values["persistence"] == "UNLOGGED" else ""
    partitioned = f" PARTITION BY {values['partition key']}" if values["partition key"] else ""
    body = ",\n".join(f"    {line}" for line in lines)
    yield execute(Phase.CREATE, f"CREATE {persistence}TABLE IF NOT EXISTS {name} (\n{body}\n){partitioned}")
    plain = replace(item, attributes={**values, **_AFTERWARDS})
    names = [attribute for attribute, usual in _AFTERWARDS.items() if values[attribute] != usual]
    further = reconcile.alterations(item, plain, names) or []
    for column in _columns_of(changes, item):
        further += columns.further(column)
    further += [statement for constraint in inside for statement in extras(constraint)]
    yield from (execute(Phase.CREATE, statement) for statement in further)
    for constraint in later:
        condition = (
            f"FROM pg_constraint\nWHERE conrelid = {constant(name)}::regclass AND conname = "
            f"{constant(own_name(constraint))}"
        )
        yield guarded(Phase.CHANGE, condition, [str(constraint.sql), *extras(constraint)])
    identity = str(values["replica identity"])
    if identity != "default":
        yield from (
            execute(Phase.ATTACH, s) for s in reconcile.alterations(item, plain, ["replica identity"]) or []
        )


def drop(_changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop a table."""
    yield execute(
        Phase.DROP,
        f"DROP TABLE IF EXISTS {item.identity}",
        f"DATA LOSS: the table {item.identity} and all its rows.",
    )


def alter(changes: Changes, _probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Alter what belongs to a table as a whole."""
    before, after = alteration.before, alteration.after
    for attribute in alteration.names:
        if attribute == "column order":
            if not changes.back:
                yield reordered(after.identity, before.attributes["column order"])
            continue
        statements = reconcile.alterations(after, before, [attribute])
        if statements is None:
            yield todo(
                Phase.CHANGE,
                f"{attribute} of {after}: {before.attributes.get(attribute, before.kind)} becomes "
                f"{after.attributes.get(attribute, after.kind)}.",
            )
        else:
            yield from (execute(Phase.CHANGE, statement) for statement in statements)


def reordered(table: str, order: list[str]) -> Step:
    """Say that no statement moves a column.

    :param order: in which the columns will be.
    """
    return todo(
        Phase.FINISH,
        f"the models name the columns of {table} in another order. PostgreSQL adds columns at the end: "
        f"move them in guvnor/models.py to where they are, {', '.join(order)}; then take this out.",
    )


def _columns_of(changes: Changes, table: Object) -> list[Object]:
    order = [f"column:{table.identity}.{name}" for name in table.attributes["column order"] or []]
    return [changes.added[key] for key in order]


def _columns(changes: Changes, table: Object) -> list[str]:
    """Return the columns of a new table, names and definitions below one another."""
    found = _columns_of(changes, table)
    width = max((len(own_name(column)) for column in found), default=0)
    return [f"{own_name(column):<{width}}  {columns.definition(column)}" for column in found]


def _constraints(changes: Changes, table: Object) -> list[Object]:
    found = [
        item
        for item in changes.added.values()
        if item.kind == "constraint" and item.parents[0] == table.handle
    ]
    return sorted(found, key=lambda item: (_CONSTRAINTS.index(item.attributes["type"]), item.identity))


def _constraint(item: Object) -> str:
    line = f"CONSTRAINT {own_name(item)} {item.attributes['definition']}"
    if len(line) <= 90:
        return line
    return f"CONSTRAINT {own_name(item)}\n        {item.attributes['definition']}"
