"""Traces differences to their root causes, by repeating each cause in the shadow and comparing again.

When a column has another type or name, the server prints every constraint and index on it differently;
defaults contain the labels of enums. So names and types in the shadow are changed to the actual ones: what
still differs then is a difference of its own. An expression that went through a dump and a restore also
prints differently, although it means the same (``x IN (...)``): the server parses each side's own text once
more, and what it prints then is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guvnor.schema import column_ddl, consequences, ddl, enum_labels, partitioned_indexes, partitions
from guvnor.schema.compare import Finding, canonical, compare, different, differing, in_order
from guvnor.schema.not_null_names import follow_names
from guvnor.schema.partitions import Partition, Sides
from guvnor.schema.retyping import retyped
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object, Snapshot, handle
from guvnor.schema.statement import plain_name, safe, table_of, terminated
from guvnor.schema.view_columns import follow_query, of_same_query

# A rename can hide another one, which the next round finds: tables, then columns, then indexes.
_ROUNDS = 3

# Kinds that belong to a table: only objects of the same table are compared for a rename.
_UNDER_A_TABLE = ("column", "constraint", "index", "trigger", "policy", "rule", "statistics")
_RENAMED = (
    "type", "table", "view", "materialized view", "sequence", "function", "procedure", *_UNDER_A_TABLE,
)  # fmt: skip

# Kinds whose definitions contain expressions.
_PRINTED_ANEW = ("constraint", "index", "trigger", "rule", "policy", "view", "materialized view", "type")

# Attributes that contain expressions, which may print differently after a dump and restore.
_EXPRESSIONS = frozenset(
    {"definition", "default", "generated", "using", "with check", "predicate", "constraints"}
)


@dataclass(frozen=True)
class Rename:
    """An object that differs only in its name.

    :ivar item: the object in the live database.
    :ivar before: its old name, as SQL writes it and without a function's arguments.
    :ivar after: its new name.
    """

    item: Object
    before: str
    after: str


@dataclass(frozen=True)
class RootCauses:
    """A comparison that names each root cause once.

    :ivar findings: in the order of a report.
    :ivar expected: the expected schema, with the actual names and types.
    :ivar actual: the actual schema without the partitions that the expected one does not know.
    :ivar renamed: objects that differ only in their names, from the actual to the expected one.
    :ivar partitions: the partitions that the expected schema does not know.
    :ivar lacking: the findings on these; no revision can name them.
    """

    findings: list[Finding]
    expected: Snapshot
    actual: Snapshot
    renamed: tuple[Rename, ...] = ()
    partitions: tuple[Partition, ...] = ()
    lacking: tuple[Finding, ...] = ()

    @property
    def all_findings(self) -> list[Finding]:
        """All findings, in the order of a report."""
        return in_order([*self.findings, *self.lacking])


def trace(
    shadow: Shadow, actual: Snapshot, *, grantees: Sequence[str] = (), ignore: Sequence[str] = ()
) -> RootCauses:
    """Compare a shadow with the actual schema, and report each root cause once.

    This changes the shadow.

    :param grantees: see :func:`guvnor.schema.compare.compare`.
    :param ignore: see :meth:`guvnor.schema.snapshot.Snapshot.without`.
    """
    whole = actual.without(ignore)
    sides, findings = _compared(shadow.snapshot(parents=False).without(ignore), whole, grantees)
    causes: list[Finding] = []
    renamed: list[Rename] = []
    if findings:
        sides, findings = _compared(shadow.snapshot().without(ignore), whole, grantees)
    named: dict[str, Finding] = {}
    for _ in range(_ROUNDS if findings else 0):
        expected, actual = sides.expected, sides.actual
        made = []
        for wanted, there in of_same_query(shadow, _renamed(expected, actual), expected, actual):
            cause, sql = _rename(wanted, there)
            if shadow.attempt(sql):
                made.append(cause)
                named[there.handle] = cause
                renamed.append(Rename(there, plain_name(there), plain_name(wanted)))
        made = made or [cause for cause, sql in _retyped(expected, actual) if shadow.attempt(sql)]
        if not made:
            break
        causes += made
        sides, findings = _compared(shadow.snapshot().without(ignore), whole, grantees)
    if findings:
        version = shadow.driver.server_version
        findings = _reprinted(shadow, sides.expected, sides.actual, findings)
        findings = list(partitioned_indexes.with_statements(findings, sides, version))
    causes = _fold_columns_of_views(causes, renamed, named, sides.actual)
    causes, findings = follow_names(causes, named, findings, sides.expected)
    # What belongs to a table is renamed before it: the statement names the table as it is.
    renamed.sort(key=lambda rename: rename.item.kind not in _UNDER_A_TABLE)
    findings = follow_query(_joined([*causes, *findings]), sides.expected)
    return RootCauses(
        in_order(findings),
        sides.expected,
        sides.actual,
        tuple(renamed),
        sides.partitions,
        tuple(partitions.lacking(sides, grantees)),
    )


def _compared(expected: Snapshot, whole: Snapshot, grantees: Sequence[str]) -> tuple[Sides, list[Finding]]:
    sides = partitioned_indexes.without_validity(partitions.apart(expected, whole))
    found = compare(sides.expected, sides.actual, grantees)
    return sides, [*found, *partitioned_indexes.incomplete(sides)]


def _rename(wanted: Object, there: Object) -> tuple[Finding, str]:
    """Return the finding for another name, and the statement that gives it to the shadow's object."""
    old, new = plain_name(wanted), plain_name(there)
    meaning, sql = consequences.different(wanted, there, ["name"]), safe([ddl.rename(there, new, old)])
    names = {"name": old}, {"name": new}
    finding = Finding(wanted.kind, wanted.identity, "different", *names, meaning, sql)
    return finding, ddl.rename(wanted, old, new).sql


