"""Waiting for the bookkeeping tables while somebody else has locked them: not in silence, nor without end.

A connection that reads or writes them waits a second at a time, names who is in the way, and notices signals
in between. Only who needs such a table, too, queues behind it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg2

from guvnor import typed
from guvnor.bookkeeping.tables import BOOKKEEPING_TABLES
from guvnor.errors import ExitCode, GuvnorError
from guvnor.online import blockers
from guvnor.postgres import Connection, set_lock_timeout

log = logging.getLogger(__name__)

AT_THE_END = 1.0  # seconds to wait for these tables when a step has ended, whatever is recorded of it

_SLICE = 1.0  # seconds that one statement waits

_Result = TypeVar("_Result")


class BookkeepingBusyError(GuvnorError):
    """The tables of the version and the history were locked by somebody else for too long."""

    exit_code = ExitCode.LOCKED
    state = "Nothing was changed meanwhile; revisions that were applied before stay applied."


def wait_for_tables(connection: Connection, max_wait: float, work: Callable[[], _Result]) -> _Result:
    """Do work on the bookkeeping tables, again and again while somebody else has locked one of them.

    :param connection: in autocommit mode, before and after the work; its lock timeout is ``max_wait`` then.
    :param max_wait: seconds to go on trying.
    :param work: either a single statement or a transaction, so that it can be done again.
    :raises BookkeepingBusyError: when the time is up (exit code 7).
    """
    deadline = time.monotonic() + max_wait
    told: list[int] | None = None
    try:
        while True:
            remaining = deadline - time.monotonic()
            set_lock_timeout(connection, min(_SLICE, max(remaining, 0.0)))
            try:
                return work()
            except psycopg2.errors.LockNotAvailable:
                found = blockers.holders_of_tables(
                    connection, BOOKKEEPING_TABLES
                ) or blockers.holders_of_tables(
                    connection, BOOKKEEPING_TABLES, "AccessExclusiveLock"
                )  # which an older history is completed under, once
                who = blockers.named(found)
                if deadline <= time.monotonic():
                    raise BookkeepingBusyError(
                        "Could not use the tables of the version and the history within "
                        f"{max_wait:.0f} s. In the way: {who}.",
                        next_step=f"{typed.again(when='once that transaction has ended')}"
                        f"{blockers.ways_out(found)}",
                    ) from None
            if told != (pids := [blocker.pid for blocker in found]):
                log.warning(f"waiting for the tables of the version and the history: {who}")
                told = pids
    finally:
        with contextlib.suppress(psycopg2.Error):
            set_lock_timeout(connection, max_wait)
