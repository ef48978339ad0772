"""Names of NOT NULL constraints, which PostgreSQL 18 makes from those of table and column.

Where a table or a column has another name, so have they; and a partition has the name of its parent's. That
is no difference of its own: it belongs to the finding on the table or column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from guvnor.schema.compare import Finding
from guvnor.schema.snapshot import Object, Snapshot, handle

_NAME = "not null constraint"


def follow_names(
    causes: Sequence[Finding], renamed: Mapping[str, Finding], findings: Sequence[Finding], expected: Snapshot
) -> tuple[list[Finding], list[Finding]]:
    """Fold findings on nothing but such a name into those that they follow from.

    :param renamed: the causes that are renames, by the handle that the object has in the live database.
    :param expected: the expected schema, with the actual names.
    :returns: the causes, and the findings that are left.
    """
    roots = dict(renamed)
    roots |= {
        handle(f.kind, f.object): f for f in findings if f.kind == "column" and _NAME in (f.expected or {})
    }
    folded: dict[str, list[tuple[Finding, bool]]] = {}
    left = []
    for finding in findings:
        own = handle(finding.kind, finding.object)
        found = None
        if (
            finding.kind == "column"
            and finding.change == "different"
            and {*(finding.expected or ())} == {_NAME}
        ):
            found = next((root for root in _above(expected.objects[own], expected) if root[0] in roots), None)
        if found is None:
            left.append(finding)
        else:
            folded.setdefault(found[0], []).append((finding, found[1]))

    def whole(key: str, root: Finding) -> Finding:
        for finding, inherited in folded.get(key, []):
            sql = root.sql if inherited else None  # the name of a parent's constraint is inherited
            if root.sql and finding.sql and not inherited:
                sql = f"{finding.sql}\n{root.sql}"
            root = replace(root, with_it=tuple(sorted((*root.with_it, f"column {finding.object}"))), sql=sql)
        return root

    by_cause = {id(cause): key for key, cause in renamed.items()}
    return (
        [whole(by_cause.get(id(cause), ""), cause) for cause in causes],
        [whole(handle(finding.kind, finding.object), finding) for finding in left],
    )


def _above(column: Object, expected: Snapshot) -> Iterator[tuple[str, bool]]:
    """Yield what the name can follow from, and whether it is inherited then."""
    yield column.parents[0], False
    tables = [column.parents[0]]
    while tables:
        table = expected.objects[tables.pop(0)]
        for parent in table.attributes["inherits from"] or []:
            for key in (f"column:{parent}.{column.name}", f"relation:{parent}"):
                if key in expected.objects:
                    yield key, True
            tables += [f"relation:{parent}"] if f"relation:{parent}" in expected.objects else []
