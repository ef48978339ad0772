"""A backfill: rows are updated range by range until none is left; see :mod:`guvnor.online.ranges`."""

from __future__ import annotations

from typing import Any

from guvnor.online import partitions, ranges
from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.online.ranges import Ranges
from guvnor.postgres.quoting import quoted

_IN_VAIN_MOST = 3  # passes; the application may change the one row that is left at the same moment


def backfill(step: OnlineStep, table: str, assignments: str, where: str) -> None:
    """Update the rows that a predicate names, a range at a time; see ``op.backfill``.

    :raises OnlineStepError: when it would never end.
    """
    length, first = ranges.FIRST, True
    for relation in (member.name for member in partitions.with_rows(step.connection, table)):
        source = f"ONLY {relation} AS {quoted(table)}"  # the text may name the table

        def change(in_range: str, source: str = source) -> str:
            return (
                f"WITH updated AS (UPDATE {source} SET {assignments}\n"
                f"WHERE {in_range} AND ({where}\n) "
                f"RETURNING ({where}\n) AS again) SELECT bool_or(again), count(*) FROM updated"
            )

        def count(returned: tuple[Any, ...], relation: str = relation) -> int:
            endless, updated = returned
            if endless:
                raise OnlineStepError(
                    f"The backfill of {relation} would never end: rows that it has updated still match "
                    f"{where}."
                )
            return int(updated)

        work = Ranges(step, relation, source, where, change, length)
        if not work.work_off(count, in_vain_most=_IN_VAIN_MOST, pause=not first):
            raise OnlineStepError(
                f"The backfill of {relation} would never end: a trigger or a rule keeps its UPDATE from rows "
                f"that match {where}."
            )
        length, first = work.length, False
    ranges.finish(step, table)
