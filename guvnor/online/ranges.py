"""A statement that changes many rows, run range by range, each range in a transaction of its own.

A range of rows by their place is a TID range scan (PostgreSQL 14 and later), so that the whole takes one pass
over the table, however small the ranges are. An UPDATE writes new row versions to other blocks, so the passes
are repeated until one finds no row. A range becomes larger or smaller with the time that the last one took,
and half as long when the application had to wait for it: down to a single row.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg2

from guvnor.online.execute import OnlineStep
from guvnor.online.progress import Progress
from guvnor.postgres import row, scalar
from guvnor.postgres.quoting import quoted

_TARGET = 0.2  # seconds that one range should take
_PLACES = 2048  # in a block, more than it can hold rows; a range is counted in places
FIRST = 32 * _PLACES
_MOST = 16384 * _PLACES
_WAIT_MOST = 0.2  # seconds
_OF_THE_ROW = ("22", "23", "44", "P0")  # classes of SQLSTATE: what a row holds is refused, not the statement


@dataclass
class Ranges:
    """Changes a table range by range.

    :ivar relation: the table whose places are counted, as SQL writes it.
    :ivar source: the same as it stands after FROM, with an alias where the predicate needs one.
    :ivar pending: which rows are still to be done.
    :ivar change: returns the statement for a range, given the condition on ``ctid``; it returns one row.
    :ivar length: of the next range, in places.
    :ivar refused: takes the places of single rows that the server refuses, and why; None where that is an
        error.
    :ivar target: seconds that one range should take.
    :ivar rest: how long to pause after a range, as a share of the time that it took.
    :ivar doing: what happens to the rows, as progress says it.
    """

    step: OnlineStep
    relation: str
    source: str
    pending: str
    change: Callable[[str], str]
    length: int = FIRST
    refused: dict[str, str] | None = None
    target: float = _TARGET
    rest: float = 0.25
    doing: str = "backfilling"

    def work_off(self, count: Callable[[tuple[Any, ...]], int], *, in_vain_most: int, pause: bool) -> bool:
        """Go over the table until a pass finds no row.

        :param count: returns how many rows a statement has changed, given the row that it returned.
        :param in_vain_most: passes, one after the other, that may find rows and change none.
        :param pause: whether to wait for replicas before the first range, too.
        :returns: whether no row is left.
        """
        in_vain = 0
        while in_vain < in_vain_most:
            place, found_any, changed = 0, False, 0
            while (found := self._next_place(place)) is not None:
                found_any = True
                if pause:  # so the last range is followed by no wait
                    await_replicas(self.step)
                pause = True
                place, returned = self._run(found)
                changed += count(returned) if returned else 0
            if not found_any:
                return True
            in_vain = 0 if changed else in_vain + 1
        return False

    def _next_place(self, place: int) -> int | None:
        """Find the first place, from a given one on, that holds a row to change."""
        found = row(
            self.step.connection,
            "SELECT (ctid::text::point)[0]::bigint, (ctid::text::point)[1]::bigint "
            # The predicate may end with a comment.
            f"FROM {self.source} WHERE ctid >= {_tid(place)} AND ({self.pending}\n) LIMIT 1",
        )
        return found[0] * _PLACES + found[1] if found else None

    def _run(self, place: int) -> tuple[int, tuple[Any, ...] | None]:
        """Change the rows of one range.

        :returns: where the next range starts, and the row that the statement returned; None where it was
            given up.
        """
        sql = self.change(f"ctid >= {_tid(place)} AND ctid < {_tid(place + self.length)}")
        # Nothing shorter than a single row can be tried.
        watch = self.step.watch if self.length > 1 else None
        self._limit_waiting()
        began = time.monotonic()
        try:
            with watch.watching(sql) if watch else contextlib.nullcontext():
                returned = row(self.step.connection, sql)
        except psycopg2.errors.DeadlockDetected:
            if watch:
                watch.forgive()
            time.sleep(_TARGET)
            return place, None
        except psycopg2.errors.LockNotAvailable:
            self.length = max(1, self.length // 2)
            time.sleep(4 * self._patience())  # lets those go on who have waited for these rows
            return place, None
        except psycopg2.errors.QueryCanceled:
            if watch is None or not watch.forgive():
                raise
            self.length //= 2
            time.sleep(_TARGET)
            return place, None
        except psycopg2.Error as error:
            if self.refused is None or not (error.pgcode or "").startswith(_OF_THE_ROW):
                raise
            if self.length > 1:
                self.length //= 2
                return place, None
            self.refused[_tid(place)] = error.diag.message_primary or ""
            return place + 1, None
        took, following = time.monotonic() - began, place + self.length
        self._report(following)
        time.sleep(took * self.rest)
        too_long = watch is not None and watch.forgive()  # it had ended before it could be cancelled
        change = 0.5 if too_long else max(0.5, min(2.0, self.target / max(took, 0.001)))
        self.length = max(1, min(_MOST, int(self.length * change)))
        return following, returned

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
        self.step.report(Progress(self.step.what, self.doing, min(place // _PLACES, blocks), blocks))


def _tid(place: int) -> str:
    return f"'({place // _PLACES},{place % _PLACES})'::tid"


def await_replicas(step: OnlineStep) -> None:
    """Wait while a replica lags far behind; see :meth:`ReplicaPolicy.wait`."""
    step.replicas.wait(step.onlooker, lambda phase: step.report(Progress(step.what, phase)))


def finish(step: OnlineStep, table: str) -> None:
    """Leave the session as it was, and let the planner know the new rows."""
    step.execute("SET lock_timeout = 0")
    step.execute(f"ANALYZE {quoted(table)}")
