"""Finds out which differences follow from others, by making the cause in the shadow and reading it again.

A column of another type or name changes how the server prints every constraint and index on it; an enum's
label is printed in defaults. So what has another name or type is changed in the shadow to what is there: what
still differs then differs of itself. And an expression that went through a dump and a restore prints
differently although it means the same (``x IN (...)``): each side's own text is given to the server once
more, and what it prints then is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guvnor.schema import meaning, reconcile
from guvnor.schema.compare import Finding, canonical, compare, different, differing, in_order
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object, Snapshot

# What a rename of one thing can hide of another is found in the next round: tables, then columns, then
# indexes.
_ROUNDS = 3

# What is under a table, and so can be told apart by it.
_RENAMED = (
    "type", "table", "view", "materialized view", "sequence", "function", "procedure", "column", "constraint",
    "index", "trigger", "policy", "rule", "statistics",
)  # fmt: skip

# Attributes that hold expressions, which a dump and restore may print in another way.
_EXPRESSIONS = frozenset(
    {"definition", "default", "generated", "using", "with check", "predicate", "constraints"}
)


@dataclass(frozen=True)
class Settled:
    """A comparison in which each cause is found once.

    :ivar findings: in the order of a report.
    :ivar expected: what the shadow holds, with the names and types of what is there.
    :ivar actual: what is there.
    :ivar renamed: what has another name only: the object that is there, its name, and the expected one.
    """

    findings: list[Finding]
    expected: Snapshot
    actual: Snapshot
    renamed: tuple[tuple[Object, str, str], ...] = ()


def differences(
    shadow: Shadow, actual: Snapshot, *, grantees: Sequence[str] = (), ignore: Sequence[str] = ()
) -> list[Finding]:
    """Compare what a shadow holds with what is there; see :func:`settled`."""
    return settled(shadow, actual, grantees=grantees, ignore=ignore).findings


def settled(
    shadow: Shadow, actual: Snapshot, *, grantees: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Settled:
    """Compare what a shadow holds with what is there, each cause once.

    The shadow is changed by it.

    :param grantees: see :func:`guvnor.schema.compare.compare`.
    :param ignore: see :meth:`guvnor.schema.snapshot.Snapshot.without`.
    """
    actual = actual.without(ignore)
    expected = shadow.snapshot().without(ignore)
    findings = compare(expected, actual, grantees=grantees)
    if not findings:
        return Settled([], expected, actual)
    causes: list[Finding] = []
    renamed: list[tuple[Object, str, str]] = []
    for _ in range(_ROUNDS):
        made = []
        for wanted, there in list(_renamed(expected, actual)):
            cause, sql = _rename(wanted, there)
            if shadow.attempt(sql):
                made.append(cause)
                renamed.append((there, _plain_name(there), _plain_name(wanted)))
        made = made or [cause for cause, sql in _retyped(expected, actual) if shadow.attempt(sql)]
        if not made:
            break
        causes += made
        expected = shadow.snapshot().without(ignore)
        findings = compare(expected, actual, grantees=grantees)
    doubtful = [
        f for f in findings if f.change == "different" and f.expected and _EXPRESSIONS & f.expected.keys()
    ]
    if doubtful:
        findings = _reprinted(shadow, expected, actual, findings, doubtful)
    return Settled(in_order(_joined([*causes, *findings])), expected, actual, tuple(renamed))


def _rename(wanted: Object, there: Object) -> tuple[Finding, str]:
    """Return the finding of another name, and the statement that gives the shadow the same."""
    old, new = _plain_name(wanted), _plain_name(there)
    finding = Finding(
        wanted.kind,
        wanted.identity,
        "different",
        {"name": old},
        {"name": new},
        meaning.different(wanted, there, ["name"]),
        f"{reconcile.rename(there, old)};",
    )
    return finding, reconcile.rename(wanted, new)


def _plain_name(item: Object) -> str:
    """Return an object's own name, a function's without its arguments."""
    return reconcile.own_name(item).partition("(")[0]


def _retyped(expected: Snapshot, actual: Snapshot) -> Iterable[tuple[Finding, str]]:
    """Find columns of another type and labels of another name, with what gives the shadow the same."""
    for key, wanted in expected.objects.items():
        there = actual.get(key)
        if there is None or there.kind != wanted.kind:
            continue
        names = [n for n in ("type", "collation") if wanted.attributes.get(n) != there.attributes.get(n)]
        if wanted.kind == "column" and names:
            column = reconcile.own_name(wanted)
            kind = there.attributes["type"]
            collation = there.attributes["collation"]
            yield (
                different(wanted, there, names, None),
                f"ALTER TABLE {reconcile.table_of(wanted)} ALTER COLUMN {column} TYPE {kind}"
                + (f" COLLATE {collation}" if collation else "")
                + ("" if wanted.attributes["generated"] else f" USING CAST({column}::text AS {kind})"),
            )
        if wanted.kind == "type" and (pair := renamed_label(wanted, there)):
            old, new = (label.replace("'", "''") for label in pair)
            yield (
                replace(
                    different(wanted, there, ["labels"], None),
                    sql=f"ALTER TYPE {wanted.identity} RENAME VALUE '{new}' TO '{old}';",
                ),
                f"ALTER TYPE {wanted.identity} RENAME VALUE '{old}' TO '{new}'",
            )


def _renamed(expected: Snapshot, actual: Snapshot) -> Iterable[tuple[Object, Object]]:
    """Pair what is missing with what is there instead and is the same but for its name."""
    missing = [o for o in expected if o.kind in _RENAMED and o.handle not in actual.objects]
    there = [o for o in actual if o.kind in _RENAMED and o.handle not in expected.objects]
    by_shape: dict[Any, tuple[list[Object], list[Object]]] = {}
    for side, (objects, snapshot) in enumerate(((missing, expected), (there, actual))):
        for item in objects:
            by_shape.setdefault(_shape(item, snapshot), ([], []))[side].append(item)
    for wanted, found in by_shape.values():
        if len(wanted) == len(found) == 1:
            yield wanted[0], found[0]


def _shape(item: Object, snapshot: Snapshot) -> tuple[Any, ...]:
    """Return all that is compared of an object but its own name."""
    name = re.compile(rf"(?<![\w.]){re.escape(_plain_name(item))}(?!\w)")
    attributes = sorted(
        (key, name.sub("?", value) if isinstance(value, str) else str(value))
        for key, value in item.attributes.items()
        if key not in ("owner", "body")
    )
    table = reconcile.table_of(item) if item.kind in _RENAMED[7:] else ""
    relation = snapshot.get(f"relation:{table}")
    # A column that was renamed is where it was; one that was dropped and added is at the end.
    place = (
        (relation.attributes["column order"] or []).index(reconcile.own_name(item))
        if item.kind == "column" and relation and relation.attributes.get("column order")
        else None
    )
    return (item.kind, table, place, canonical(item.attributes.get("body")), *attributes)


def renamed_label(wanted: Object, there: Object) -> tuple[str, str] | None:
    """Return the one label of an enum that has another name: what it should be and what it is."""
    before, after = wanted.attributes.get("labels") or [], there.attributes.get("labels") or []
    pairs = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
    if (
        len(before) == len(after)
        and len(pairs) == 1
        and pairs[0][0] not in after
        and pairs[0][1] not in before
    ):
        return pairs[0]
    return None


def _reprinted(
    shadow: Shadow, expected: Snapshot, actual: Snapshot, findings: list[Finding], doubtful: list[Finding]
) -> list[Finding]:
    """Leave out the expressions that the server prints equal after one more parse of each side's own text."""
    by_key = {(item.kind, item.identity): key for key, item in expected.objects.items()}
    keys = {id(finding): by_key[finding.kind, finding.object] for finding in doubtful}
    parsed: dict[str, list[Object]] = {key: [] for key in keys.values()}
    for side in (expected, actual):
        with shadow.undone():
            again = [
                key
                for key in parsed
                if (sql := _recreate(side.objects[key], expected.objects[key])) and shadow.attempt(sql)
            ]
            if again:
                printed = shadow.snapshot()
                for key in again:
                    parsed[key] += filter(None, [printed.get(key)])
    kept = []
    for finding in findings:
        key = keys.get(id(finding), "")
        wanted = finding.expected or {}
        if len(sides := parsed.get(key, [])) == 2:
            same = _EXPRESSIONS - set(differing(sides[0], sides[1], None))
            names = [name for name in wanted if name not in same]
            if len(names) < len(wanted):
                if names:
                    kept.append(different(expected.objects[key], actual.objects[key], names, actual.owner))
                continue
        kept.append(finding)
    return kept