def _retyped(expected: Snapshot, actual: Snapshot) -> Iterable[tuple[Finding, str]]:
    """Find columns of another type and renamed labels, with the statements that make the shadow match."""
    for key, wanted in expected.objects.items():
        there = actual.objects.get(key)
        if there is None or there.kind != wanted.kind or (wanted.inherited_from and there.inherited_from):
            continue
        names = [n for n in ("type", "collation") if wanted.attributes.get(n) != there.attributes.get(n)]
        if wanted.kind == "column" and names:
            yield different(wanted, there, names, None), retyped(expected, wanted, there.attributes)
        if wanted.kind == "type" and (back := enum_labels.renames(there, wanted)):
            yield different(wanted, there, ["labels"], None), terminated(s.sql for s in back)


def _renamed(expected: Snapshot, actual: Snapshot) -> Iterable[tuple[Object, Object]]:
    """Pair each missing object with the unexpected one that differs from it only in its name."""
    by_shape: dict[Any, tuple[list[Object], list[Object]]] = {}
    for side, (snapshot, other) in enumerate(((expected, actual), (actual, expected))):
        for item in snapshot:
            if item.kind in _RENAMED and item.handle not in other.objects and not item.inherited_from:
                by_shape.setdefault(_shape(item, snapshot), ([], []))[side].append(item)
    for wanted, found in by_shape.values():
        if len(wanted) == len(found) == 1:
            yield wanted[0], found[0]


def _fold_columns_of_views(
    causes: list[Finding], renamed: Sequence[Rename], named: dict[str, Finding], actual: Snapshot
) -> list[Finding]:
    """Fold the new name of a view's column into that of the column behind it.

    :param named: the findings on the names, by the handles that the objects have in the live database.
    """
    columns = {rename.item.handle: rename for rename in renamed if rename.item.kind == "column"}

    def behind(rename: Rename) -> Rename:
        relation = actual.objects[rename.item.parents[0]]
        for parent in relation.parents if "view" in relation.kind else ():
            above = columns.get(parent)
            if above and (above.before, above.after) == (rename.before, rename.after):
                return behind(above)
        return rename

    for key, rename in columns.items():
        root = behind(rename).item.handle
        if root != key:
            own, above = named.pop(key), named[root]
            sql = f"{above.sql}\n{own.sql}" if above.sql and own.sql else None
            named[root] = replace(above, with_it=(*above.with_it, f"column {own.object}"), sql=sql)
            causes = [named[root] if cause is above else cause for cause in causes if cause is not own]
    return causes


