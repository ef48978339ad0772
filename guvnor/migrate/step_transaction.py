"""The transactions of one step: each is fenced at its start, and the last one writes version and history.

A step without an online part is one transaction, so it is applied as a whole or not at all. An online part
commits what came before it; from that commit on the database is marked dirty, until the last transaction
writes the version and clears the mark.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext
from psycopg2 import extensions
from sqlalchemy import event

from guvnor.errors import GuvnorError
from guvnor.migrate import fence
from guvnor.migrate.lock_budget import LockBudget
from guvnor.migrate.locks import Locks
from guvnor.migrate.session import RevisionSession
from guvnor.migrate.stage import Stage
from guvnor.migrate.step_record import StepRecord
from guvnor.online import progress, small_tables
from guvnor.online.blockers import LockMonitor
from guvnor.online.execute import OnlineStep
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, prepare

log = logging.getLogger(__name__)


@dataclass
class StepTransaction:
    """Runs beside the transactions of one step, through SQLAlchemy's events and Alembic's callbacks.

    :ivar session: what the revision runs on.
    :ivar control: another connection, in autocommit mode.
    :ivar monitor: measures how long the session waits for locks.
    :ivar record: writes what becomes of the step into the bookkeeping.
    :ivar report: is called with the progress of an online step.
    """

    session: RevisionSession
    control: Connection
    locks: Locks
    monitor: LockMonitor
    record: StepRecord
    report: Callable[[Progress], None]
    stage: Stage = field(default_factory=Stage, init=False)
    _patience: float = field(default=0.0, init=False)
    _budget: LockBudget = field(default_factory=lambda: LockBudget(0), init=False)

    @contextlib.contextmanager
    def trying(self, patience: float) -> Iterator[None]:
        """Watch over one try.

        :param patience: seconds that each of its transactions may wait for locks.
        :raises GuvnorError: when the revision has ended its transaction by itself.
        """
        self.stage.retry()
        self._patience = patience
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
            if not self.stage.finished:  # the transaction had ended before Alembic's commit
                raise self._ended_by_itself()
        finally:
            self.monitor.polling.clear()
            self._count_waiting()
            for name, listener in listeners.items():
                event.remove(connection, name, listener)

    def version_applied(self, **_: Any) -> None:
        """Write our own state once Alembic has written its version, in the same transaction."""
        self._count_waiting()
        with self.session.driver.cursor() as cursor:
            self.record.succeeded(cursor)
        self.locks.check_alive()
        self.stage.version_written = True

    @contextlib.contextmanager
    def online_step(self, context: MigrationContext, what: str) -> Iterator[OnlineStep]:
        """Commit what came before, mark the database dirty but resumable, and run the body in autocommit."""
        self.stage.online_step = what
        log.info("online step", extra={"revision": self.record.step.revision, "step": what})
        with context.autocommit_block():
            self.stage.online_step = None
            driver = self.session.driver
            prepare(driver)  # settings that the revision made for itself must not apply here
            look = partial(progress.step, self.control, what, self.session.pid)
            with progress.watching(look, self.report):
                yield OnlineStep(driver, self.control, self.session.pid, what, self.report)
            prepare(driver)

    def builds_at_once(self, name: str, sql: str) -> bool:
        """Tell whether an index needs no online step; see :mod:`guvnor.online.small_tables`."""
        return small_tables.can_be_built_at_once(self.session.driver, name, sql)

    def _on_begin(self, _: sqlalchemy.Connection) -> None:
        """Open a transaction of the revision: set the lock timeout anew, and close the fence."""
        if self.session.outside:
            # The revision has left its transaction, by an online operation or by itself.
            self.locks.let_golang_in()
            self.record.retries.leave_transaction()
            return
        self.record.retries.enter_transaction()
        self.locks.shut_out_golang()
        self._count_waiting()
        self._budget = LockBudget(self._patience)
        with self.session.driver.cursor() as cursor:
            self._set_lock_timeout(cursor)
            fence.close(cursor, self.record.step, golang_migrate=self.record.golang_migrate)

    def _on_commit(self, _: sqlalchemy.Connection) -> None:
        """Mark the database dirty when a revision commits before its end."""
        if self.session.outside or not self.stage.commit():
            return
        self._mark_dirty()
        self.locks.check_alive()

    def _before_statement(self, _c: Any, cursor: Any, _statement: str, *_: Any) -> None:
        if not self.session.outside:
            self._check_own_transaction()
            self._set_lock_timeout(cursor)
        self.monitor.polling.set()

    def _after_statement(self, *_: Any) -> None:
        self.monitor.polling.clear()
        if not self.session.outside:
            self._check_own_transaction()

    def _set_lock_timeout(self, cursor: Any) -> None:
        if timeout := self._budget.timeout(self.monitor.waited):
            cursor.execute(f"SET LOCAL lock_timeout = '{timeout}'")

    def _count_waiting(self) -> None:
        self.record.lock_wait += self.monitor.waited
        self.monitor.waited = 0.0

    def _mark_dirty(self) -> None:
        """Write, in the current transaction, that the revision is half done from here on."""
        with self.session.driver.cursor() as cursor:
            self.record.half_done(cursor, self.stage)
        self.stage.committed = True

    def _check_own_transaction(self) -> None:
        """Check whether the revision ended its transaction behind the driver's back, by a COMMIT in its SQL.

        From then on every statement would be committed at once, separately from the version.

        :raises GuvnorError: when it has; the database is marked dirty then.
        """
        driver = self.session.driver
        ended = driver.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        if not ended or driver.status != extensions.STATUS_BEGIN:
            return
        driver.rollback()
        self.stage.online_step = None
        self.stage.commit()
        self._mark_dirty()
        driver.commit()
        raise self._ended_by_itself()

    def _ended_by_itself(self) -> GuvnorError:
        return GuvnorError(
            f"Revision {self.record.step.revision} ended its transaction by itself, "
            "with a COMMIT or ROLLBACK."
        )
