"""What neither the models nor the revisions know, such as a stray table.

It may be anybody's, such as another tool's. So a revision never drops it, and it is left out. A partition is
the business of its table instead: see :mod:`guvnor.schema.partitions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from guvnor.autogenerate.changes import Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, todo
from guvnor.autogenerate.todos import Todo
from guvnor.schema.compare import outermost
from guvnor.schema.snapshot import Object, Snapshot

# What the server does not drop together with what it depends on.
_PREVENTS = ("view", "materialized view", "rule", "function", "procedure", "policy", "trigger")


def find(actual: Snapshot, models: Snapshot, revisions: Callable[[], Snapshot]) -> dict[str, Object]:
    """Return the objects of the live database that neither the models nor the revisions know.

    :param revisions: builds the schema of the live database's revision; called only when it is needed.
    """
    unexpected = {
        key: item
        for key, item in actual.objects.items()
        if key not in models.objects and item.kind != "default privileges"  # they come from no revision
    }
    if not unexpected:
        return {}
    known = revisions().objects
    unknown = {key: item for key, item in unexpected.items() if key not in known}
    # What a known object uses is not anybody's, such as a function in the place of an extension's.
    used = {p for key, item in actual.objects.items() if key not in unknown for p in item.parents}
    return {key: item for key, item in unknown.items() if outermost(key, unknown) not in used}


def without(actual: Snapshot, unknown: Mapping[str, Object]) -> Snapshot:
    """Return the live schema without what is unknown."""
    return replace(actual, objects={key: i for key, i in actual.objects.items() if key not in unknown})


def names(unknown: Mapping[str, Object]) -> list[str]:
    """Name what is unknown, without what belongs to it."""
    return sorted(str(item) for key, item in unknown.items() if outermost(key, unknown) == key)


def in_the_way(
    changes: Changes, unknown: Mapping[str, Object], actual: Snapshot
) -> Iterator[EmittedOperation]:
    """Yield a TODO for each unknown object that depends on what is dropped or gets another type.

    :param actual: the live schema with all that is unknown, and with each partition.
    """
    retyped = {a.after.handle: a.after for a in changes.altered if {"type", "collation"} & set(a.names)}
    gone = {**changes.dropped, **{a.after.handle: a.after for a in changes.altered if "view" in a.after.kind}}
    for found in (retyped, gone):
        _add_inherited(found, actual)
    for item in unknown.values():
        prevents = item.kind in _PREVENTS
        key = item.attributes.get("type") == "foreign key"
        own = item.parents[:1] if item.kind in ("rule", "trigger", "policy") else ()
        hit = [p for p in item.parents if p in gone and p not in own and (prevents or key)]
        hit += [p for p in item.parents if p in retyped and prevents]
        if hit and not (key and item.parents[0] in gone):
            needed = gone.get(hit[-1]) or retyped[hit[-1]]
            yield todo(Phase.LEAVE, Todo.USED_BY_UNKNOWN, unknown=f"the {item}", item=f"the {needed}")


def _add_inherited(found: dict[str, Object], actual: Snapshot) -> None:
    """Add what is inherited from objects, each with the one that it comes from."""
    size = -1
    while size != len(found):
        size = len(found)
        for item in actual if found else ():
            if root := next((found[above] for above in item.inherited_from if above in found), None):
                found.setdefault(item.handle, root)
