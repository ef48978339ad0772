"""The transactions of one step: each is fenced at its start, and the last one writes version and history.

A step without an online part is one transaction, so it is applied as a whole or not at all. An online part
commits what came before it; from that commit on the database is marked dirty, until the last transaction
writes the version and clears the mark.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg2
import sqlalchemy
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event

from guvnor import telemetry, typed
from guvnor.bookkeeping.patience import AT_THE_END
from guvnor.errors import GuvnorError
from guvnor.migrate import fence
from guvnor.migrate.lock_budget import LockBudget
from guvnor.migrate.locks import Locks
from guvnor.migrate.own_transaction import COMMIT_LOCALLY, EndedByItselfError, Fate, OwnTransaction
from guvnor.migrate.session import RevisionSession
from guvnor.migrate.stage import Stage
from guvnor.migrate.step_record import StepRecord
from guvnor.migrate.watch import Watch
from guvnor.online import looking_ahead, progress, small_tables
from guvnor.online.execute import OnlineStep
from guvnor.online.knock import Knock, RevisionStatement
from guvnor.online.progress import Progress
from guvnor.online.replicas import ReplicaPolicy
from guvnor.postgres import Connection, transaction
from guvnor.postgres.raw_sql import sent
from guvnor.revisions import transaction_control

log = logging.getLogger(__name__)


@dataclass
class StepTransaction:
    """Runs beside the transactions of one step, through SQLAlchemy's events and Alembic's callbacks.

    :ivar session: what the revision runs on.
    :ivar control: another connection, in autocommit mode.
    :ivar watch: measures how long the session waits for locks, and how long the application waits for it.
    :ivar record: writes what becomes of the step into the bookkeeping.
    :ivar report: is called with the progress of an online step.
    :ivar replicas: which replicas a backfill waits for, and how long.
    :ivar knock: the tables that the step knocks on.
    :ivar statement: what runs, or was run last, in the current transaction; None for the tool's own.
    :ivar check_interrupt: raises the interrupt of a signal that has arrived.
    :ivar idle: seconds that the transaction was idle before the last statement.
    """

    session: RevisionSession
    control: Connection
    locks: Locks
    watch: Watch
    record: StepRecord
    report: Callable[[Progress], None]
    replicas: ReplicaPolicy
    check_interrupt: Callable[[], None]
    knock: Knock
    stage: Stage = field(default_factory=Stage, init=False)
    idle: float = field(default=0.0, init=False)
    _ran: float = field(default=0.0, init=False)
    _own: OwnTransaction = field(default_factory=OwnTransaction, init=False)
    statement: RevisionStatement | None = field(default=None, init=False)
    _place: int = field(default=0, init=False)
    _patience: float = field(default=0.0, init=False)
    _budget: LockBudget = field(default_factory=lambda: LockBudget(0), init=False)

    @contextlib.contextmanager
    def trying(self, patience: float) -> Iterator[None]:
        """Watch over one try; when it fails, it is rolled back.

        :param patience: seconds that each of its transactions may wait for locks.
        :raises EndedByItselfError: when the revision has ended its transaction by itself.
        """
        self.stage.retry()
        self._patience = patience
        self.statement = self.watch.statement = None
        try:
            with telemetry.span("try", {"guvnor.try": self.record.retries.count}), self._listening():
                yield
            if not self.stage.finished:  # SQLAlchemy was told to end the transaction, so what remains is open
                raise EndedByItselfError(self.record.step.revision, known=True)
        except BaseException as error:
            self.watch.close_transaction()
            self.session.roll_back()
            self._mark_if_committed(error)
            raise
        finally:
            self.watch.close_transaction()
            self._count_waiting()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Be told of the transactions and statements of the session."""
        connection = self.session.connection
        listeners: dict[str, Callable[..., Any]] = {
            "begin": self._on_begin,
            "commit": self._on_commit,
            "before_cursor_execute": self._before_statement,
            "after_cursor_execute": self._after_statement,
        }
        for name, listener in listeners.items():
            event.listen(connection, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(connection, name, listener)

    def version_applied(self, **_: Any) -> None:
        """Write our own state once Alembic has written its version, in the same transaction."""
        self._count_waiting()
        self.statement = None
        with self.session.driver.cursor() as cursor:
            self._end_transaction(cursor)
            self.record_stalls()
            self.record.succeeded(cursor)
            cursor.execute(COMMIT_LOCALLY)  # whatever the revision has set
        self.locks.check_alive()
        self._commit()
        self.stage.version_written = True

    @contextlib.contextmanager
    def online_step(self, context: MigrationContext, what: str) -> Iterator[OnlineStep]:
        """Commit what came before, mark the database dirty but resumable, and run the body in autocommit."""
        if not self.stage.committed:
            looking_ahead.check(self.session.driver, self.record.step.plain)
        self.stage.online_step = what
        log.info("online step", extra={"revision": self.record.step.revision, "step": what})
        with context.autocommit_block():
            self.stage.online_step = None
            driver = self.session.driver
            self.session.prepare()  # settings that the revision made for itself must not apply here
            look = partial(progress.step, self.watch.connection, what, self.session.pid)
            try:
                with telemetry.span(what), progress.watching(look, self.report):
                    yield OnlineStep(
                        driver, self.control, self.session.pid, what, self.report, self.replicas, self.watch
                    )
            finally:
                self.report(progress.Progress(what, "", ended=True))
            self.session.prepare()

    def builds_at_once(self, name: str, sql: str) -> bool:
        """Tell whether an index needs no online step; see :mod:`guvnor.online.small_tables`."""
        return small_tables.can_be_built_at_once(self.session.driver, name, sql)

    def _on_begin(self, _: sqlalchemy.Connection) -> None:
        """Open a transaction of the revision: knock, set the lock timeout anew, and close the fence."""
        if self.session.outside:
            # The revision has left its transaction, by an online operation or by itself.
            self.watch.close_transaction()
            self.locks.let_golang_in()
            self.record.retries.leave_transaction()
            return
        self.record.retries.enter_transaction()
        self.locks.shut_out_golang()
        self._count_waiting()
        self._budget = LockBudget(self._patience)
        self.statement, self._place = None, 0
        self.watch.close_transaction()
        self.watch.open()
        with self.session.driver.cursor() as cursor:
            self.knock.ask_autovacuum(cursor, self.record.retries.remaining)
            self._count_waiting()  # nobody has queued behind the knock, so it does not count
            self._set_lock_timeout(cursor)
            fence.close(cursor, self.record.step, golang_migrate=self.record.golang_migrate)
            self._own.begin(cursor)
        self._ran = time.monotonic()

    def _on_commit(self, _: sqlalchemy.Connection) -> None:
        """Mark the database dirty when a revision commits before its end."""
        if self.session.outside:
            return
        if not self.stage.version_written:
            self._check_own_transaction()
        if not self.stage.commit():
            return
        self.statement = None
        with self.session.driver.cursor() as cursor:
            self._end_transaction(cursor)
            self._mark_dirty(cursor)
            cursor.execute(COMMIT_LOCALLY)
        self.locks.check_alive()
        self._commit()

    def _end_transaction(self, cursor: Any) -> None:
        """Do what the commit would still have to do, since a commit cannot be cancelled."""
        self.watch.check()
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def record_stalls(self) -> None:
        """Take note of how long others have waited because of the step."""
        self.record.stalled(self.watch.stall)
        if self.watch.budget is not None and self.watch.exclusive > self.watch.budget:
            self.record.standby_stalled(self.watch.exclusive)

    def _commit(self) -> None:
        """Take note that the next thing is the commit."""
        self.watch.begin_commit()
        self._own.committing = True

    def _before_statement(
        self, _c: Any, cursor: Any, statement: str, _parameters: Any, context: Any, *_: Any
    ) -> None:
        statement = sent(statement, context)
        self.check_interrupt()
        self.watch.check()
        if self.session.outside:
            self.watch.begin_statement(statement)
            self.watch.open()
            return
        self._check_own_transaction()
        self._refuse_to_end(statement)
        self.watch.begin_statement(statement)
        self._place += 1
        self.statement = RevisionStatement(self._place, statement)
        self._set_lock_timeout(cursor)
        self.knock.before(self.session.driver, self.statement)

    def _refuse_to_end(self, statement: str) -> None:
        step = self.record.step
        if words := transaction_control.ending(statement):
            raise GuvnorError(
                transaction_control.refusal(step.revision, step.direction, words),
                next_step=f"Delete that statement from the revision, then: {typed.going(step.direction)}",
            )

    def _after_statement(self, *_: Any) -> None:
        if self.session.outside:
            self.watch.close_transaction()
        self._ran = time.monotonic()

    def _set_lock_timeout(self, cursor: Any) -> None:
        if timeout := self._budget.timeout(self.watch.waited):
            cursor.execute(f"SET LOCAL lock_timeout = '{timeout}'")

    def _count_waiting(self) -> None:
        self.record.lock_wait += self.watch.waited
        self.watch.waited = 0.0

    def _mark_dirty(self, cursor: Any) -> None:
        """Write, in the cursor's transaction, that the revision is half done from here on."""
        self.record.half_done(cursor, self.stage)
        self.stage.committed = True

    def _check_own_transaction(self) -> None:
        """Check whether the revision has ended its transaction.

        What it runs from then on would be committed apart from the version, and without a lock timeout.

        :raises EndedByItselfError: when it has.
        """
        self.idle = time.monotonic() - self._ran
        if not self._own.is_open(self.session.driver):
            raise self._ended_by_itself()

    def _ended_by_itself(self) -> EndedByItselfError:
        return EndedByItselfError(self.record.step.revision, self.watch.statement)

    def _mark_if_committed(self, error: BaseException) -> None:
        """Mark the database dirty when the transaction of a failed try is committed: its SQL did that.

        :param error: what the try failed with.
        :raises EndedByItselfError: instead of that when the mark cannot be written.
        """
        own, self._own = self._own, OwnTransaction()
        if own.id is None:
            return
        fate = own.fate(self.control)
        self.stage.still_open = fate is Fate.IN_PROGRESS
        if fate is not Fate.COMMITTED or own.committing:
            return
        self.stage.online_step = None
        self.stage.ended_by_itself = True
        self.stage.commit()
        try:
            with transaction(self.control) as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{AT_THE_END * 1000:.0f}ms'")
                self._mark_dirty(cursor)
        except psycopg2.Error:
            raise self._ended_by_itself() from error
