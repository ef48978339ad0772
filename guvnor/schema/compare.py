"""Compares two snapshots, object by object, into findings of one shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from guvnor.schema import consequences, ddl, privileges
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import safe

# The order of the kinds in a report.
_ORDER = (
    "extension", "schema", "type", "function", "procedure", "aggregate", "sequence", "table", "foreign table",
    "column", "constraint", "index", "trigger", "policy", "rule", "statistics", "view", "materialized view",
    "privilege",
)  # fmt: skip

# Attributes that change by themselves when something that they mention is dropped.
_FOLLOWING = frozenset(
    {"default", "definition", "sql body", "column order", "comment on index", "on", "columns"}
)


@dataclass(frozen=True)
class Finding:
    """One difference between the expected and the actual schema.

    :ivar kind: such as ``index``; ``privilege`` where only privileges differ.
    :ivar object: its name as SQL writes it.
    :ivar change: ``missing``, ``unexpected`` or ``different``.
    :ivar expected: the expected values, by attribute; None when the object should not exist.
    :ivar actual: the actual values; None when the object does not exist.
    :ivar meaning: what the difference means in production.
    :ivar sql: the statements that reconcile, each on a line of its own; None where no statement is safe.
        Never a statement that loses data.
    :ivar with_it: what else is missing, unexpected or different only because of this.
    """

    kind: str
    object: str
    change: Literal["missing", "unexpected", "different"]
    expected: Mapping[str, Any] | None
    actual: Mapping[str, Any] | None
    meaning: str
    sql: str | None = None
    with_it: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The finding in a few words."""
        return f"{self.kind} {self.object} is {self.change}"


