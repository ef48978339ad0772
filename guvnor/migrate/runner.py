"""Running the steps of a plan: each is tried again while tables are busy, and its outcome is recorded."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg2
import sqlalchemy
from psycopg2 import errorcodes

from guvnor import postgres, telemetry
from guvnor.bookkeeping import confirmation, history, state
from guvnor.bookkeeping.patience import AT_THE_END, BookkeepingBusyError, wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.errors import GuvnorError
from guvnor.migrate import denied, failures, leftovers, stall_budget
from guvnor.migrate.locks import Locks
from guvnor.migrate.next_try import NextTry, TimeUpError
from guvnor.migrate.request import Request
from guvnor.migrate.retries import RETRYABLE, Retries
from guvnor.migrate.session import RevisionSession
from guvnor.migrate.signals import Canceller, Interrupt
from guvnor.migrate.step_record import StepRecord
from guvnor.migrate.step_transaction import StepTransaction
from guvnor.migrate.watch import Watch
from guvnor.online import remedies
from guvnor.online.backoff import Try
from guvnor.online.knock import Knock
from guvnor.online.operations import RUNNER
from guvnor.online.replicas import ReplicaPolicy
from guvnor.postgres import Connection
from guvnor.postgres.engine import driver_error
from guvnor.postgres.excerpt import excerpt
from guvnor.revisions import files, git
from guvnor.revisions.fingerprint import fingerprint
from guvnor.revisions.plan import Step
from guvnor.revisions.statements import RENDERING

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Applied:
    """A step that was run: durations in seconds, and how often its transaction was tried.

    :ivar stalled: the longest that a session of the application waited behind it.
    :ivar stalled_sessions: how many sessions waited behind it.
    :ivar stalled_statement: an excerpt of the statement that the longest wait was for.
    """

    step: Step
    duration: float
    lock_wait: float
    tries: int
    stalled: float = 0.0
    stalled_sessions: int = 0
    stalled_statement: str | None = None


@dataclass
class StepRunner:
    """Runs steps through Alembic on one session, with the locks and the history on another.

    :ivar environment: Alembic's.
    :ivar session: what the revisions run on.
    :ivar control: in autocommit mode; holds the locks and writes the history.
    :ivar watch: sees whom the session waits for, and who waits for it.
    :ivar canceller: knows whether a signal has arrived.
    :ivar note: what else the history says about each step.
    :ivar production: whether the database is production, by the configuration or by its own mark.
    """

    environment: Any
    request: Request
    session: RevisionSession
    control: Connection
    watch: Watch
    locks: Locks
    canceller: Canceller
    note: str | None
    production: bool

    def __post_init__(self) -> None:
        """Let a signal cancel what runs on the session."""
        self._standby = confirmation.is_awaited(self.control)
        self.canceller.connections.append(self.session.driver)

    def run(self, step: Step) -> Applied:
        """Run one step to completion.

        :raises GuvnorError: when it does not complete; the steps before it stay applied.
        """
        retries = Retries(self.request.settings.max_wait)
        record = self._record(step, retries)
        telemetry.annotate({"guvnor.attempt": record.attempt.attempt})
        self.session.max_idle = step.max_idle
        ours = (self.session.pid, self.session.control_pid)
        next_try = NextTry(self.session, self.watch, record, ours, self.canceller.check)
        transaction = self._transaction(record, next_try.knock)
        wait_for_tables(self.control, retries.remaining, lambda: record.measured(self.control, "started"))
        attempt = retries.next()
        try:
            budget = stall_budget.budget(self.request.settings, step, production=self.production)
            self.watch.begin_step(budget)
            while True:
                try:
                    self.session.reset()
                    with transaction.trying(self._patience(attempt)):
                        self.environment.run_migrations()
                    break
                except (sqlalchemy.exc.DBAPIError, psycopg2.Error) as error:
                    cause = driver_error(error)
                    code = cause.pgcode if cause else None
                    if code not in RETRYABLE or not transaction.stage.resumable or self.watch.stopped:
                        raise
                    deadlock = code == errorcodes.DEADLOCK_DETECTED
                    attempt = next_try.after(attempt, transaction.statement, deadlock=deadlock)
        except TimeUpError as error:
            blockers, now = next_try.blockers, self._read_state()
            busy = failures.busy(step, retries.waited, retries.count, blockers, now)
            raise self._ended(record, transaction, busy) from error
        except (Interrupt, SystemExit, Exception) as error:
            raise self._ended(record, transaction, error) from error
        with contextlib.suppress(psycopg2.Error):
            self._confirm(record)
        figures = record.figures()
        told = {f"guvnor.{name}": value for name, value in figures.items() if name != "duration_ms"}
        telemetry.annotate(told)  # the span itself says how long it took
        log.info(
            f"revision {step.revision} {'rolled back' if step.direction == 'down' else 'applied'}",
            extra={"direction": step.direction, **figures},
        )
        self.canceller.check()
        return Applied(
            step,
            time.monotonic() - retries.began,
            record.lock_wait,
            retries.count,
            record.stalled_ms / 1000,
            record.stalled_sessions,
            record.stalled_statement and excerpt(record.stalled_statement),
        )

    def _confirm(self, record: StepRecord) -> None:
        """Write the last event of a step, and wait until a synchronous standby has it, if there is one."""
        write = partial(record.measured, self.control, "measured")
        if not self._standby:
            self._at_the_end(write)
            return
        if not confirmation.commit_confirmed(self.control, write) or self.canceller.received is not None:
            log.warning(
                "applied, but not confirmed by the standby: a failover to it may lose the revision",
                extra={"revision": record.step.revision},
            )

    def _record(self, step: Step, retries: Retries) -> StepRecord:
        versions = (step.from_version, step.to_version)
        tool = self.request.tool
        note = "; ".join(filter(None, (self.note, str(step.max_stall or "")))) or None
        kept = (step.checksum, RENDERING)
        attempt = history.Attempt(
            step.direction,
            step.revision,
            *versions,
            *kept,
            tool,
            note,
            source=fingerprint(files.text(step.file)) if step.file else None,
            checkout=git.checkout(step.file.parent) if step.file else None,
        )
        return StepRecord(step, attempt, self.request.project.golang_migrate, retries)

    def _transaction(self, record: StepRecord, knock: Knock) -> StepTransaction:
        """Set Alembic up to run one step, watched by its transaction."""
        settings = self.request.settings
        transaction = StepTransaction(
            self.session,
            self.control,
            self.locks,
            self.watch,
            record,
            self.request.observer.progressed,
            ReplicaPolicy(settings.replicas_ignore, settings.max_wait),
            self.canceller.check,
            knock,
        )
        self.environment.configure(
            connection=self.session.connection,
            target_metadata=self.request.project.load_metadata(),
            dont_mutate=True,  # Alembic must not create its version table
            version_table_schema=postgres.SCHEMA,
            transaction_per_migration=True,
            on_version_apply=transaction.version_applied,
            fn=lambda _heads, _context: [record.step.alembic],
            **{RUNNER: transaction},
        )
        return transaction

    def _patience(self, attempt: Try) -> float:
        """Return the seconds that a try may wait for locks: at most half of the budget."""
        return min(attempt.wait, self.watch.budget / 2) if self.watch.budget is not None else attempt.wait

    def _ended(self, record: StepRecord, transaction: StepTransaction, error: BaseException) -> GuvnorError:
        """Roll back, record the end and return the error to raise."""
        self.canceller.settle()
        self.session.roll_back()
        transaction.record_stalls()
        now = self._read_state()
        cause = driver_error(error)
        if now is not None and now.dirty and not remedies.notes(told := cause or error):
            for query in self._read_queries():
                told.add_note(query)
        result, outcome = failures.describe(
            record.step,
            error,
            now,
            stage=transaction.stage,
            signal_received=self.canceller.received,
            connection_lost=bool(self.control.closed) or self.session.lost,
            refused=self._read_refused(now),
            lacking=self._read_lacking(record.step, cause, now),
            idle=transaction.idle,
            watch=self.watch,
            instead=self.request.observer.instead(record.step) if self.watch.stopped else (),
        )
        if now is not None and failures.lost_its_mark(now):  # only the catalogs know what is there
            from guvnor.migrate import diagnosis

            found = diagnosis.parts(self.request.settings, record.step.revision)
            result.state = "\n".join((result.state or "", *found))
        code = cause.pgcode if cause else None
        self._at_the_end(lambda: record.failed(self.control, outcome, result.message, code))
        return result

    def _at_the_end(self, write: Callable[[], None]) -> None:
        """Write what may be lost: neither the outcome nor its explanation depends on it.

        The history may be locked by somebody else.
        """
        with contextlib.suppress(psycopg2.Error, BookkeepingBusyError):
            wait_for_tables(self.control, AT_THE_END, write)

    def _read_refused(self, now: State | None) -> tuple[str, ...] | None:
        """Read which writes a half-done revision refuses; None where that cannot be read."""
        if now is None or not now.dirty:
            return ()
        with contextlib.suppress(psycopg2.Error):
            return leftovers.read(self.control)
        return None

    def _read_queries(self) -> tuple[str, ...]:
        """Read what shows the rows that an unvalidated constraint refuses; nothing where that fails."""
        with contextlib.suppress(psycopg2.Error):
            return leftovers.queries(self.control)
        return ()

    def _read_lacking(self, step: Step, cause: psycopg2.Error | None, now: State | None) -> tuple[str, ...]:
        """Read what the role lacks where the server denied something; nothing where that cannot be read."""
        if now is not None and cause is not None and cause.pgcode == errorcodes.INSUFFICIENT_PRIVILEGE:
            again = failures.again_by(step, now)
            with contextlib.suppress(psycopg2.Error):
                return denied.advice(self.control, cause, half_done=now.dirty, again=again)
        return ()

    def _read_state(self) -> State | None:
        """Read what state a failure has left, through whichever connection still lives.

        A new connection may read the state before the server notices that the old one died, and report it
        wrongly.
        """
        drivers = [self.control, *([] if self.session.lost else [self.session.driver])]
        for connection in drivers:
            with contextlib.suppress(psycopg2.Error, BookkeepingBusyError):
                return state.read(
                    connection,
                    max_wait=AT_THE_END,
                    golang_migrate=self.request.project.golang_migrate,
                )
        return None
