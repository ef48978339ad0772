"""Types of the columns of views: the server takes them from the view's query.

Where the query is as expected, they differ only because of what the query names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guvnor.schema.compare import Finding
from guvnor.schema.snapshot import Snapshot, handle

_FROM_QUERY = frozenset({"type", "collation", "storage"})


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


def _behind(key: str, expected: Snapshot) -> list[str]:
    """Return the handles of what the query of a column's view names, columns first; none for a table's."""
    column = expected.objects.get(key)
    view = expected.objects.get(column.parents[0]) if column else None
    if view is None or "view" not in view.kind:
        return []
    return sorted(view.parents, key=lambda parent: not parent.startswith("column:"))