def _shape(item: Object, snapshot: Snapshot) -> tuple[Any, ...]:
    """Return everything that is compared of an object, except its own name."""
    name = re.compile(rf"(?<![\w.]){re.escape(plain_name(item))}(?!\w)")
    values = dict(item.attributes)
    if own := values.get("not null constraint"):  # the server names it after the column
        values["not null constraint"] = column_ddl.remarks(own)
    attributes = sorted(
        (key, name.sub("?", value) if isinstance(value, str) else str(value))
        for key, value in values.items()
        if key not in ("owner", "body")
    )
    table = table_of(item) if item.kind in _UNDER_A_TABLE else ""
    relation = snapshot.objects.get(f"relation:{table}")
    order = relation.attributes.get("column order") if relation else None
    # A renamed column keeps its place; one that was dropped and added again is the last one.
    place = order.index(item.name) if order and item.kind == "column" else None
    return (item.kind, table, place, canonical(item.attributes.get("body")), *attributes)


def _reprinted(
    shadow: Shadow, expected: Snapshot, actual: Snapshot, findings: list[Finding]
) -> list[Finding]:
    """Leave out expressions that print alike once the server has parsed each side's own text again."""
    parsed: dict[str, list[Object]] = {
        handle(finding.kind, finding.object): []
        for finding in findings
        if finding.change == "different" and _EXPRESSIONS & (finding.expected or {}).keys()
    }
    for side in (expected, actual) if parsed else ():
        with shadow.undone():
            again = [key for key in parsed if (sql := _recreate(side.objects[key])) and shadow.attempt(sql)]
            printed = shadow.snapshot() if again else side
            for key in again:
                parsed[key] += filter(None, [printed.objects.get(key)])
    kept = []
    for finding in findings:
        key = handle(finding.kind, finding.object)
        if finding.change == "different" and len(sides := parsed.get(key, [])) == 2:
            same = _EXPRESSIONS - set(differing(sides[0], sides[1], None))
            names = [name for name in finding.expected or () if name not in same]
            if names and len(names) < len(finding.expected or ()):
                finding = different(expected.objects[key], actual.objects[key], names, actual.owner)
            if not names:
                continue
        kept.append(finding)
    return kept


def _recreate(item: Object) -> str | None:
    """Return the statements that replace an object of the shadow by one made from its printed text."""
    attributes = item.attributes
    if item.kind == "column" and attributes["generated"]:
        dropped = [f"{statement.sql} CASCADE" for statement in ddl.drop(item) or []]
        return terminated([*dropped, column_ddl.add(item, column_ddl.definition(item))])
    if item.kind == "column" and attributes["default"] is not None:
        statements, _ = ddl.alter(item, item, ["default"])
        return terminated(statement.sql for statement in statements)
    # A foreign key contains no expression, and creating one could lock a live table.
    if item.kind == "constraint" and attributes["type"] not in ("check", "exclusion"):
        return None
    if item.sql is None or item.kind not in _PRINTED_ANEW:
        return None
    cascade = " CASCADE" if item.kind in ("view", "materialized view", "type") else ""
    dropped = [f"{statement.sql}{cascade}" for statement in ddl.drop(item, online=False) or []]
    return terminated([*dropped, item.sql])


def _joined(findings: list[Finding]) -> list[Finding]:
    """Merge the differences of one object."""
    joined: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = finding.kind, finding.object, finding.change
        if first := joined.get(key):
            finding = replace(
                first,
                # What was traced first was not changed in the shadow yet.
                expected={**(first.expected or {}), **_beyond(finding.expected, first.expected)},
                actual={**(first.actual or {}), **_beyond(finding.actual, first.actual)},
                sql=f"{first.sql}\n{finding.sql}" if first.sql and finding.sql else None,
                with_it=(*first.with_it, *finding.with_it),
            )
        joined[key] = finding
    return list(joined.values())


def _beyond(values: Mapping[str, Any] | None, known: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if name not in (known or {})}
