"""The transaction of one step: fenced at its begin, with version and history at its end, dirty in between.

A step without an online part is one transaction, so it is applied or not. One with an online part commits
what came before it; from that commit on the database is marked dirty, until the last transaction clears the
mark with the version.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext
from psycopg2 import extensions
from sqlalchemy import event

from guvnor.bookkeeping import history, state, versions
from guvnor.errors import GuvnorError
from guvnor.migrate import fence
from guvnor.migrate.lock_budget import LockBudget
from guvnor.migrate.locks import Locks
from guvnor.migrate.retries import Retries
from guvnor.migrate.session import RevisionSession
from guvnor.migrate.stage import Stage
from guvnor.online import progress
from guvnor.online.blockers import LockMonitor
from guvnor.online.execute import OnlineStep
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, prepare
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)


class TransactionEndedError(GuvnorError):
    """A revision ended its transaction by itself."""


class StepTransaction:
    """Runs beside the transactions of one step, through SQLAlchemy's events and Alembic's callbacks."""

    def __init__(
        self,
        session: RevisionSession,
        control: Connection,
        locks: Locks,
        monitor: LockMonitor,
        retries: Retries,
        step: Step,
        record: history.Attempt,
        *,
        golang_migrate: bool,
        report: Callable[[Progress], None],
    ) -> None:
        """Begin a step.

        :param session: what the revision runs on.
        :param control: another connection, in autocommit mode.
        :param monitor: measures how long the session waits for locks.
        :param record: what the history says of this attempt at the step.
        :param golang_migrate: whether golang-migrate's table is kept in step.
        :param report: is told how far an online step is.
        """
        self.stage = Stage()
        self.lock_wait = 0.0  # seconds, over all tries
        self._session = session
        self._control = control
        self._locks = locks
        self._monitor = monitor
        self._retries = retries
        self._step = step
        self._record = record
        self._golang_migrate = golang_migrate
        self._report = report
        self._budget = LockBudget(0)

    def figures(self) -> dict[str, int]:
        """Return what is recorded at the end."""
        return {
            "duration_ms": round((time.monotonic() - self._retries.began) * 1000),
            "lock_wait_ms": round(self.lock_wait * 1000),
            "tries": self._retries.count,
        }

    @contextlib.contextmanager
    def trying(self, patience: float) -> Iterator[None]:
        """Watch over one try.

        :param patience: seconds that a transaction of it may wait for locks.
        :raises TransactionEndedError: when the revision has ended its transaction by itself.
        """
        self.stage.retry()
        self._patience = patience
        connection = self._session.connection
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
            if not self.stage.finished:  # Alembic's commit was that of a transaction long gone
                raise self._ended_by_itself()
        finally:
            self._monitor.statement_ended()
            self._count_waiting()
            for name, listener in listeners.items():
                event.remove(connection, name, listener)

    def version_applied(self, **_: Any) -> None:
        """Write our own state when Alembic has written its version, in the same transaction."""
        self._count_waiting()
        with self._session.driver.cursor() as cursor:
            if self._golang_migrate:
                versions.write_golang(cursor, number(self._step.to_version) or None, dirty=False)
            history.record(cursor, self._record, "succeeded", **self.figures())
        self._locks.check_alive()
        self.stage.version_written = True

    @contextlib.contextmanager
    def online_step(self, context: MigrationContext, what: str) -> Iterator[OnlineStep]:
        """Commit what came before, marked dirty and resumable, and give a connection in autocommit mode."""
        self.stage.online_step = what
        log.info("online step", extra={"revision": self._step.revision, "step": what})
        with context.autocommit_block():
            self.stage.online_step = None
            driver = self._session.driver
            prepare(driver)  # what the revision has set for itself does not hold here
            look = partial(progress.step, self._control, what, self._session.pid)
            with progress.watching(look, self._report):
                yield OnlineStep(driver, self._control, self._session.pid, what, self._report)
            prepare(driver)

    def _on_begin(self, _: sqlalchemy.Connection) -> None:
        """Open a transaction of the revision: timeouts anew, and a look whether it is still ours to run."""
        if self._session.outside:
            # The revision has left its transaction, by an online operation or by itself.
            self._locks.let_golang_in()
            self._retries.leave_transaction()
            return
        self._retries.enter_transaction()
        self._locks.shut_out_golang()
        self._count_waiting()
        self._budget = LockBudget(self._patience)
        with self._session.driver.cursor() as cursor:
            self._set_lock_timeout(cursor)
            fence.close(cursor, self._step, golang_migrate=self._golang_migrate)

    def _on_commit(self, _: sqlalchemy.Connection) -> None:
        """Mark the database dirty when a revision commits before its end."""
        if self._session.outside or not self.stage.commit():
            return
        with self._session.driver.cursor() as cursor:
            self._mark_dirty(cursor)
        self._locks.check_alive()

    def _before_statement(self, _c: Any, cursor: Any, _statement: str, *_: Any) -> None:
        if not self._session.outside:
            self._check_own_transaction()
            self._set_lock_timeout(cursor)
        self._monitor.statement_begins()

    def _after_statement(self, *_: Any) -> None:
        self._monitor.statement_ended()
        if not self._session.outside:
            self._check_own_transaction()

    def _set_lock_timeout(self, cursor: Any) -> None:
        if timeout := self._budget.timeout(self._monitor.waited):
            cursor.execute(f"SET LOCAL lock_timeout = '{timeout}'")

    def _count_waiting(self) -> None:
        self.lock_wait += self._monitor.waited
        self._monitor.waited = 0.0

    def _mark_dirty(self, cursor: Any) -> None:
        """Write, in the current transaction, that the revision is half done from here on."""
        stage = self.stage
        if not stage.committed and self._golang_migrate:
            versions.write_golang(cursor, number(self._step.to_version) or state.NO_VERSION, dirty=True)
        stage.committed = True
        history.record(
            cursor,
            self._record,
            "online",
            step=stage.online_step or "a part outside a transaction",
            resumable=stage.online_step is not None,
        )

    def _check_own_transaction(self) -> None:
        """Look whether the revision has ended its transaction behind the driver's back: COMMIT in its SQL.

        From then on every statement would be committed at once, and the version with none of them.

        :raises TransactionEndedError: when it has; the database is marked dirty then.
        """
        driver = self._session.driver
        ended = driver.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        if not ended or driver.status != extensions.STATUS_BEGIN:
            return
        driver.rollback()
        self.stage.online_step = None
        self.stage.commit()
        with driver.cursor() as cursor:
            self._mark_dirty(cursor)
        driver.commit()
        raise self._ended_by_itself()

    def _ended_by_itself(self) -> TransactionEndedError:
        return TransactionEndedError(
            f"Revision {self._step.revision} ended its transaction by itself, with a COMMIT or ROLLBACK."
        )
