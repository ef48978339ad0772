"""What differs between two states of an object, attribute by attribute, and what a change of it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from guvnor.schema import compare, consequences
from guvnor.schema.rehearsal import Effect
from guvnor.schema.snapshot import Object, Snapshot

_STORED = ("table", "materialized view", "column")


@dataclass(frozen=True)
class Change:
    """One object that a step makes, changes or drops.

    :ivar sign: ``+``, ``~`` or ``-``.
    :ivar attributes: of a changed one: name, value before, value after.
    :ivar meaning: what it means for the application that is running meanwhile; empty where there is nothing
        to be said.
    :ivar parts: how many objects come or go with it, by kind.
    """

    sign: str
    object: Object
    attributes: tuple[tuple[str, Any, Any], ...] = ()
    meaning: str = ""
    parts: tuple[tuple[str, int], ...] = ()


def of_effect(effect: Effect) -> tuple[Change, ...]:
    """List what a step does; what only comes or goes with another object is counted there."""
    found = [Change("+", item, meaning=_added(item), parts=parts) for item, parts in _roots(effect.added)]
    for old, new in zip(effect.was, effect.changed, strict=True):
        names = compare.differing(old, new, None)
        if names:
            values = tuple((name, old.attributes.get(name), new.attributes.get(name)) for name in names)
            found.append(Change("~", new, values, _changed(old, new, names)))
    found += [
        Change("-", item, meaning=consequences.missing(item), parts=parts)
        for item, parts in _roots(effect.dropped)
    ]
    return tuple(found)


def exact(before: Snapshot, after: Snapshot, gone: AbstractSet[str] = frozenset()) -> list[str]:
    """Name whatever differs between two snapshots of one database, to the last attribute.

    An extension may stay: it belongs to the database, and others may use it by then.

    :param gone: handles of what was away in between. A column that comes back is the last one of its table:
        that cannot be helped.
    """
    shuffled = {
        f"relation:{key.partition(':')[2].rpartition('.')[0]}" for key in gone if key.startswith("column:")
    }
    lost = [f"{item} is missing" for key, item in before.objects.items() if key not in after.objects]
    extra = [f"{item} is left over" for item in left_over(before, after) if item.kind != "extension"]
    different = []
    for key, item in before.objects.items():
        now = after.objects.get(key)
        if now is None:
            continue
        names = [name for name, was in item.attributes.items() if now.attributes.get(name) != was]
        different += [
            f"{item}: {name} is {value(now.attributes.get(name))}, was {value(item.attributes[name])}"
            for name in names
            if not (name == "column order" and key in shuffled)
        ]
        if (item.granted, item.revoked) != (now.granted, now.revoked):
            different.append(f"{item}: its privileges differ")
    return [*lost, *extra, *different]


def left_over(before: Snapshot, after: Snapshot) -> list[Object]:
    """Return the objects that have come."""
    return [item for key, item in after.objects.items() if key not in before.objects]


def stored(dropped: Sequence[Object]) -> tuple[Object, ...]:
    """Pick from dropped objects what holds data: tables, and columns of others."""
    gone = {item.handle for item in dropped}
    return tuple(item for item in dropped if item.kind in _STORED and not gone.intersection(item.parents[:1]))


def value(content: Any) -> str:
    """Write a value of an attribute in one line."""
    if content is None:
        return "none"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, list | tuple):
        return ", ".join(map(str, content))
    return " ".join(str(content).split())


def _roots(objects: Sequence[Object]) -> list[tuple[Object, tuple[tuple[str, int], ...]]]:
    """Leave out what comes or goes with a whole table or view of the list, and count it there, by kind."""
    there = {item.handle: item for item in objects}
    counts: dict[str, dict[str, int]] = {item.handle: {} for item in objects}
    for item in objects:
        whole = _whole(item, there)
        if whole is not None:
            kinds = counts[whole.handle]
            kinds[item.kind] = kinds.get(item.kind, 0) + 1
            del counts[item.handle]
    return [(there[key], tuple(kinds.items())) for key, kinds in counts.items()]


def _whole(item: Object, there: Mapping[str, Object]) -> Object | None:
    """Return the table or view among others that an object belongs to."""
    waiting, seen = [item], {item.handle}
    while waiting:
        for parent in waiting.pop().parents:
            if parent in there and parent not in seen:
                if parent.startswith("relation:"):
                    return there[parent]
                seen.add(parent)
                waiting.append(there[parent])
    return None


# A change that is meant is something else than a difference that nobody meant, so the words of
# guvnor.schema.consequences fit only what goes.
_ADDED = {
    "index": "Every write of the table also writes it.",
    "constraint": "From then on, rows that break it are refused.",
    "trigger": "From then on, it runs with the statements of the application.",
    "policy": "With row security on, it decides which rows a role sees and changes.",
    "rule": "It rewrites statements of the application.",
}

_CHANGED = {
    "type": "Values that do not fit the new type are refused; the running application may still write them.",
    "not null": "Where NOT NULL is new, rows of the running application that lack a value are refused.",
    "default": "It holds for new rows only.",
    "labels": "The running application may read values that it does not know.",
    "constraint definition": "Other rows are refused than before.",
    "validated": "It now holds for old rows, too, or no longer does.",
    "index definition": "Queries that relied on it may scan the table.",
    "body": "It does something else from the commit on, for the running application, too.",
    "row security": "From then on, the policies decide which rows a role sees, or no longer do.",
    "collation": "Text sorts and compares differently.",
    "generated": "The server computes the column, or no longer does.",
}  # fmt: skip


def _added(item: Object) -> str:
    needs_value = item.attributes.get("not null") and not any(
        item.attributes.get(name) for name in ("default", "generated", "identity generation")
    )
    if item.kind == "column" and needs_value:
        return "NOT NULL without a default: every INSERT of the running application fails."
    if item.attributes.get("validated") is False:
        return "It is not validated: rows that were there before may break it."
    if item.kind == "index" and item.attributes.get("unique"):
        return "From then on, duplicates are refused."
    return _ADDED.get(item.kind, "")


def _changed(old: Object, new: Object, names: Sequence[str]) -> str:
    said = next((_CHANGED[name] for name in names if name in _CHANGED), "")
    if names == ["comment"]:
        return consequences.different(old, new, names)
    return said
