"""What a partition or a child table has from its parent: it changes along with the parent."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from guvnor.schema.snapshot import Object, Snapshot

# What ALTER TABLE changes in the children, too (PostgreSQL documentation, ALTER TABLE).
_OF_COLUMNS = frozenset(
    {
        "type", "collation", "not null", "not null constraint", "default", "generated", "identity generation",
        "storage",
    }
)  # fmt: skip
_OWN = frozenset({"comment", "comment on index", "clustered", "options", "tablespace"})  # of an index


def parents(item: Object) -> Iterator[str]:
    """Yield the handles of the columns, constraints or indexes that one is inherited from."""
    if item.kind in ("column", "constraint", "index") and item.attributes.get("type") != "foreign key":
        own_table = f"{item.kind}:{item.parents[0].partition(':')[2]}."
        for parent in item.parents[1:]:
            if parent.startswith(f"{item.kind}:") and not parent.startswith(own_table):
                yield parent


def inherited(
    expected: tuple[Object, Snapshot], actual: tuple[Object, Snapshot], names: Collection[str]
) -> set[str]:
    """Return the differing attributes in which what an object is inherited from differs in the same way.

    :param expected: the object and its schema.
    :param actual: those of the other side.
    :param names: the attributes that differ.
    """
    (wanted, there), schemas = (expected[0], actual[0]), (expected[1], actual[1])
    found: set[str] = set()
    for parent in parents(wanted):
        above = [schema.objects.get(parent) for schema in schemas]
        if above[0] is None or above[1] is None or above[0].kind != above[1].kind:
            continue
        for name in names:
            own = wanted.attributes.get(name), there.attributes.get(name)
            its = above[0].attributes.get(name), above[1].attributes.get(name)
            same = own == its if wanted.kind == "column" else name not in _OWN
            if its[0] != its[1] and same and (wanted.kind != "column" or name in _OF_COLUMNS):
                found.add(name)
    return found
