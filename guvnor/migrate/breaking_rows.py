"""Rows that break a constraint that a plan makes, found before anything is touched.

The shadow says which constraints of existing columns are new; each has a query that shows the rows that break
it. Where the plan changes such rows first, the query cannot judge what it will leave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2

from guvnor import postgres
from guvnor.database import Database
from guvnor.errors import GuvnorError, PreflightError
from guvnor.postgres import Connection, primary_message, scalar, snapshot, violations
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import Direction
from guvnor.revisions.statements import needs_database

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from guvnor.schema.constraints import NewConstraint
    from guvnor.schema.rehearsal import Effect

_PATIENCE = "3s"  # for each query
# What has to stand in a plan that makes a constraint of columns that are there; spares the shadow to most.
_MAY_CONSTRAIN = re.compile(
    r"\b(set\s+not\s+null|validate\s+constraint|unique\s+index|alter\s+domain|call"
    r"|add\s+(constraint|check|foreign|unique|primary|exclude|not)|execute(?!\s+(function|procedure)))\b",
    re.IGNORECASE,
)


class BreakingRowsError(PreflightError):
    """Rows break a constraint that a revision is about to make."""


@dataclass(frozen=True)
class Judgment:
    """What the rows say to the constraints of a plan.

    :ivar checked: how many constraints no row breaks.
    :ivar warnings: of the others, what is not known.
    """

    checked: int
    warnings: tuple[str, ...]


def judge(
    connection: Connection,
    database: Database,
    script: ScriptDirectory,
    plan: Plan,
    effects: dict[tuple[str, str], Effect],
) -> Judgment | None:
    """Look for rows that break what a plan is about to make.

    :param connection: in autocommit mode.
    :param effects: of steps that have been observed already; those of the plan are added.
    :returns: None where the plan makes no constraint of columns that are there.
    :raises BreakingRowsError: when there are such rows, and nothing in the plan changes them first.
    """
    steps = [step for step in plan.steps if step.direction is Direction.UP]
    texts = [text for step in steps for text in step.statements]
    if plan.current is None or not any(_MAY_CONSTRAIN.search(t) or needs_database(t) for t in texts):
        return None
    from guvnor.schema import rehearsal

    try:
        with postgres.closing(database.shadow.connect("shadow")) as shadow:
            found = rehearsal.effects(shadow, script, plan.current, steps)
    except GuvnorError as error:
        return Judgment(0, (f"whether rows break a new constraint is not known: {error.message}",))
    effects |= {(effect.step.revision, effect.step.direction): effect for effect in found}
    new = [item for effect in found for item in effect.constraints if not item.mended]
    return _judged(connection, new) if new else None


def _judged(connection: Connection, new: Sequence[NewConstraint]) -> Judgment:
    checked, warnings, broken = 0, list[str](), dict[str, str]()
    for item in new:
        constraint, query = item.constraint, item.constraint.query
        try:
            count = _count(connection, query)
        except psycopg2.Error as error:
            late = isinstance(error, psycopg2.errors.QueryCanceled)
            why = f"not within {_PATIENCE}" if late else primary_message(error)
            warnings.append(f"rows that break {constraint} could not be counted ({why}): {query}")
            continue
        if not count:
            checked += 1
            continue
        what = "value" if constraint.kind == "unique" else "row"
        many = f"{count:,} {what}{'' if count == 1 else 's'}"
        breaks = "break" if count > 1 else "breaks"
        rows = f"{many} of table {constraint.table}"
        said = f"{rows} {breaks} {constraint.title}, which revision {item.revision} makes"
        if item.unsure:
            warnings.append(f"{said}, unless the revision changes them first: {query}")
        else:
            broken[said] = query
    if broken:
        shown = map(violations.shown, broken.values())
        raise BreakingRowsError(
            f"{'; '.join(broken)}.",
            next_step="\n".join(
                [*shown, "Correct or delete them, or let the revision do so before it makes the constraint."]
            ),
        )
    return Judgment(checked, tuple(warnings))


def _count(connection: Connection, query: str) -> int:
    """Count the rows that a query shows, read-only and within a few seconds."""
    with snapshot(connection, "100ms") as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}'")
        return int(scalar(connection, f"SELECT count(*) FROM ({query}) AS breaking"))
