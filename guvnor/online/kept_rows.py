"""Keeps, changes and brings back rows range by range; see ``op.change_rows`` and ``op.bring_back``."""

from __future__ import annotations

import logging
from typing import Any

from guvnor.online import kept_tree, partitions, ranges
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.online.keeping import KeptChange
from guvnor.online.kept_statement import RANGE, RELATION, WAITING
from guvnor.online.ranges import Ranges
from guvnor.postgres import scalar

log = logging.getLogger(__name__)

_IN_VAIN_MOST = 3  # passes; the application may change the one row that is left at the same moment


def change(step: OnlineStep, rows: KeptChange) -> None:
    """Keep and change, or delete, rows a range at a time; the table beside is there already.

    A row that is kept is done, so a run that was killed goes on with the others, and no row is changed twice.

    :raises OnlineStepError: when rows remain that cannot be changed.
    """
    length, first = ranges.FIRST, True
    for facts in kept_tree.read(step.connection, rows.table, rows.revision):
        with step.connection.cursor() as cursor:
            query = "SELECT alias, pending, change, target FROM"
            cursor.execute(f"{query} ({rows.statements(*facts)}) AS facts")
            alias, pending, statement, target = cursor.fetchall()[0]
        own = target.startswith("ONLY ")  # the rows of a partitioned table are those of its leaves
        leaves = (f"ONLY {leaf.name}" for leaf in partitions.one_by_one(step.connection, rows.table))
        for leaf in [target] if own else leaves:

            def of_range(condition: str, leaf: str = leaf, statement: str = statement) -> str:
                return str(statement.replace(RELATION, leaf).replace(RANGE, f"({condition})"))

            relation = leaf.removeprefix("ONLY ")
            work = Ranges(step, relation, f"{leaf} AS {alias}", pending, of_range, length, doing=rows.doing)
            if not work.work_off(_count, in_vain_most=_IN_VAIN_MOST, pause=not first):
                raise OnlineStepError(
                    rows.stuck,
                    next_step="Change those rows, or the revision, then: guvnor migrate up",
                )
            length, first = work.length, False
    ranges.finish(step, rows.table)


def bring_back(step: OnlineStep, rows: KeptReturn) -> None:
    """Bring kept rows back a range at a time, and report those that cannot come back.

    Nothing that a single row holds stops it: that row stays in the table beside, with the reason.
    """
    found = False
    for facts in kept_tree.read(step.connection, rows.table, rows.revision):
        with step.connection.cursor() as cursor:
            cursor.execute(f"SELECT kept, problem, change, usually FROM ({rows.statements(*facts)}) AS facts")
            kept, problem, statement, usually = cursor.fetchall()[0]
        if kept is None:
            continue
        found, refused = True, dict[str, str]()
        if problem is None:

            def of_range(condition: str, statement: str = statement) -> str:
                return str(statement.replace(RANGE, f"({condition})"))

            # A row may have to wait for another one: a parent, or the one that has its unique value now.
            work = Ranges(step, kept, kept, WAITING, of_range, refused=refused, doing="bringing back")
            work.work_off(_count, in_vain_most=1, pause=False)
        _leave(step, kept, refused, usually)
        left = scalar(step.connection, f"SELECT count(*) FROM {kept}")
        if left:
            log.warning(
                f"{left:,} {rows.left}: SELECT * FROM {kept};",
                extra={"table": rows.table, "rows": left},
            )
    if not found:
        log.warning(rows.nothing)
        return
    ranges.finish(step, rows.table)


def _count(returned: tuple[Any, ...]) -> int:
    return int(returned[0])


def _leave(step: OnlineStep, kept: str, refused: dict[str, str], usually: str) -> None:
    """Mark the rows that were not brought back, with the reason: a later run does not take them for new."""
    places = [place.removesuffix("::tid").strip("'") for place in refused]
    step.execute("SET lock_timeout = 0")
    step.execute(
        f"""
        UPDATE {kept} AS k SET guvnor_left_at = now(), guvnor_left_why = COALESCE(
            (SELECT why FROM unnest(%s::tid[], %s::text[]) AS r (place, why) WHERE r.place = k.ctid), %s)
        WHERE {WAITING}
        """,
        (places, list(refused.values()), usually),
    )