def compare(expected: Snapshot, actual: Snapshot, grantees: Sequence[str]) -> list[Finding]:
    """Compare the expected with the actual schema.

    What is inherited is there when what it is inherited from is there.

    :param grantees: glob patterns of roles that may hold privileges beyond those of the owner.
    :returns: the findings in the order of a report; a finding includes what follows from it.
    """
    missing = {key: item for key, item in expected.objects.items() if key not in actual.objects}
    unexpected = {key: item for key, item in actual.objects.items() if key not in expected.objects}
    _accept_stand_ins(missing, unexpected, expected, actual)

    found: dict[str, Finding] = {}
    follows: list[tuple[str, str, str | None]] = []  # the root it belongs to, what, the SQL for it
    for absent, finding_of in ((missing, _missing), (unexpected, _unexpected)):
        for key, item in absent.items():
            if (root := outermost(key, absent)) != key:
                sql = _creating(item, missing, absent)
                if sql or not _comes_along(item, absent):
                    follows.append((root, str(item), sql))
            elif not item.inherited_from:
                found[key] = finding_of(item)

    following: dict[str, str] = {}  # what differs only because of a root
    allowed = privileges.Allowed(actual, grantees)
    for key, wanted in expected.objects.items():
        there = actual.objects.get(key)
        if there is None:
            continue
        names = differing(wanted, there, actual.owner)
        if names:
            cause = next((outermost(p, missing) for p in wanted.parents if p in missing), None)
            if names == ["attached to"] and _is_elsewhere(wanted.parents[0], expected, actual):
                follows.append((wanted.parents[0], str(wanted), None))
            elif cause and _FOLLOWING.issuperset(names):
                follows.append((cause, str(wanted), _reconciling(wanted, there, names)))
                following[key] = cause
            else:
                found[key] = different(wanted, there, names, actual.owner)
        if finding := differing_privileges(wanted, there, allowed, actual.roles):
            found[f"{key} privileges"] = finding
    for key, item in unexpected.items():
        given = item.revoked or allowed.unexpected(item, frozenset())
        if item.kind == "default privileges" and not given:
            found.pop(key, None)
    _fold_into_relations(found, follows, following, expected, actual)

    for root, what, sql in follows:
        if finding := found.get(root):
            whole = None  # where a person has to decide on one part
            if finding.sql is not None and sql is not None:
                whole = "\n".join(filter(None, (finding.sql, sql)))
            found[root] = replace(finding, with_it=tuple(sorted((*finding.with_it, what))), sql=whole)
    return in_order(found.values())


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings as a report shows them."""
    rank = {kind: number for number, kind in enumerate(_ORDER)}
    return sorted(findings, key=lambda f: (rank.get(f.kind, len(rank)), f.object, f.change))


def differing(expected: Object, actual: Object, owner: str | None) -> list[str]:
    """Return the names of the attributes that differ, except for those that follow others on both sides.

    :param owner: the role that every object should belong to; None for any.
    """
    if expected.kind != actual.kind:
        return ["kind"]
    wanted, there = expected.attributes, actual.attributes
    names = []
    if wanted != there:  # most objects are equal, and comparing all attributes at once is faster
        left_out = (expected.inherited & actual.inherited) | {"owner"}
        names = [name for name in wanted if name not in left_out and wanted[name] != there.get(name)]
    if "body" in names and canonical(wanted["body"]) == canonical(there["body"]):
        names.remove("body")
    if "column order" in names:  # only of the columns that both sides have
        first, second = wanted["column order"] or [], there["column order"] or []
        if [c for c in first if c in second] == [c for c in second if c in first]:
            names.remove("column order")
    owned = expected.kind != "event trigger" and there.get("owner") is not None
    if owner is not None and owned and there["owner"] != owner:
        names.append("owner")
    return names


def different(expected: Object, actual: Object, names: Sequence[str], owner: str | None) -> Finding:
    """Make the finding of an object whose attributes differ."""
    if "owner" in names:  # whoever built the shadow owns what is expected
        expected = replace(expected, attributes={**expected.attributes, "owner": owner})

    def values(item: Object) -> dict[str, Any]:
        return {name: item.kind if name == "kind" else item.attributes.get(name) for name in names}

    meaning, sql = consequences.different(expected, actual, names), _reconciling(expected, actual, names)
    sides = values(expected), values(actual)
    return Finding(expected.kind, expected.identity, "different", *sides, meaning, sql)


def _missing(item: Object) -> Finding:
    meaning, sql = consequences.missing(item), safe(ddl.create(item))
    return Finding(item.kind, item.identity, "missing", _content(item), None, meaning, sql)


def _creating(item: Object, missing: Mapping[str, Object], absent: Mapping[str, Object]) -> str | None:
    """Return the SQL that makes an object that is missing together with the one that it depends on.

    :param absent: what is absent from one side: what is missing, or what is unexpected.
    """
    if _comes_along(item, absent):
        return (safe(ddl.further(item)) or "") if item.handle in missing else ""
    if item.handle not in missing:
        return None
    relation = missing.get(item.parents[0])
    if item.kind == "column" and relation and "view" in relation.kind:
        return safe(ddl.further(item)) or ""
    return safe(ddl.create(item))


def _unexpected(item: Object) -> Finding:
    content = _content(item)
    if item.kind == "default privileges":
        content |= {"granted": sorted(item.granted), "revoked": sorted(item.revoked)}
    # These hold no data: they can be built again from the definition that the finding shows.
    sql = safe(ddl.drop(item)) if item.kind in ("index", "statistics") else None
    return Finding(item.kind, item.identity, "unexpected", None, content, consequences.unexpected(item), sql)


def _reconciling(expected: Object, actual: Object, names: Sequence[str]) -> str | None:
    """Return the SQL that makes an object what it should be; None when an attribute has none."""
    statements, left = ddl.alter(expected, actual, names)
    return None if left else safe(statements)


def _content(item: Object) -> dict[str, Any]:
    """Return an object's definition, or its attributes where it has none."""
    if item.sql is not None:
        return {"definition": item.sql}
    return {name: value for name, value in item.attributes.items() if value not in (None, False)}


def differing_privileges(
    expected: Object, actual: Object, allowed: privileges.Allowed, roles: frozenset[str]
) -> Finding | None:
    """Return the finding of an object whose privileges differ from what is expected or allowed; else None."""
    if expected.granted == actual.granted and expected.revoked == actual.revoked:
        return None
    unexpected = allowed.unexpected(actual, expected.granted, expected.revoked)
    missing = allowed.missing(actual, expected.granted, expected.revoked)
    if not unexpected and not missing:
        return None
    return Finding(
        "privilege",
        f"{actual.kind} {actual.identity}",
        "different" if missing and unexpected else "missing" if missing else "unexpected",
        {"privileges": missing} if missing else None,
        {"privileges": unexpected} if unexpected else None,
        consequences.privileges(missing, unexpected),
        privileges.reconciling(actual, missing, unexpected, roles),
    )


