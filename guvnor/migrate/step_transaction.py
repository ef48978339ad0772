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
from guvnor.online import progress
from guvnor.online.blockers import LockMonitor
from guvnor.online.execute import OnlineStep
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, prepare
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)


@dataclass
class Stage:
    """How far a step is with its transactions.

    :ivar committed: whether a part of it is committed and the database marked dirty.
    :ivar resumable: whether every part that is committed can be run again.
    :ivar online_step: the online step that is about to begin.
    :ivar version_written: whether the version is written, so that the next commit is the last one.
    :ivar finished: whether that commit was made.
    """

    committed: bool = False
    resumable: bool = True
    online_step: str | None = None
    version_written: bool = False
    finished: bool = False

    def commit(self) -> bool:
        """Take note of a commit, and tell whether it marks the database dirty, as all but the last one do."""
        if self.version_written:
            self.finished = True
            return False
        self.resumable = self.resumable and self.online_step is not None
        return True

    def retry(self) -> None:
        """Begin another try; what is committed stays."""
        self.version_written = self.finished = False


@dataclass
class StepTransaction:
    """Runs beside the transactions of one step, through SQLAlchemy's events and Alembic's callbacks.

    :ivar session: what the revision runs on.
    :ivar control: another connection, in autocommit mode.
    :ivar monitor: measures how long the session waits for locks.
    :ivar record: what the history says about this attempt at the step.
    :ivar golang_migrate: whether golang-migrate's table is kept in step.
    :ivar report: is called with the progress of an online step.
    :ivar lock_wait: seconds waited for locks, over all tries.
    """

    session: RevisionSession
    control: Connection
    locks: Locks
    monitor: LockMonitor
    retries: Retries
    step: Step
    record: history.Attempt
    golang_migrate: bool
    report: Callable[[Progress], None]
    stage: Stage = field(default_factory=Stage, init=False)
    lock_wait: float = field(default=0.0, init=False)
    _patience: float = field(default=0.0, init=False)
    _budget: LockBudget = field(default_factory=lambda: LockBudget(0), init=False)

    def figures(self) -> dict[str, int]:
        """Return the figures that are recorded at the end."""
        return {
            "duration_ms": round((time.monotonic() - self.retries.began) * 1000),
            "lock_wait_ms": round(self.lock_wait * 1000),
            "tries": self.retries.count,
        }

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
            if self.golang_migrate:
                versions.write_golang(cursor, number(self.step.to_version) or None, dirty=False)
            history.record(cursor, self.record, "succeeded", **self.figures())
        self.locks.check_alive()
        self.stage.version_written = True

    @contextlib.contextmanager
    def online_step(self, context: MigrationContext, what: str) -> Iterator[OnlineStep]:
        """Commit what came before, mark the database dirty but resumable, and run the body in autocommit."""
        self.stage.online_step = what
        log.info("online step", extra={"revision": self.step.revision, "step": what})
        with context.autocommit_block():
            self.stage.online_step = None
            driver = self.session.driver
            prepare(driver)  # settings that the revision made for itself must not apply here
            look = partial(progress.step, self.control, what, self.session.pid)
            with progress.watching(look, self.report):
                yield OnlineStep(driver, self.control, self.session.pid, what, self.report)
            prepare(driver)

    def _on_begin(self, _: sqlalchemy.Connection) -> None:
        """Open a transaction of the revision: set the lock timeout anew, and close the fence."""
        if self.session.outside:
            # The revision has left its transaction, by an online operation or by itself.
            self.locks.let_golang_in()
            self.retries.leave_transaction()
            return
        self.retries.enter_transaction()
        self.locks.shut_out_golang()
        self._count_waiting()
        self._budget = LockBudget(self._patience)
        with self.session.driver.cursor() as cursor:
            self._set_lock_timeout(cursor)
            fence.close(cursor, self.step, golang_migrate=self.golang_migrate)

    def _on_commit(self, _: sqlalchemy.Connection) -> None:
        """Mark the database dirty when a revision commits before its end."""
        if self.session.outside or not self.stage.commit():
            return
        with self.session.driver.cursor() as cursor:
            self._mark_dirty(cursor)
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
        self.lock_wait += self.monitor.waited
        self.monitor.waited = 0.0

    def _mark_dirty(self, cursor: Any) -> None:
        """Record, in the current transaction, that the revision is half done from here on."""
        stage = self.stage
        if not stage.committed and self.golang_migrate:
            versions.write_golang(cursor, number(self.step.to_version) or state.NO_VERSION, dirty=True)
        stage.committed = True
        history.record(
            cursor,
            self.record,
            "online",
            step=stage.online_step or "a part outside a transaction",
            resumable=stage.online_step is not None,
        )

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
        with driver.cursor() as cursor:
            self._mark_dirty(cursor)
        driver.commit()
        raise self._ended_by_itself()

    def _ended_by_itself(self) -> GuvnorError:
        return GuvnorError(
            f"Revision {self.step.revision} ended its transaction by itself, with a COMMIT or ROLLBACK."
        )
