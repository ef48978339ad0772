"""A backfill: rows are updated range by range until none is left; see :mod:`guvnor.online.ranges`."""

from __future__ import annotations

from typing import Any

import psycopg2

from guvnor.online import partitions, ranges
from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.online.ranges import Ranges
from guvnor.postgres.quoting import constant, quoted

_IN_VAIN_MOST = 3  # passes; the application may change the one row that is left at the same moment


def backfill(step: OnlineStep, table: str, assignments: str, where: str) -> None:
    """Update the rows that a predicate names, a range at a time; see ``op.backfill``.

    :raises OnlineStepError: when it would never end.
    """
    length, first = ranges.FIRST, True
    for member in partitions.one_by_one(step.connection, table):
        relation, alias = member.name, quoted(table)  # the text may name the table
        ways = [(f"ONLY {relation} AS {alias}", "true")]
        if (
            member.is_partition
        ):  # a row that belongs into another partition then is moved by their table alone
            ways.append((alias, f"tableoid = {constant(relation)}::regclass"))
        for number, (target, of_relation) in enumerate(ways, 1):

            def change(in_range: str, target: str = target, of_relation: str = of_relation) -> str:
                return (
                    f"WITH updated AS (UPDATE {target} SET {assignments}\n"
                    f"WHERE {of_relation} AND {in_range} AND ({where}\n) "
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

            work = Ranges(step, relation, ways[0][0], where, change, length)
            try:
                done = work.work_off(count, in_vain_most=_IN_VAIN_MOST, pause=not first)
                break
            except psycopg2.errors.CheckViolation as error:
                if error.diag.constraint_name is not None or number == len(ways):
                    raise  # a partition's bound has no name
        if not done:
            raise OnlineStepError(
                f"The backfill of {relation} would never end: a trigger or a rule keeps its UPDATE from rows "
                f"that match {where}."
            )
        length, first = work.length, False
    ranges.finish(step, table)
