"""A backfill: rows are updated range by range, each range in a transaction of its own.

A range of rows by their place is a TID range scan (PostgreSQL 14 and later), so that the whole takes one pass
over the table, however small the ranges are. An UPDATE writes new row versions to other blocks, so the passes
are repeated until one finds no row. A range becomes larger or smaller with the time that the last one took,
and half as long when the application had to wait for it: down to a single row.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psycopg2

from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, row, rows, scalar
from guvnor.postgres.quoting import quoted

_TARGET = 0.2  # seconds that one range should take
_PLACES = 2048  # in a block, more than it can hold rows; a range is counted in places
_FIRST = 32 * _PLACES
_MOST = 16384 * _PLACES
_WAIT_MOST = 0.2  # seconds
_IN_VAIN_MOST = 3  # passes; the application may change the one row that is left at the same moment


def backfill(step: OnlineStep, table: str, assignments: str, where: str) -> None:
    """Update the rows that a predicate names, a range at a time; see ``op.backfill``.

    :raises OnlineStepError: when it would never end.
    """
    length, first = _FIRST, True
    for relation in _leaves(step.connection, table):
        ranges = _Ranges(step, relation, assignments, where, length)
        in_vain = 0  # passes, one after the other, that found rows and changed none
        while in_vain < _IN_VAIN_MOST:
            place, found_any, changed = 0, False, 0
            while (found := ranges.next_place(place)) is not None:
                found_any = True
                if not first:  # so the last range is followed by no wait
                    _await_replicas(step)
                first = False
                place, count = ranges.update(found)
                changed += count
            if not found_any:
                break
            in_vain = 0 if changed else in_vain + 1
        else:
            raise OnlineStepError(
                f"The backfill of {relation} would never end: a trigger or a rule keeps its UPDATE from rows "
                f"that match {where}."
            )
        length = ranges.length
    step.execute("SET lock_timeout = 0")
    step.execute(f"ANALYZE {quoted(table)}")


@dataclass
class _Ranges:
    """Updates a table range by range.

    :ivar length: of the next range, in places.
    """

    step: OnlineStep
    relation: str
    assignments: str
    where: str
    length: int

    def next_place(self, place: int) -> int | None:
        """Find the first place, from a given one on, that holds a row to update."""
        found = row(
            self.step.connection,
            "SELECT (ctid::text::point)[0]::bigint, (ctid::text::point)[1]::bigint "
            # The predicate may end with a comment.
            f"FROM ONLY {self.relation} WHERE ctid >= {_tid(place)} AND ({self.where}\n) LIMIT 1",
        )
        return found[0] * _PLACES + found[1] if found else None

    def update(self, place: int) -> tuple[int, int]:
        """Update the rows of one range.

        :returns: where the next range starts, and how many rows were updated.
        :raises OnlineStepError: when the predicate still holds for an updated row: the backfill would never
            end.
        """
        sql = (
            f"WITH updated AS (UPDATE ONLY {self.relation} SET {self.assignments}\n"
            f"WHERE ctid >= {_tid(place)} AND ctid < {_tid(place + self.length)} AND ({self.where}\n) "
            f"RETURNING ({self.where}\n) AS again) SELECT bool_or(again), count(*) FROM updated"
        )
        # Nothing shorter than a single row can be tried.
        watch = self.step.watch if self.length > 1 else None
        self._limit_waiting()
        began = time.monotonic()
        try:
            with watch.watching(sql) if watch else contextlib.nullcontext():
                endless, updated = row(self.step.connection, sql) or (None, 0)
        except psycopg2.errors.DeadlockDetected:
            if watch:
                watch.forgive()
            time.sleep(_TARGET)
            return place, 0
        except psycopg2.errors.LockNotAvailable:
            self.length //= 2
            time.sleep(4 * self._patience())  # lets those go on who have waited for these rows
            return place, 0
        except psycopg2.errors.QueryCanceled:
            if watch is None or not watch.forgive():
                raise
            self.length //= 2
            time.sleep(_TARGET)
            return place, 0
        if endless:
            raise OnlineStepError(
                f"The backfill of {self.relation} would never end: rows that it has updated still match "
                f"{self.where}."
            )
        took, following = time.monotonic() - began, place + self.length
        self._report(following)
        time.sleep(took / 4)
        too_long = watch is not None and watch.forgive()  # it had ended before it could be cancelled
        change = 0.5 if too_long else max(0.5, min(2.0, _TARGET / max(took, 0.001)))
        self.length = max(1, min(_MOST, int(self.length * change)))
        return following, updated

    def _patience(self) -> float:
        """Return the seconds that a range may wait for a row, while others wait for those that it has."""
        budget = self.step.watch.budget if self.step.watch else None
        return _WAIT_MOST if budget is None else min(_WAIT_MOST, budget / 2)

    def _limit_waiting(self) -> None:
        """Limit the wait for a row; a single row is waited for without limit, since it holds up nobody."""
        limit = f"{self._patience() * 1000:.0f}ms" if self.step.watch and self.length > 1 else "0"
        self.step.execute(f"SET lock_timeout = '{limit}'")

    def _report(self, place: int) -> None:
        size = "SELECT pg_relation_size(%s) / current_setting('block_size')::bigint"
        blocks: int = scalar(self.step.connection, size, (self.relation,))
        self.step.report(Progress(self.step.what, "updating", min(place // _PLACES, blocks), blocks))


def _tid(place: int) -> str:
    return f"'({place // _PLACES},{place % _PLACES})'::tid"


def _await_replicas(step: OnlineStep) -> None:
    """Wait while a replica lags far behind; see :meth:`ReplicaPolicy.wait`."""
    step.replicas.wait(step.onlooker, lambda phase: step.report(Progress(step.what, phase)))


def _leaves(connection: Connection, table: str) -> list[str]:
    """Return the tables that hold the rows: the table itself, or the leaves of a partitioned one."""
    sql = """
        SELECT COALESCE(leaf.relid, root.oid)::regclass::text
        FROM (SELECT %s::regclass::oid AS oid) AS root
        LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf) AS leaf ON true
    """
    return [name for (name,) in rows(connection, sql, (quoted(table),))]