def _recreate(item: Object, wanted: Object) -> str | None:
    """Return the statements that replace an object of the shadow by one made from a printed text."""
    table, name = reconcile.table_of(wanted), reconcile.own_name(wanted)
    attributes = item.attributes
    if item.kind == "column" and attributes.get("generated"):
        kind, expression = str(attributes["generated"]).split(" ", 1)
        return (
            f"ALTER TABLE {table} DROP COLUMN {name} CASCADE; ALTER TABLE {table} ADD COLUMN {name} "
            f"{attributes['type']} GENERATED ALWAYS AS ({expression}) {kind}"
        )
    if item.kind == "column" and attributes.get("default") is not None:
        return f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {attributes['default']}"
    # A foreign key has no expression, and making one could lock a live table.
    if item.sql is None or (item.kind == "constraint" and attributes["type"] not in ("check", "exclusion")):
        return None
    drop = {
        "constraint": f"ALTER TABLE {table} DROP CONSTRAINT {name}",
        "index": f"DROP INDEX {name}",
        "trigger": f"DROP TRIGGER {name} ON {table}",
        "rule": f"DROP RULE {name} ON {table}",
        "policy": f"DROP POLICY {name} ON {table}",
        "view": f"DROP VIEW {name} CASCADE",
        "materialized view": f"DROP MATERIALIZED VIEW {name} CASCADE",
        "type": f"DROP TYPE {name} CASCADE",
    }.get(item.kind)
    return f"{drop}; {item.sql}" if drop else None


def _joined(findings: list[Finding]) -> list[Finding]:
    """Make one finding of those about one object."""
    joined: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = finding.kind, finding.object
        first = joined.get(key)
        if first is None or first.change != "different" or finding.change != "different":
            joined[key if first is None else (*key, finding.change)] = finding  # type: ignore[index]
            continue
        joined[key] = replace(
            first,
            expected={**(first.expected or {}), **(finding.expected or {})},
            actual={**(first.actual or {}), **(finding.actual or {})},
            sql=f"{first.sql}\n{finding.sql}" if first.sql and finding.sql else None,
            with_it=(*first.with_it, *finding.with_it),
        )
    return list(joined.values())
