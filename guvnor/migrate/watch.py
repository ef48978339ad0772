"""The watch over a revision: whoever waits because of its locks waits no longer than the budget allows.

A connection of its own looks every few milliseconds, while a transaction of the revision is open, whether the
revision waits for a lock and who waits because of it. Over the budget it cancels the revision's statement
(libpq's cancel request, which needs no privilege); where Python runs between two statements, it closes the
revision's connection. Either way the server rolls the transaction back, and everybody goes on.

A watch that is lost, or gets no answer, stops the revision as well: it fails closed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import psycopg2
from psycopg2 import extensions

from guvnor.errors import GuvnorError
from guvnor.migrate import stalls
from guvnor.migrate.stalls import Blame, Stall, Waiter, WaitersBehind
from guvnor.online import blockers
from guvnor.online.blockers import Blocker, Wanted
from guvnor.postgres import Connection, cancellation

_INTERVAL = 0.01  # seconds between two looks
_COARSE = 0.05  # the same where every look has to copy all locks
_IDLE_MOST = 0.05  # seconds that a stopped revision may take to run its next statement, which fails
_CANCELLED_MOST = 0.5  # seconds in which a cancelled statement ends, unless the server does not look
_EXPLAINED_FROM = 0.6  # of the budget: from then on it is read who waits, and for what
_LATE = 0.1  # seconds
_AGAIN = 0.2  # seconds between two cancellations: one may reach the server before its statement does
_LAST = 1.0  # seconds in which the last look is answered
_ANSWER = 5.0  # seconds in which a look is answered where there is no budget


class WatchLostError(GuvnorError):
    """The watch was lost: nobody could see any more whether this made the application wait."""

    repeat_when = ""


class StoppedError(Exception):
    """The watch has stopped the revision, which wants to run another statement."""


class Watched(Protocol):
    """A session that is watched: the pid of its backend, and the driver's connection."""

    @property
    def pid(self) -> int:
        """The pid of its backend."""

    @property
    def driver(self) -> Any:
        """The driver's connection."""


