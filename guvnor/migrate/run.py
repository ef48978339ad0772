"""Executing a plan: one transaction per revision, tried again while tables are busy, each end recorded."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg2
import sqlalchemy
from alembic.runtime.migration import MigrationContext, MigrationStep
from psycopg2 import errorcodes, extensions
from sqlalchemy import event

from guvnor.config import Settings
from guvnor.errors import GuvnorError
from guvnor.migrate import failures, history, progress, retry, state
from guvnor.migrate.attempt import Applied, Attempt
from guvnor.migrate.blockers import LockWatch
from guvnor.migrate.locks import Locks
from guvnor.migrate.online import OnlineStep
from guvnor.migrate.plan import Plan, Step
from guvnor.migrate.progress import Progress
from guvnor.migrate.signals import Canceller, Interrupt
from guvnor.migrate.state import NO_VERSION, State
from guvnor.postgres import Connection, prepare

log = logging.getLogger(__name__)

_PATIENCE_AT_THE_END = "1s"  # for the locks of the bookkeeping tables, when a run has failed
# The server is shutting down or starting (PostgreSQL documentation, "PostgreSQL Error Codes", class 57).
_SERVER_GONE = (errorcodes.ADMIN_SHUTDOWN, errorcodes.CRASH_SHUTDOWN, errorcodes.CANNOT_CONNECT_NOW)


class Runner:
    """Runs plans through Alembic on one connection, with the locks and the history on another."""

    def __init__(
        self,
        connection: sqlalchemy.Connection,
        control: Connection,
        locks: Locks,
        settings: Settings,
        report: Callable[[Progress], None],
        canceller: Canceller,
        tool: str,
        note: str | None,
    ) -> None:
        """Prepare a runner.

        :param connection: what the revisions run on.
        :param control: in autocommit mode; holds the locks, writes the history and looks on.
        :param report: is told how far a long step is.
        :param canceller: knows whether a signal has arrived.
        :param tool: which tool this is, for the history.
        :param note: what else the history says of each attempt.
        """
        self._connection = connection
        self._control = control
        self._locks = locks
        self._settings = settings
        self._report = report
        self._canceller = canceller
        self._tool = tool
        self._note = note
        self._attempt: Attempt | None = None
        pid, self._role = connection.exec_driver_sql("SELECT pg_backend_pid(), current_setting('role')").one()
        self._pid = int(pid)
        connection.rollback()
        self._watch = LockWatch(control, self._pid)
        canceller.connections.append(self._raw())
        event.listen(connection, "begin", self._on_begin)
        event.listen(connection, "commit", self._on_commit)
        event.listen(connection, "before_cursor_execute", self._before_statement)
        event.listen(connection, "after_cursor_execute", self._after_statement)
        event.listen(connection.engine, "handle_error", self._on_error)

    def close(self) -> None:
        """Stop looking on."""
        self._watch.close()

    # -- what Alembic calls ------------------------------------------------------------------------------

    def next_step(self, _heads: tuple[str, ...], _context: MigrationContext) -> list[MigrationStep]:
        """Give Alembic the one step to run now (its ``fn``)."""
        return [self._attempt.step.alembic] if self._attempt else []

    def version_applied(self, **_: Any) -> None:
        """Write our own state when Alembic has written its version, in the same transaction."""
        attempt = self._current()
        self._count_waiting(attempt)
        with self._cursor() as cursor:
            number = state.number(attempt.step.to_version)
            state.write_golang(cursor, number or None, dirty=False)
            history.record(cursor, attempt.record, "succeeded", **attempt.figures())
        self._locks.check_alive()
        attempt.applied = True

    @contextlib.contextmanager
    def online_step(self, step: str) -> Iterator[OnlineStep]:
        """Commit what came before, marked dirty and resumable, and give a connection in autocommit mode."""
        attempt = self._current()
        attempt.online_step = step
        log.info("online step", extra={"revision": attempt.step.revision, "step": step})
        with self._context.autocommit_block():
            attempt.online_step = None
            raw = self._raw()
            prepare(raw)  # what the revision has set for itself does not hold here
            look = partial(progress.step, self._control, step, self._pid)
            with progress.watching(look, self._report):
                yield OnlineStep(raw, self._control, self._pid, step, self._report)
            prepare(raw)

    # -- executing a plan --------------------------------------------------------------------------------

    def execute(
        self, plan: Plan, context: MigrationContext, run_migrations: Callable[[], None]
    ) -> list[Applied]:
        """Run the steps of a plan, one after the other.

        :param context: Alembic's, configured with this runner's connection and callbacks.
        :param run_migrations: Alembic's, which asks :meth:`next_step` what to do.
        :raises GuvnorError: when a step does not come to its end; the steps before it stay applied.
        """
        self._context = context
        state.create_tables(self._control)
        return [self._run(step, run_migrations) for step in plan.steps]

    def _run(self, step: Step, run_migrations: Callable[[], None]) -> Applied:
        attempt = self._attempt = Attempt(step, self._tool, self._note)
        self._watch.blockers = ()
        with self._control.cursor() as cursor:
            history.record(
                cursor, attempt.record, "started", database_bytes=history.database_size(self._control)
            )
        try:
            self._try_until_done(attempt, run_migrations)
        except (Interrupt, SystemExit, Exception) as error:
            raise self._ended(attempt, error) from error
        finally:
            self._attempt = None
        with contextlib.suppress(psycopg2.Error), self._control.cursor() as cursor:
            history.record(
                cursor, attempt.record, "measured", database_bytes=history.database_size(self._control)
            )
        applied = Applied(step, time.monotonic() - attempt.began, attempt.lock_wait, attempt.tries)
        log.info(
            f"revision {step.revision} {'rolled back' if step.direction == 'down' else 'applied'}",
            extra={"direction": step.direction, **attempt.figures()},
        )
        return applied

    def _try_until_done(self, attempt: Attempt, run_migrations: Callable[[], None]) -> None:
        for trial in retry.tries():
            attempt.tries += 1
            attempt.patience = trial.wait
            try:
                self._prepare_session()
                run_migrations()
                if not attempt.finished:  # Alembic's commit was that of a transaction long gone
                    raise self._ended_by_itself(attempt)
                return
            except (sqlalchemy.exc.DBAPIError, psycopg2.Error) as error:
                cause = failures.driver_error(error)
                self._count_waiting(attempt)
                self._roll_back()
                code = cause.pgcode if cause else None
                if code not in failures.RETRYABLE or not attempt.resumable:
                    raise
                deadline = attempt.began + attempt.online + self._settings.max_wait
                self._pause(attempt, trial, deadline, deadlock=code == errorcodes.DEADLOCK_DETECTED)

    def _pause(self, attempt: Attempt, trial: retry.Try, deadline: float, *, deadlock: bool) -> None:
        """Wait before the next try; the blockers were read while the last one waited."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise failures.busy(
                attempt.step,
                time.monotonic() - attempt.began - attempt.online,
                attempt.tries,
                self._watch.blockers,
                self._read_state(),
            )
        pause = min(trial.pause, remaining)
        why = "was in a deadlock" if deadlock else f"could not get a lock within {trial.wait * 1000:.0f} ms"
        log.warning(
            f"{why}, trying again in {pause:.1f} s",
            extra={
                "revision": attempt.step.revision,
                "tries": attempt.tries,
                "blockers": "; ".join(str(blocker) for blocker in self._watch.blockers) or None,
            },
        )
        time.sleep(pause)

    # -- around each transaction -------------------------------------------------------------------------

    def _on_begin(self, _: sqlalchemy.Connection) -> None:
        """Open a transaction of the revision: timeouts anew, and a look whether it is still ours to run."""
        attempt = self._attempt
        if attempt is None:
            return
        if self._raw().autocommit:
            # The revision has left its transaction, by an online operation or by itself.
            self._locks.let_golang_in()
            attempt.online_since = time.monotonic()
            return
        if attempt.online_since is not None:
            attempt.online += time.monotonic() - attempt.online_since
            attempt.online_since = None
        self._locks.shut_out_golang()
        self._count_waiting(attempt)
        with self._cursor() as cursor:
            self._set_lock_timeout(cursor, attempt.patience)
            self._fence(cursor, attempt)

    def _prepare_session(self) -> None:
        """Set the session anew: a revision before, or the last try, may have set it otherwise."""
        raw = self._raw()
        raw.rollback()
        raw.autocommit = True
        with self._cursor() as cursor:
            # DateStyle is the driver's own choice, made when it connected.
            cursor.execute(
                "RESET ALL; SET DateStyle TO ISO; SELECT set_config('role', %s, false)", (self._role,)
            )
        prepare(raw)
        raw.autocommit = False

    def _count_waiting(self, attempt: Attempt) -> None:
        attempt.lock_wait += self._watch.waited
        self._watch.waited = 0.0

    def _fence(self, cursor: Any, attempt: Attempt) -> None:
        """Lock the version and read it again: the run lock keeps others away only while its connection lives.

        :raises MovedError: when the version is not the one that this step starts from.
        """
        step = attempt.step
        cursor.execute("LOCK TABLE public.alembic_version IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute("SELECT array_agg(version_num::text) FROM public.alembic_version")
        (versions,) = cursor.fetchone() or (None,)
        cursor.execute("SELECT version, dirty FROM public.schema_migrations")
        golang = cursor.fetchone() or (0, False)
        dirty = (state.number(step.to_version) or NO_VERSION, True)
        moved = versions != ([step.from_version] if step.from_version else None)
        if moved or golang not in ((state.number(step.from_version), False), dirty):
            error = failures.MovedError(
                f"alembic_version holds {', '.join(versions or ['no version'])} now and schema_migrations "
                f"{golang[0]}; revision {step.revision} starts from {step.from_version or 'no version'}: "
                "somebody else moved the database while this run was waiting."
            )
            if not moved:
                error.exit_code = state.StateError.exit_code  # golang-migrate has: the tables disagree now
            raise error

    def _before_statement(self, _c: Any, cursor: Any, _statement: str, *_: Any) -> None:
        """Count lock waits for the transaction as a whole: what was waited is taken off the next timeout."""
        attempt = self._attempt
        if attempt is None:
            return
        if not self._raw().autocommit:
            allowed = max(0.001, attempt.patience - self._watch.waited)
            self._check_transaction(attempt)
            if allowed < self._allowed:
                self._set_lock_timeout(cursor, allowed)
        self._watch.statement_begins()

    def _after_statement(self, *_: Any) -> None:
        self._watch.statement_ended()
        if self._attempt is not None and not self._raw().autocommit:
            self._check_transaction(self._attempt)

    def _check_transaction(self, attempt: Attempt) -> None:
        """Look whether the revision has ended its transaction behind the driver's back: COMMIT in its SQL.

        From then on every statement would be committed at once, and the version with none of them.

        :raises TransactionEndedError: when it has; the database is marked dirty then.
        """
        raw = self._raw()
        ended = raw.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        if not ended or raw.status != extensions.STATUS_BEGIN:
            return
        raw.rollback()
        attempt.online_step = None
        with self._cursor() as cursor:
            self._mark_dirty(cursor, attempt)
        raw.commit()
        raise self._ended_by_itself(attempt)

    def _ended_by_itself(self, attempt: Attempt) -> failures.TransactionEndedError:
        return failures.TransactionEndedError(
            f"Revision {attempt.step.revision} ended its transaction by itself, with a COMMIT or ROLLBACK."
        )

    def _on_error(self, _: Any) -> None:
        self._watch.statement_ended()

    def _set_lock_timeout(self, cursor: Any, seconds: float) -> None:
        self._allowed = seconds
        cursor.execute(f"SET LOCAL lock_timeout = '{max(1, round(seconds * 1000))}ms'")

    def _on_commit(self, _: sqlalchemy.Connection) -> None:
        """Mark the database dirty when a revision commits before its end."""
        attempt = self._attempt
        if attempt is None or self._raw().autocommit:
            return
        if attempt.applied:
            attempt.finished = True
            return
        with self._cursor() as cursor:
            self._mark_dirty(cursor, attempt)
        self._locks.check_alive()

    def _mark_dirty(self, cursor: Any, attempt: Attempt) -> None:
        """Write, in the current transaction, that the revision is half done from here on."""
        if not attempt.committed:
            state.write_golang(cursor, state.number(attempt.step.to_version) or NO_VERSION, dirty=True)
        attempt.committed = True
        attempt.resumable = attempt.resumable and attempt.online_step is not None
        history.record(
            cursor,
            attempt.record,
            "online",
            step=attempt.online_step or "a part outside a transaction",
            resumable=attempt.online_step is not None,
        )

    # -- ends --------------------------------------------------------------------------------------------

    def _ended(self, attempt: Attempt, error: BaseException) -> GuvnorError:
        """Bring everything to rest, record the end and return the error to raise."""
        self._watch.statement_ended()
        self._roll_back()
        now = self._read_state()
        cause = failures.driver_error(error)
        result: GuvnorError
        outcome = "failed"
        if self._canceller.received is not None:
            # Whatever the interruption looks like by now: closing a cancelled block raises errors of its own.
            outcome = "interrupted"
            result = failures.interrupted(attempt.step, self._canceller.received, now)
        elif isinstance(error, GuvnorError):
            result = error
            if attempt.committed or error.state is None:
                result.state = failures.where(now)
            if error.next_step is None:
                result.next_step = failures.again_by(attempt.step, now)
        elif cause is not None and (self._connections_lost() or cause.pgcode in _SERVER_GONE):
            result = failures.connection_lost(attempt.step, now)
        else:
            result = failures.revision_failed(attempt.step, error, now)
            log.debug("the revision's error", exc_info=error)
        self._record_end(attempt, outcome, result, cause)
        return result

    def _record_end(
        self, attempt: Attempt, outcome: str, error: GuvnorError, cause: psycopg2.Error | None
    ) -> None:
        # A server whose encoding cannot hold the text loses this record, not the explanation.
        with contextlib.suppress(psycopg2.Error, UnicodeError), self._control.cursor() as cursor:
            history.record(
                cursor,
                attempt.record,
                outcome,
                sqlstate=cause.pgcode if cause else None,
                error=error.message,
                **attempt.figures(),
            )

    def _read_state(self) -> State | None:
        """Read what state a failure has left, through whichever connection still lives.

        A new one could look before the server has noticed the end of the lost one, and tell what is not so.
        """
        lost = self._connection.closed or self._connection.invalidated  # SQLAlchemy would connect anew
        for connection in (self._control, *([] if lost else [self._raw()])):
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"SET lock_timeout = '{_PATIENCE_AT_THE_END}'")  # nobody wants to wait now
                return state.read(connection)
            except psycopg2.Error:
                continue
        return None

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, psycopg2.Error):
            self._connection.rollback()
            if not self._connection.invalidated:
                self._raw().rollback()  # a transaction that failed at its begin is not SQLAlchemy's yet
                # It would also go on thinking that it is beginning one, and never say so again.
                attempt, self._attempt = self._attempt, None
                self._connection.begin().rollback()
                self._attempt = attempt

    # -- the driver's connection -------------------------------------------------------------------------

    def _current(self) -> Attempt:
        assert self._attempt is not None
        return self._attempt

    def _raw(self) -> Any:
        return self._connection.connection.dbapi_connection

    def _connections_lost(self) -> bool:
        if self._control.closed:
            return True
        if self._connection.closed or self._connection.invalidated:
            return True
        return bool(self._raw().closed)

    def _cursor(self) -> Any:
        return self._raw().cursor()
