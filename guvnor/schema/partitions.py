"""Partitions that the expected schema does not know, such as those that a job makes: the parent's business.

They are no difference. But each must have what the table has that it is a partition of: the indexes (see
:mod:`guvnor.schema.partitioned_indexes`), triggers and foreign keys that work, the owner, row security, and
the privileges. The server itself sees to columns and constraints. Whatever else it has is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from guvnor.schema import privileges
from guvnor.schema.compare import Finding, different, differing, differing_privileges
from guvnor.schema.inheritance import aligned
from guvnor.schema.snapshot import OF_TABLES, Object, Snapshot, handle

_MUST = ("state", "enforcement")  # of a trigger, and of a foreign key

_MEANING = {
    "privilege": "Statements of these roles that name the partition fail with 'permission denied'.",
    "row security": "Whoever may read the partition itself sees all its rows.",
}


@dataclass(frozen=True)
class Partition:
    """A partition that the expected schema does not know.

    :ivar table: its name, as SQL writes it.
    :ivar of: the table above it that the expected schema knows; there may be others between them.
    """

    table: str
    of: str


@dataclass(frozen=True)
class Sides:
    """What is compared: both schemas, without the partitions that only the actual one has.

    :ivar expected: with the names of the actual schema for what is inherited.
    :ivar actual: without those partitions.
    :ivar whole: the actual schema with them.
    """

    expected: Snapshot
    actual: Snapshot
    whole: Snapshot
    partitions: tuple[Partition, ...]


def apart(expected: Snapshot, actual: Snapshot) -> Sides:
    """Take the partitions that only the actual schema has out of it."""
    known = {key: above for key in actual.objects if (above := _known_above(key, expected, actual))}
    partitions = tuple(sorted((Partition(*map(_name, pair)) for pair in known.items()), key=str))
    rest = actual
    if known:
        objects = {key: item for key, item in actual.objects.items() if _table(item) not in known}
        rest = replace(actual, objects=objects)
    return Sides(aligned(expected, rest), rest, actual, partitions)


def _known_above(key: str, expected: Snapshot, actual: Snapshot) -> str | None:
    """Return the table that is expected and above an unexpected partition; None for anything else.

    One that is being detached is no partition: the name of its parent says so.
    """
    above = key
    while above not in expected.objects:
        item = actual.objects.get(above)
        if item is None or item.attributes.get("partition bound") is None:
            return None
        above = handle("table", item.attributes["inherits from"][0])
    is_partitioned = expected.objects[above].attributes.get("partition key") is not None
    return above if above != key and above in actual.objects and is_partitioned else None


def _name(key: str) -> str:
    return key.partition(":")[2]


def _table(item: Object) -> str:
    """Return the handle of the table that an object is, or is dropped with."""
    return item.parents[0] if item.kind in OF_TABLES and item.parents else item.handle


def lacking(sides: Sides, grantees: Sequence[str]) -> Iterator[Finding]:
    """Find what the partitions lack that only the actual schema has.

    :param grantees: see :func:`guvnor.schema.compare.compare`.
    """
    if not sides.partitions:
        return
    known = {handle("table", each.table): handle("table", each.of) for each in sides.partitions}
    allowed = privileges.Allowed(sides.whole, grantees)
    used = {_table(item) for item in sides.whole if _others(item.granted)}
    for item in sides.whole:
        table = _table(item)
        if table not in known or (top := _top(item, known, sides)) is None:
            continue
        wanted = sides.expected.objects[top]
        if item.handle == table:
            shared = _others(wanted.granted) or table in used
            expected = _whole_table(item, wanted, shared=shared)
            owner = sides.whole.owner or sides.actual.objects[top].attributes["owner"]
        else:
            source = sides.whole.objects[item.inherited_from[0]].attributes
            must = {name: source[name] for name in _MUST if name in source}
            expected, owner = replace(item, attributes={**item.attributes, **must}), None
        plain = replace(item, inherited=frozenset())
        if names := differing(expected, plain, owner):
            finding = different(expected, item, names, owner)
            yield replace(finding, meaning=_MEANING.get(names[0], finding.meaning))
        expected = replace(item, granted=item.granted | wanted.granted)
        if privilege := differing_privileges(expected, item, allowed, sides.whole.roles):
            yield replace(privilege, meaning=_MEANING["privilege"])


def _top(item: Object, known: Mapping[str, str], sides: Sides) -> str | None:
    """Return what an object of a partition comes from in both schemas; None for what is its own."""
    if item.handle in known:
        return known[item.handle]
    while item.inherited_from:
        above = item.inherited_from[0]
        if above in sides.actual.objects:
            return above if above in sides.expected.objects else None
        item = sides.whole.objects[above]
    return None


def _whole_table(item: Object, above: Object, *, shared: bool) -> Object:
    """Return a partition as it must be.

    Queries that name the table above need nothing of the partition but its rows, and see what the policies
    there let them see. Row security of the partition is for those that name it.

    :param above: the table above it, as it is expected.
    :param shared: whether others than the owner may use one of the two.
    """
    if not shared or not above.attributes.get("row security") or item.kind != "table":
        return item
    return replace(item, attributes={**item.attributes, "row security": True})


def _others(granted: frozenset[str]) -> bool:
    return any(not entry.startswith("<owner>=") for entry in granted)