class Watch:
    """Watches a session from another connection, in threads.

    :ivar waited: seconds that the session has waited for locks in its current transaction.
    :ivar blockers: who was in the way of its last wait.
    :ivar wanted: the lock that this wait was for.
    :ivar stall: the longest wait of the application because of the current step.
    :ivar stopped: the wait for which the watch has stopped the step.
    :ivar lost: whether the watch can see no more.
    :ivar cut: whether it has closed the session's connection.
    :ivar exclusive: seconds for which the current step has held ACCESS EXCLUSIVE while a standby is there.
    :ivar statement: what the session has run last.
    :ivar budget: seconds that the application may wait because of the current step; None for no limit.
    :ivar committing: whether its transaction is being committed, which nothing must interrupt.
    """

    def __init__(self, connection: Connection, session: Watched) -> None:
        """Start to watch a session.

        :param connection: in autocommit mode, for this alone.
        """
        self.connection = connection
        self.waited = 0.0
        self.blockers: tuple[Blocker, ...] = ()
        self.wanted: Wanted | None = None
        self.stall = Stall()
        self.stopped: Stall | None = None
        self.lost = self.cut = False
        self.exclusive = 0.0
        self.statement: str | None = None
        self.committing = False
        self._session = session
        self._driver = session.driver  # which a thread must not ask for: SQLAlchemy may connect again
        self._sees_everybody = self._choose_role()
        self.budget: float | None = None
        self._statement_began = 0.0
        self._blame = Blame()
        self._explained = Stall()
        self._explained_wait: tuple[int, float] | None = None
        self._active_at = 0.0
        self._sessions: set[int] = set()
        self._behind = WaitersBehind(session.pid, 0.0)
        self._described: list[int] | None = None  # the blockers of this wait that are known already
        self._waiting_since: float | None = None
        self._standby = False
        self._exclusive_since: float | None = None
        self._asked = self._looked_at_locks = 0.0
        self._asking = False
        self._closed = threading.Event()
        self._open = threading.Event()
        self._stopping = threading.Lock()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("watch", self._look), ("watch of the watch", self._await_answers))
        ]
        for thread in self._threads:
            thread.start()

    def _choose_role(self) -> bool:
        """Act as the role that sees most, and tell whether it sees everybody.

        A login sees its own sessions at least; the role that it acts as may see none of them.
        """
        if stalls.sees_everybody(self.connection):
            return True
        with self.connection.cursor() as cursor:
            cursor.execute("SET ROLE NONE")
        return stalls.sees_everybody(self.connection)

    def close(self) -> None:
        """Stop watching, without waiting for a server that does not answer."""
        self._closed.set()
        self._open.set()
        for thread in self._threads:
            thread.join(_LAST)
            if thread.is_alive():
                cancellation.cut(self.connection)
                thread.join()

    def begin_step(self, budget: float | None) -> None:
        """Begin to count for another step.

        :param budget: seconds that the application may wait because of it; None for no limit.
        :raises WatchLostError: when the watch is lost.
        """
        self.stall, self.stopped, self.blockers, self._sessions = Stall(), None, (), set()
        self.budget, self.exclusive = budget, 0.0
        timeout = budget / 2 if budget is not None else _ANSWER
        try:
            with self.connection.cursor() as cursor:
                # Nobody waits because of the step yet, so a slow moment of the server may pass.
                cursor.execute(f"SET statement_timeout = {round(_ANSWER * 1000)}")
                self._standby = stalls.has_standby(self.connection)
                cursor.execute(f"SET statement_timeout = {max(1, round(timeout * 1000))}")
        except psycopg2.Error:
            self.lost = True
        self.check()

    def check(self) -> None:
        """Check that the revision may go on.

        :raises WatchLostError: when the watch is lost.
        :raises StoppedError: when it has stopped the revision.
        """
        if self.lost and self.budget is not None:
            raise WatchLostError
        if self.stopped is not None:
            raise StoppedError

    @contextlib.contextmanager
    def watching(self, statement: str) -> Iterator[None]:
        """Watch while the body runs a statement in a transaction of its own."""
        self.begin_statement(statement)
        self.open()
        try:
            yield
        finally:
            self.close_transaction()

    def begin_statement(self, statement: str | None) -> None:
        """Take note of what the session runs next."""
        self.statement, self._statement_began = statement, time.monotonic()
        self.wanted = None

    def open(self) -> None:
        """Watch from now on: the session is in a transaction.

        :raises WatchLostError: when the watch is lost.
        :raises StoppedError: when it has stopped the revision.
        """
        self.check()
        if self._open.is_set():
            return
        self.committing, self.wanted = False, None
        self._driver = self._session.driver
        self._behind = WaitersBehind(self._session.pid, time.monotonic())
        self._waiting_since = self._described = self._exclusive_since = None
        self._open.set()

    def begin_commit(self) -> None:
        """Stop nothing from here on: the next thing is the commit.

        :raises WatchLostError: when the watch is lost.
        :raises StoppedError: when it has stopped the revision.
        """
        with self._stopping:
            self.check()
            self.committing = True

    def close_transaction(self) -> None:
        """Watch no longer: a cancellation that is on its way has arrived when this returns."""
        self._open.clear()
        with self._stopping:
            pass

    def forgive(self) -> bool:
        """Let a step go on that was stopped, and tell whether it was: it will do less at once."""
        was_stopped, self.stopped = self.stopped is not None, None
        return was_stopped

    def _look(self) -> None:
        while True:
            self._open.wait()
            if self._closed.wait(_INTERVAL):
                return
            if not self._open.is_set():
                self._asking = False
                continue
            try:
                if not self._asking:
                    self._asked, self._asking = time.monotonic(), True
                self._look_once()
                self._asking = False
            except psycopg2.errors.QueryCanceled:
                pass  # the server was slow for once; how long it may be, the watch of the watch knows
            except Exception:  # noqa: BLE001 - such as a text that cannot be decoded; unseen means lost
                self._asking = False
                self._lose()
                return

    def _await_answers(self) -> None:
        """Notice that a look gets no answer: its thread waits for the network."""
        while not self.lost:
            self._open.wait()
            began = time.monotonic()
            if self._closed.wait(_INTERVAL):
                return
            if time.monotonic() - began > _LATE:  # this process itself was late, and so is the look
                self._asked = time.monotonic()
            late = self._asking and time.monotonic() - self._asked > (self.budget or _ANSWER)
            if late and self._open.is_set():
                self._lose()

    def _lose(self) -> None:
        if self._closed.is_set() or self.lost:
            return
        self.lost = True
        if self.budget is not None:
            self._stop(self._behind)
        cancellation.cut(self.connection)

    def _look_once(self) -> None:
        transaction = self._behind
        pids: list[int] = []
        look_at_locks = self._asked - self._looked_at_locks >= _COARSE
        if look_at_locks:
            self._looked_at_locks = self._asked
        if self._sees_everybody:
            pids = stalls.waiting_pids(self.connection)
            in_the_way = self._read_blockers() if self._session.pid in pids else None
        else:
            in_the_way = self._read_blockers()
            pids = stalls.waiting_pids_of_locks(self.connection) if look_at_locks else []
        if not self._is_open(transaction):
            return
        if self._driver.info.transaction_status == extensions.TRANSACTION_STATUS_ACTIVE:
            self._active_at = time.monotonic()
        self._count_wait(in_the_way)
        if self._standby and look_at_locks:
            self._count_exclusive()
        if others := [pid for pid in pids if pid != self._session.pid]:
            waiters = transaction.read(self.connection, others)
            if waiters and self._is_open(transaction):
                self._count_stall(transaction, waiters)

    def _read_blockers(self) -> list[int] | None:
        """Return who is in the way of the session, and describe them once; None when it does not wait."""
        pids = blockers.blocking_pids(self.connection, self._session.pid)
        if pids and pids != self._described:
            self.wanted, self.blockers = blockers.waits_for(self.connection, self._session.pid, pids)
            located = bool(self.blockers and self.blockers[0].table)
            self._described = pids if located else None
        return pids

    def _count_wait(self, in_the_way: list[int] | None) -> None:
        now = time.monotonic()
        if in_the_way is None:
            self._waiting_since = self._described = None
            return
        self.waited += now - (self._waiting_since or now - _INTERVAL)
        self._waiting_since = now

    def _count_exclusive(self) -> None:
        """Count for how long the session holds ACCESS EXCLUSIVE on a table that others know."""
        if not stalls.holds_access_exclusive(self.connection, self._session.pid):
            self._exclusive_since = None
            return
        self._exclusive_since = self._exclusive_since or self._asked
        self.exclusive = max(self.exclusive, time.monotonic() - self._exclusive_since)

    def _is_open(self, transaction: WaitersBehind) -> bool:
        return (
            self._open.is_set()
            and self._behind is transaction
            and not (self.committing or self._closed.is_set())
        )

    def _count_stall(self, transaction: WaitersBehind, waiters: list[Waiter]) -> None:
        """Count who waits because of the session, and stop it over the budget."""
        self._sessions.update(waiter.pid for waiter in waiters)
        longest = time.monotonic() - waiters[0].since
        self._blame.count(waiters[0], self.statement, self._statement_began)
        if longest >= self.stall.seconds:
            self.stall = Stall(longest, len(self._sessions), self._blame.statement)
        else:
            self.stall = replace(self.stall, sessions=len(self._sessions))
        if self.budget is None or self.stopped is not None or longest < self.budget * _EXPLAINED_FROM:
            return
        wait = (waiters[0].pid, waiters[0].began)
        if self._explained_wait != wait:  # before it is urgent
            self._explained_wait = wait
            self._explained = stalls.explained(self.connection, self._session.pid, waiters)
        if longest < self.budget:
            return
        idle = time.monotonic() - self._active_at > _IDLE_MOST
        statement, sessions = self._blame.statement, len(waiters)
        stall = replace(self._explained, seconds=longest, sessions=sessions, statement=statement, idle=idle)
        with self._stopping:
            if not self._is_open(transaction):
                return
            self.stopped = stall
        self._asking = False  # what follows asks nothing
        self._stop(transaction)

    def _stop(self, transaction: WaitersBehind) -> None:
        """Cancel what the session runs, or cut it off where it runs nothing, until it has ended."""
        driver = self._driver
        first: float | None = None
        cancelled: float | None = None
        idle_since: float | None = None
        while True:
            with self._stopping:
                if not self._is_open(transaction):
                    return
                now, status = time.monotonic(), driver.info.transaction_status
                if status == extensions.TRANSACTION_STATUS_IDLE:
                    return
                if status == extensions.TRANSACTION_STATUS_ACTIVE:
                    idle_since = None
                    first = first or now
                    if now - first > _CANCELLED_MOST:
                        self._cut(driver)
                        return
                    if cancelled is None or now - cancelled > _AGAIN:
                        cancellation.cancel(driver)
                        cancelled = now
                elif idle_since is None:
                    idle_since = now
                elif now - idle_since > _IDLE_MOST:
                    self._cut(driver)
                    return
            time.sleep(_INTERVAL)

    def _cut(self, driver: Connection) -> None:
        self.cut = True
        cancellation.cut(driver)
