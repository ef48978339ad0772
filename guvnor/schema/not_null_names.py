"""Names of NOT NULL constraints, which PostgreSQL 18 makes from those of table and column.

Where a table has another name, so have they. That is no difference of its own: it belongs to the finding on
the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from guvnor.schema.compare import Finding
from guvnor.schema.snapshot import Snapshot, handle

_NAME = "not null constraint"


def follow_names(
    causes: Sequence[Finding], renamed: Mapping[str, Finding], findings: Sequence[Finding], expected: Snapshot
) -> tuple[list[Finding], list[Finding]]:
    """Fold findings on nothing but such a name into that on the table.

    :param renamed: the causes that are renames, by the handle that the object has in the live database.
    :param expected: the expected schema, with the actual names.
    :returns: the causes, and the findings that are left.
    """
    folded: dict[str, list[Finding]] = {}
    left = []
    for finding in findings:
        is_name = finding.change == "different" and {*(finding.expected or ())} == {_NAME}
        column = expected.objects.get(handle("column", finding.object)) if is_name else None
        table = column.parents[0] if column else ""
        if table in renamed:
            folded.setdefault(table, []).append(finding)
        else:
            left.append(finding)

    def whole(key: str, cause: Finding) -> Finding:
        for finding in folded.get(key, []):
            sql = f"{finding.sql}\n{cause.sql}" if cause.sql and finding.sql else None
            with_it = tuple(sorted((*cause.with_it, f"column {finding.object}")))
            cause = replace(cause, with_it=with_it, sql=sql)
        return cause

    by_cause = {id(cause): key for key, cause in renamed.items()}
    return [whole(by_cause.get(id(cause), ""), cause) for cause in causes], left