def outermost(key: str, absent: Mapping[str, Object]) -> str:
    """Return the outermost absent object that an absent object depends on."""
    seen = {key}
    while True:
        above = next((p for p in absent[key].parents if p in absent and p not in seen), None)
        if above is None:
            return key
        seen.add(above)
        key = above


def _comes_along(item: Object, absent: Mapping[str, Object]) -> bool:
    """Tell whether an absent object is absent since what it is inherited from is."""
    return item.parents[0] not in absent and any(above in absent for above in item.inherited_from)


def _is_elsewhere(table: str, expected: Snapshot, actual: Snapshot) -> bool:
    """Tell whether a table has another parent, so that its indexes are not attached as expected."""
    sides = (side.objects[table].attributes.get("inherits from") for side in (expected, actual))
    return next(sides) != next(sides)


def _accept_stand_ins(
    missing: dict[str, Object], unexpected: dict[str, Object], expected: Snapshot, actual: Snapshot
) -> None:
    """Drop the differences between a database that has the extensions and one that could not have them.

    Where the server or the role does not allow an extension, revisions may supply its functions. Both are
    right, and the shadow may be built on a server that differs in this.
    """
    for extension, function in _stand_ins(expected, actual):
        missing.pop(extension, None)
        unexpected.pop(function, None)
        # A stand-in although the server offers the extension: the role may not create any extension.
        if extension.partition(":")[2].strip('"') in actual.available:
            for key in [k for k, item in missing.items() if item.kind == "extension"]:
                del missing[key]
    for extension, function in _stand_ins(actual, expected):
        missing.pop(function, None)
        unexpected.pop(extension, None)
    for absent, server in ((missing, actual), (unexpected, expected)):
        for key in [k for k, item in absent.items() if item.kind == "extension"]:
            if absent[key].identity.strip('"') not in server.available:
                del absent[key]


def _stand_ins(extended: Snapshot, other: Snapshot) -> set[tuple[str, str]]:
    """Pair the extensions that only one side has with the functions that the other one has in their place.

    An object that uses an extension's function depends on both; on the other side, it is a plain function.
    """
    extensions = {key for key in extended.objects.keys() - other.objects.keys() if key.startswith("ext")}
    return {
        (extension, function)
        for item in extended
        for extension in extensions.intersection(item.parents)
        for function in item.parents
        if function.startswith("function:") and function in other.objects and function not in extended.objects
    }


def _fold_into_relations(
    found: dict[str, Finding],
    follows: list[tuple[str, str, str | None]],
    following: Mapping[str, str],
    expected: Snapshot,
    actual: Snapshot,
) -> None:
    """Fold findings on parts of a relation of another kind, and on a view's columns, into the relation's.

    :param following: the root of each object that differs only because of another one.
    """
    for key in list(found):
        item = actual.objects.get(key) or expected.objects.get(key)
        parent = item.parents[0] if item and item.parents else ""
        relation = found.get(parent)
        if item and item.kind == "column" and parent in following and found[key].change != "different":
            follows.append((following[parent], str(item), ""))  # it comes and goes with the view's query
            del found[key]
            continue
        if item is None or relation is None or relation.change != "different":
            continue
        if "kind" in (relation.expected or {}) or (item.kind == "column" and "view" in relation.kind):
            follows.append((parent, str(item), None))
            del found[key]


def canonical(body: str | None) -> str:
    """Normalize a function's body: case, whitespace, comments, and ``:=`` for ``=`` make no difference.

    The server keeps a function's text as it was written, and golang-migrate's files wrote the same functions
    differently than the revisions. Quoted text is left as it is.
    """
    parts = re.findall(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\w+|\s+|.", body or "", re.DOTALL)
    kept = [p if p[0] in "'\"" else p.lower() for p in parts if not p.isspace() and p[:2] not in ("--", "/*")]
    return " ".join(kept).replace(": =", "=").removesuffix(" ;")
