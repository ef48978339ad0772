"""What a partition or a child table has from the table above it: no thing of its own.

The catalogs say what is inherited, when a schema is read (PostgreSQL documentation: pg_attribute,
pg_constraint, pg_inherits, pg_trigger). Of such an object, only those attributes are compared that can
be set for it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from guvnor.schema.column_ddl import remarks
from guvnor.schema.snapshot import Object, Snapshot

# What ALTER TABLE changes in the tables below, too (PostgreSQL documentation, ALTER TABLE), unless one of
# them has been given something else.
_OF_COLUMNS = (
    "type", "collation", "not null", "default", "generated", "identity generation", "storage",
)  # fmt: skip

# What belongs to the index, constraint or trigger of one table. Whether an index is valid is not among these:
# that of the table above is valid when all of them are.
_OWN = frozenset({"comment", "comment on index", "clustered", "options", "tablespace", "statistics targets"})
_OWN_UNLESS_ALIKE = frozenset({"state", "enforcement"})

_NAMED_BY_SERVER = ("index", "constraint", "trigger")


def follow(objects: dict[str, Object]) -> None:
    """Note of each inherited object in which attributes it follows what is above it."""
    for key, item in objects.items():
        if item.inherited_from:
            above = [objects[p] for p in item.inherited_from if p in objects]
            names = {name for source in above for name in _following(item, source)}
            objects[key] = replace(item, inherited=frozenset(names))
        for parent in item.attributes.get("inherits from") or ():
            source = objects.get(f"relation:{parent}")
            order = item.attributes["column order"]
            if source is not None and source.attributes.get("column order") == order:
                objects[key] = replace(item, inherited=frozenset({"column order"}))


def _following(item: Object, source: Object) -> Iterable[str]:
    own, theirs = item.attributes, source.attributes
    if item.kind != source.kind:
        return
    if item.kind == "column":
        yield from (name for name in _OF_COLUMNS if own[name] == theirs[name])
        named = [str(side["not null constraint"]) for side in (own, theirs)]
        if own["not null"] == theirs["not null"] and remarks(named[0]) == remarks(named[1]):
            yield "not null constraint"
        return
    for name in own:
        if name not in _OWN and (name not in _OWN_UNLESS_ALIKE or own[name] == theirs[name]):
            yield name


def aligned(expected: Snapshot, actual: Snapshot) -> Snapshot:
    """Give what is inherited the names that it has on the other side.

    The server makes up the names of the indexes and constraints of partitions, and whoever builds an index of
    a partition first gives it another one.
    """
    there = {
        (item.parents[0], source): item
        for item in actual
        if item.kind in _NAMED_BY_SERVER
        for source in item.inherited_from
    }
    names: dict[str, Object] = {}

    def counterpart(key: str) -> str:
        """Return the handle on the other side of an object of this one."""
        item = expected.objects.get(key)
        if item is None or item.kind not in _NAMED_BY_SERVER or not item.inherited_from:
            return key
        found = there.get((item.parents[0], counterpart(item.inherited_from[0])))
        if found is None or found.kind != item.kind or found.handle in expected.objects:
            return key
        names[key] = found
        return found.handle

    for key in expected.objects if there else ():
        counterpart(key)
    if not names:
        return expected
    objects = {}
    for key, item in expected.objects.items():
        other = names.get(key, item)
        changed = replace(
            item,
            identity=other.identity,
            parents=tuple(names[p].handle if p in names else p for p in item.parents),
            inherited_from=tuple(names[p].handle if p in names else p for p in item.inherited_from),
        )
        objects[changed.handle] = changed
    return replace(expected, objects=objects)


def own_objects(objects: Iterable[Object]) -> list[Object]:
    """Leave out what is inherited."""
    return [item for item in objects if not item.inherited_from]
