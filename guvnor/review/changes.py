"""The changes of a step to the schema, attribute by attribute, and what they mean in production."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from guvnor.backup import losses
from guvnor.schema import compare, consequences
from guvnor.schema.data_changes import DataChange
from guvnor.schema.inheritance import aligned
from guvnor.schema.rehearsal import Effect
from guvnor.schema.snapshot import Object, Snapshot

_STORED = ("table", "materialized view", "column")


@dataclass(frozen=True)
class Change:
    """One object that a step creates, changes or drops.

    :ivar sign: ``+``, ``~`` or ``-``.
    :ivar attributes: name, value before and value after of each attribute that changes.
    :ivar meaning: what the change means for the running application; empty where there is nothing to say.
    :ivar parts: how many objects of each kind are created or dropped together with the object.
    """

    sign: str
    object: Object
    attributes: tuple[tuple[str, Any, Any], ...] = ()
    meaning: str = ""
    parts: tuple[tuple[str, int], ...] = ()


def of_effect(effect: Effect) -> tuple[Change, ...]:
    """List what a step does; the parts of a table or view that it creates or drops are only counted."""
    found = [Change("+", item, (), _added(item), parts) for item, parts in _wholes(effect.added)]
    for old, new in zip(effect.was, effect.changed, strict=True):
        if names := compare.differing(old, new, None):
            values = tuple((name, old.attributes.get(name), new.attributes.get(name)) for name in names)
            found.append(Change("~", new, values, _changed(old, new, names)))
    for item, parts in _wholes(effect.dropped):
        found.append(Change("-", item, (), consequences.missing(item), parts))
    return tuple(found)


def exact(before: Snapshot, after: Snapshot, gone: AbstractSet[str] = frozenset()) -> list[str]:
    """Describe every difference between two snapshots of one database.

    An extension may stay: it belongs to the database, and others may use it by then.

    :param gone: handles of objects that did not exist in between. A column that was dropped and created again
        is the last one of its table, so the order of that table's columns is not compared.
    """
    before = aligned(before, after)
    found = [f"{item} is missing" for item in left_over(after, before)]
    found += [f"{item} is left over" for item in left_over(before, after) if item.kind != "extension"]
    columns = [key.removeprefix("column:") for key in gone if key.startswith("column:")]
    reordered = {f"relation:{column.rpartition('.')[0]}" for column in columns}
    for key, old in before.objects.items():
        if (new := after.objects.get(key)) is None:
            continue
        for name, was in old.attributes.items():
            if name in old.inherited & new.inherited:
                continue
            now = new.attributes.get(name)
            if now != was and not (name == "column order" and key in reordered):
                found.append(f"{old}: {name} is {value(now)}, was {value(was)}")
        if (old.granted, old.revoked) != (new.granted, new.revoked):
            found.append(f"{old}: its privileges differ")
    return found


def left_over(before: Snapshot, after: Snapshot) -> list[Object]:
    """Return the objects that are only in the later snapshot."""
    return [item for key, item in after.objects.items() if key not in before.objects]


def stored(dropped: Sequence[Object]) -> tuple[Object, ...]:
    """Return the dropped objects that hold data: tables, and columns of tables that remain."""
    gone = {item.handle for item in dropped}
    return tuple(item for item in dropped if item.kind in _STORED and not gone.intersection(item.parents[:1]))


def of_data(touched: Iterable[DataChange]) -> dict[str, list[str]]:
    """Say what a direction does to data: what it does, and to which tables and columns."""
    said: dict[str, list[str]] = {}
    for change in touched:
        if change.along:
            continue
        kind = "table" if change.column is None else "column"
        does = _HARMLESS.get(change.how, "") if change.harmless else ""
        names = said.setdefault(f"{does or losses.WORDS[change.how]} {kind}", [])
        if change.name not in names:
            names.append(change.name)
    return said


def value(content: Any) -> str:
    """Write a value of an attribute in one line."""
    if content is None:
        return "none"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, list | tuple):
        return ", ".join(map(str, content))
    return " ".join(str(content).split())


def _wholes(objects: Iterable[Object]) -> list[tuple[Object, tuple[tuple[str, int], ...]]]:
    """Leave out the parts of the tables and views in the list, and count them by kind."""
    absent = {item.handle: item for item in objects}
    counts: dict[str, Counter[str]] = {}
    for key, item in absent.items():
        whole = compare.outermost(key, absent)
        if whole == key or not whole.startswith("relation:"):
            counts.setdefault(key, Counter())
        else:
            counts.setdefault(whole, Counter())[item.kind] += 1
    return [(absent[key], tuple(kinds.items())) for key, kinds in counts.items()]


# The texts of guvnor.schema.consequences describe unintended differences; they also fit objects that are
# dropped on purpose, but no other intended change.
_ADDED = {
    "index": "Every write to the table also maintains it.",
    "constraint": "From then on, rows that violate it are refused.",
    "trigger": "From then on, it also fires for the application's statements.",
    "policy": "With row security on, it decides which rows a role can see and change.",
    "rule": "It rewrites statements of the application.",
}

_CHANGED = {
    "type": "Values that do not fit the new type are refused; the running application may still write them.",
    "not null": "Where NOT NULL is new, rows of the running application that lack a value are refused.",
    "default": "It holds for new rows only.",
    "labels": "The running application may read values that it does not know.",
    "constraint definition": "It refuses other rows than before.",
    "validated": "It now holds for existing rows, too, or no longer does.",
    "index definition": "Queries that relied on it may scan the table.",
    "body": "From the commit on, it behaves differently for the running application, too.",
    "row security": "From then on, the policies decide which rows a role can see, or no longer do.",
    "collation": "Text sorts and compares differently.",
    "generated": "The server computes the column, or no longer does.",
}  # fmt: skip


# Where a change of data loses nothing, as far as can be told.
_HARMLESS = {"update": "fills NULL in", "cast": "changes the type of"}


def _added(item: Object) -> str:
    sources = ("default", "generated", "identity generation")
    needs_value = item.attributes.get("not null") and not any(map(item.attributes.get, sources))
    if item.kind == "column" and needs_value:
        return "NOT NULL without a default: every INSERT of the running application fails."
    if item.attributes.get("validated") is False:
        return "It is not validated: existing rows may violate it."
    if item.kind == "index" and item.attributes.get("unique"):
        return "From then on, duplicates are refused."
    return _ADDED.get(item.kind, "")


def _changed(old: Object, new: Object, names: Sequence[str]) -> str:
    if names == ["comment"]:
        return consequences.different(old, new, names)
    return next((_CHANGED[name] for name in names if name in _CHANGED), "")
