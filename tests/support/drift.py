"""What tests of the drift check share: changes to a live schema, and a try of the SQL that undoes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection  # noqa: N812 (a type)

from guvnor.schema import catalog, root_causes
from guvnor.schema.compare import Finding
from guvnor.schema.shadow import Shadow


@dataclass(frozen=True)
class Case:
    """A change to a live schema.

    :ivar sql: what is done.
    :ivar findings: what has to be found, each as change, kind and object.
    """

    name: str
    sql: str
    findings: tuple[str, ...]


def cases(text: str) -> list[Case]:
    """Read cases, each ``name | SQL | findings``; further lines of one are indented."""
    found = []
    for entry in re.split(r"\n(?=\S)", text.strip()):
        name, sql, findings = (part.strip() for part in re.split(r"\s\|(?=\s|$)", entry.strip()))
        findings = " ".join(findings.split())
        several = re.split(r",\s+(?=(?:missing|unexpected|different)\s)", findings) if findings else ()
        found.append(Case(name, sql, tuple(several)))
    return found


def left_after(expected: Shadow, changed: Connection, findings: list[Finding]) -> set[str]:
    """Run the SQL of the findings, and name what differs after it."""
    with changed.cursor() as cursor:
        for finding in findings:
            cursor.execute((finding.sql or "").replace(" CONCURRENTLY", ""))  # this is one transaction
    with expected.undone():
        left = root_causes.trace(expected, catalog.read(changed)).all_findings
    return {name for finding in left for name in finding.expected or (finding.title,)}


def statements(sql: str) -> list[str]:
    """Split SQL at the semicolons that end a statement."""
    return [part for part in re.split(r";\s+", sql) if part.strip()]
