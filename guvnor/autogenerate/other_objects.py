"""Objects for which ``guvnor.schema.ddl`` has the statements: when they run, and what a person has to do."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, todo
from guvnor.schema import ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import table_of

# Objects that name columns or functions: they are created after those are changed, and dropped before.
_ATTACHED = ("trigger", "policy", "rule", "view", "materialized view", "statistics")
_OF_TABLES = ("table", "column", "constraint", "index", "type")

# Attributes with long values, which the statement shows anyway.
_LONG = ("definition", "body", "sql body")


def add(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Create an object; on a table in use, what takes long is done while the application keeps running."""
    own = changes.comes_with_table(item)
    if own and item.kind == "constraint":
        return  # CREATE TABLE creates it
    statements = ddl.create(item, in_use=not own)
    phase = Phase.ATTACH if item.kind in _ATTACHED and not own else Phase.CREATE
    if item.kind == "constraint":
        # A foreign key may refer to a unique constraint or index that exists only at the end.
        key = item.attributes["type"] == "foreign key"
        unique = (p for p in item.parents if p.startswith(("constraint:", "index:")))
        phase = Phase.FINISH if key and any(p in changes.added for p in unique) else Phase.CHANGE
    elif item.kind == "index" and own and changes.added[item.parents[0]].kind == "materialized view":
        phase = Phase.ATTACH
    if statements is None and item.kind == "index":
        yield _partitioned(item, [_with_partitions(item)])
    elif statements is None:
        yield todo(Phase.CREATE, f"write the {item} by hand.")
    elif item.kind == "constraint" and ddl.locks_writers(item):
        why = f"{item} cannot be added to {table_of(item)} without blocking writers."
        yield todo(phase, f"{why} If the table is small, use this:", [str(item.sql)])
    elif item.kind == "sequence":  # the column that owns it comes after it
        yield from emitted(phase, statements[:1])
        yield from emitted(Phase.ATTACH, statements[1:])
    else:
        yield from emitted(phase, statements, back=changes.back)


def drop(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Drop an object, unless it goes along with another one."""
    goes_along = changes.goes_along(item)
    if item.kind == "constraint" and item.attributes["type"] == "foreign key":
        # It prevents dropping the object that it refers to, even where its own column is dropped, too.
        goes_along = item.parents[0] in changes.dropped and not changes.reversed.refers_to_later(item)
    if goes_along:
        return
    statements = ddl.drop(item)
    phase = Phase.DETACH if item.kind in (*_ATTACHED, "constraint") else Phase.DROP
    if any(
        index.kind == "index" and item.handle in index.parents and not changes.goes_along(index)
        for index in changes.dropped.values()
    ):
        phase = Phase.FINISH  # after the index has been dropped online
    if item.kind == "extension":
        yield todo(
            phase, f"the extension {item.identity} is not dropped: others in this database may use it."
        )
    elif statements is None:
        yield _partitioned(item, [f"DROP INDEX {item.name}"])
    else:
        yield from emitted(phase, statements)


def alter(
    changes: Changes, _shadow: Shadow, alteration: Alteration, *remarks: str
) -> Iterator[EmittedOperation]:
    """Alter an object, or replace it."""
    before, after = alteration.before, alteration.after
    phase = Phase.ATTACH if after.kind in _ATTACHED else Phase.CREATE
    phase = Phase.CHANGE if after.kind in _OF_TABLES else phase
    if after.kind == "view" and "definition" in alteration.names and not _fits(changes, after):
        yield from emitted(Phase.DETACH, ddl.drop(after) or [])
        yield from emitted(phase, ddl.create(after) or [])
        return
    statements, left = ddl.alter(after, before, alteration.names)
    yield from emitted(phase, statements, *remarks, back=changes.back)
    if after.kind == "index" and "definition" in left and ddl.is_partitioned(str(after.sql), after):
        yield _partitioned(after, [f"DROP INDEX {after.name}", _with_partitions(after)])
    elif left:
        yield todo(phase, "; ".join(_changed(alteration, name) for name in left) + ".", [after.sql or ""])


def _changed(alteration: Alteration, name: str) -> str:
    sides = alteration.before, alteration.after
    before, after = (side.kind if name == "kind" else side.attributes.get(name) for side in sides)
    values = "" if name in _LONG else f": {before} becomes {after}"
    return f"{name} of the {alteration.after}{values}"


def _partitioned(item: Object, statements: list[str]) -> EmittedOperation:
    return todo(
        Phase.BUILD,
        f"the {item} is on a partitioned table: the server neither builds nor drops it concurrently. "
        "Build it on each partition and attach it. If the table is small, use this:",
        statements,
    )


def _with_partitions(item: Object) -> str:
    """Return the statement that creates an index on a partitioned table and on all its partitions."""
    return str(item.sql).replace(" ON ONLY ", " ON ", 1)


def _fits(changes: Changes, view: Object) -> bool:
    """Tell whether CREATE OR REPLACE VIEW is possible: it can add columns to a view, but not change them."""
    there, wanted = (
        {c.identity: c.attributes["type"] for c in side.of_kind("column") if table_of(c) == view.identity}
        for side in (changes.before, changes.after)
    )
    return there.items() <= wanted.items()
