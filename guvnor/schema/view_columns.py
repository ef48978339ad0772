"""Columns of views: the server takes them from the view's query.

Where the query is as expected, their types differ only because of what the query names. Where it is another
query, they are other columns, and none has only another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from guvnor.schema import ddl
from guvnor.schema.compare import Finding
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object, Snapshot, handle
from guvnor.schema.statement import plain_name

_FROM_QUERY = frozenset({"type", "collation", "storage"})


def of_same_query(
    shadow: Shadow, pairs: Iterable[tuple[Object, Object]], expected: Snapshot, actual: Snapshot
) -> list[tuple[Object, Object]]:
    """Leave out pairs of columns of a view whose query differs in more than their names.

    :param pairs: missing and unexpected objects that differ only in their names.
    """
    left = list(pairs)
    while views := {item.parents[0] for item, _ in left if _is_of_view(item, expected)}:
        with shadow.undone():
            for wanted, found in left:
                shadow.attempt(ddl.rename(wanted, plain_name(wanted), plain_name(found)).sql)
            there = shadow.snapshot(parents=False).objects
        other = {key for key in views if _query(there[key]) != _query(actual.objects[key])}
        if not other:
            break
        left = [(wanted, found) for wanted, found in left if other.isdisjoint(wanted.parents[:1])]
    return left


def follow_query(findings: Sequence[Finding], expected: Snapshot) -> list[Finding]:
    """Fold findings on nothing but the type of a view's column into those on what the view's query names.

    :param expected: the expected schema, with the actual names.
    """
    roots = {handle(found.kind, found.object): found for found in findings}
    causes: dict[str, str] = {}
    for key, found in roots.items():
        if (
            found.kind == "column"
            and found.change == "different"
            and {*(found.expected or ())} <= _FROM_QUERY
        ):
            cause = next((above for above in _behind(key, expected) if above in roots), None)
            causes |= {key: cause} if cause else {}
    follows: dict[str, list[str]] = {}
    for key in causes:
        root = key
        while root in causes:
            root = causes[root]
        follows.setdefault(root, []).append(str(expected.objects[key]))

    def whole(found: Finding) -> Finding:
        along = follows.get(handle(found.kind, found.object), [])
        # No statement gives a column another type as long as a view shows it.
        return replace(found, with_it=tuple(sorted((*found.with_it, *along))), sql=None) if along else found

    return [whole(found) for found in findings if handle(found.kind, found.object) not in causes]


def _query(view: Object) -> object:
    return view.attributes["definition"]


def _is_of_view(item: Object, schema: Snapshot) -> bool:
    view = schema.objects.get(item.parents[0]) if item.kind == "column" else None
    return view is not None and "view" in view.kind


def _behind(key: str, expected: Snapshot) -> list[str]:
    """Return the handles of what the query of a column's view names, columns first; none for a table's."""
    column = expected.objects.get(key)
    if column is None or not _is_of_view(column, expected):
        return []
    return sorted(
        expected.objects[column.parents[0]].parents, key=lambda parent: not parent.startswith("column:")
    )
