"""Tables: made as a whole, and altered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from guvnor.autogenerate import other_objects
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, execute, todo
from guvnor.schema import column_ddl, ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object

_CONSTRAINTS = ("primary key", "foreign key", "unique", "check", "exclusion")  # in this order
_BEYOND = ("partition bound", "inherits from", "of type", "foreign server", "tablespace")


def add(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Make a table with its columns and constraints; nobody uses it yet."""
    name, values = item.identity, item.attributes
    if any(values[attribute] for attribute in _BEYOND):
        why = f"the table {name}: partitions, inheritance and the like are written by hand."
        yield todo(Phase.CREATE, why)
        return
    columns = [changes.added[f"column:{name}.{column}"] for column in values["column order"] or []]
    constraints = sorted(
        (c for c in changes.added.values() if c.kind == "constraint" and c.parents[0] == item.handle),
        key=lambda c: (_CONSTRAINTS.index(c.attributes["type"]), c.identity),
    )
    inside = [constraint for constraint in constraints if not changes.refers_to_later(constraint)]
    width = max((len(column.name) for column in columns), default=0)
    lines = [f"{column.name:<{width}}  {column_ddl.definition(column)}" for column in columns]
    lines += map(_constraint, inside)
    persistence = "UNLOGGED " if values["persistence"] == "UNLOGGED" else ""
    partitioned = f" PARTITION BY {values['partition key']}" if values["partition key"] else ""
    body = ",\n".join(f"    {line}" for line in lines)
    yield execute(Phase.CREATE, f"CREATE {persistence}TABLE IF NOT EXISTS {name} (\n{body}\n){partitioned}")
    for part in (*columns, *inside):
        yield from emitted(Phase.CREATE, ddl.further(part))
    yield from emitted(Phase.ATTACH, ddl.further(item))  # its replica identity may be an index
    for constraint in constraints:
        if constraint not in inside:
            plain = replace(constraint, attributes={**constraint.attributes, "validated": False})
            yield from emitted(Phase.CHANGE, ddl.create(plain) or [])


def alter(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Alter what belongs to a table as a whole."""
    names = tuple(name for name in alteration.names if name != "column order")
    if "column order" in alteration.names and not changes.back:
        yield reordered(alteration.after.identity, alteration.before.attributes["column order"])
    yield from other_objects.alter(changes, shadow, replace(alteration, names=names))


def reordered(table: str, order: list[str]) -> EmittedOperation:
    """Say that no statement moves a column.

    :param order: in which the columns will be.
    """
    return todo(
        Phase.FINISH,
        f"the models name the columns of {table} in another order. PostgreSQL adds columns at the end: "
        f"move them in the models to where they are, {', '.join(order)}; then take this out.",
    )


def _constraint(item: Object) -> str:
    line = f"CONSTRAINT {item.name} {item.attributes['definition']}"
    return line if len(line) <= 90 else f"CONSTRAINT {item.name}\n        {item.attributes['definition']}"
