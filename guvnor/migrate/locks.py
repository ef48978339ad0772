"""The advisory locks: one runner at a time, and golang-migrate kept out meanwhile.

All are session locks on one autocommit connection and are polled with ``pg_try_advisory_lock``: a blocking
``pg_advisory_lock`` holds a snapshot while it waits, which another runner's CREATE INDEX CONCURRENTLY waits
for in turn (PostgreSQL documentation, "Building Indexes Concurrently").
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import psycopg2

from guvnor import typed
from guvnor.errors import ExitCode, GuvnorError
from guvnor.online import signal_rights
from guvnor.postgres import SCHEMA, Connection, row, scalar

log = logging.getLogger(__name__)

RUN_LOCK = 0x6775_766E_6F72  # "guvnor" in ASCII
REVISION_SESSION = 0x6775_7672  # "guvr" in ASCII
_SILENT_MOST = 20.0  # seconds; four times the interval of guvnor.migrate.heartbeat
_GOLANG_SALT = 1486364155  # golang-migrate's own constant
_POLL_FIRST, _POLL_MOST = 0.05, 1.0  # seconds


_ANOTHER, _GOLANG = "another migration", "golang-migrate"


@dataclass(frozen=True)
class Holder:
    """The session that holds an advisory lock.

    :ivar silent: seconds since it ran anything; 0 while it does, None where the role may not see that.
    :ivar others: the pids of the other sessions of a run.
    :ivar what: what it is doing, by the lock that it holds: ``another migration`` or ``golang-migrate``.
    :ivar first: what stands before the statement that ends it: whom to ask, where our role may not.
    """

    pid: int
    role: str | None
    application: str | None
    host: str | None
    since: datetime | None
    silent: float | None = field(default=None, compare=False)
    others: tuple[int, ...] = field(default=(), compare=False)
    what: str = _ANOTHER
    first: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether a run no longer gives a sign of life, though the server still has its sessions.

        golang-migrate gives none while it works on its files.
        """
        return not self.is_golang and (self.silent or 0.0) > _SILENT_MOST

    @property
    def ends_it(self) -> str:
        """The SQL that ends all its sessions."""
        if not self.others:
            return f"{self.first}SELECT pg_terminate_backend({self.pid});"
        pids = ", ".join(map(str, (self.pid, *self.others)))
        return f"{self.first}SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{pids}]) AS pid;"

    @property
    def sentence(self) -> str:
        """Say that it is at work, without a full stop."""
        if self.is_golang:
            return f"golang-migrate is at work: {self}"
        return f"Another migration is running: {self}"

    @property
    def is_golang(self) -> bool:
        """Whether it is golang-migrate."""
        return self.what == _GOLANG

    def __str__(self) -> str:
        """Describe the session in one phrase."""
        since = f", connected since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return (
            f"pid {self.pid} ({self.application or 'unnamed application'}, role {self.role or 'unknown'}, "
            f"from {self.host or 'a local socket'}{since})"
        )


class LockTimeoutError(GuvnorError):
    """Another migration holds the lock and did not end in time."""

    exit_code = ExitCode.LOCKED
    state = "Nothing was changed by this command."
    next_step = "guvnor migrate status"


class LockLostError(GuvnorError):
    """The connection that holds the run lock ended, so another migration may be running."""

    state = "The revision was rolled back."
    repeat_when = "`guvnor migrate status` shows who is migrating"


def golang_key(*parts: str) -> int:
    """Return the key of the advisory lock that golang-migrate derives from some names."""
    return zlib.crc32("\x00".join(parts).encode()) * _GOLANG_SALT % 2**32


def golang_keys(database: str) -> tuple[int, int]:
    """Return the two advisory locks of golang-migrate for a database of this name.

    The Go application opens the database under its name, golang-migrate's own command under the URL's path.
    """
    table = (SCHEMA, "schema_migrations")
    return golang_key(*table, database), golang_key(*table, f"/{database}")


def holder(connection: Connection, key: int) -> Holder | None:
    """Return the session that holds an advisory lock of this database, None when it is free."""
    found = row(
        connection,
        f"""
        SELECT l.pid, a.usename, a.application_name, COALESCE(a.client_hostname, host(a.client_addr)),
               a.backend_start,
               CASE WHEN a.state = 'active' THEN 0
                    ELSE EXTRACT(EPOCH FROM clock_timestamp() - a.state_change)::float8 END,
               ARRAY(SELECT r.pid FROM pg_catalog.pg_locks AS r
                     WHERE r.locktype = 'advisory' AND r.granted AND r.objsubid = 2
                       AND (r.database, r.classid::bigint, r.objid::bigint) = (l.database, %s, l.pid)
                     ORDER BY r.pid),
               {signal_rights.FIRST}
        FROM pg_catalog.pg_locks AS l
        LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
        {signal_rights.JOINS}
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND (l.classid::bigint << 32) | l.objid::bigint = %s
        LIMIT 1
        """,
        (REVISION_SESSION, key),
    )
    if found is None:
        return None
    pid, role, application, host, since, silent, others, first = found
    return Holder(pid, role, application, host, since, silent, tuple(others), first=first)


def mark_revision_session(cursor: Any, control_pid: int) -> None:
    """Let others see which run a session belongs to, until it ends or its advisory locks are released.

    :param control_pid: of the backend of the session that holds the run lock.
    """
    cursor.execute("SELECT pg_advisory_lock_shared(%s, %s)", (REVISION_SESSION, control_pid))


def at_work(connection: Connection, *, golang_migrate: bool = True) -> Holder | None:
    """Return who is migrating the database: another run of this tool, else golang-migrate; None for nobody.

    A run of this tool holds golang-migrate's locks, too.

    :param golang_migrate: whether golang-migrate works on the same database.
    """
    if running := holder(connection, RUN_LOCK):
        return running
    if golang_migrate:
        for key in golang_keys(scalar(connection, "SELECT current_database()")):
            if found := holder(connection, key):
                return replace(found, what=_GOLANG)
    return None


@dataclass
class AdvisoryLock:
    """One session advisory lock.

    :ivar connection: in autocommit mode; the lock lives as long as its session.
    :ivar what: who else may hold it, for messages: ``another migration``.
    """

    connection: Connection
    key: int
    what: str
    held: bool = False

    def take(self, patience: float) -> None:
        """Take the lock, polling until it is free; log who holds it, at first and whenever that changes.

        :param patience: seconds to wait at most.
        :raises LockTimeoutError: when it was not free in time (exit code 7).
        """
        deadline = time.monotonic() + patience
        pause = _POLL_FIRST
        named: Holder | None = None
        while not scalar(self.connection, "SELECT pg_try_advisory_lock(%s)", (self.key,)):
            current = holder(self.connection, self.key)
            if current and current != named:
                log.warning(f"waiting for {self.what}: {current}")
            if current and self.key == RUN_LOCK and current.is_gone and not (named and named.is_gone):
                log.warning(
                    f"its runner has given no sign of life for {current.silent:.0f} s: guvnor migrate status"
                )
            named = current or named
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._timeout(patience, current or named)
            time.sleep(min(pause * random.uniform(0.5, 1.0), remaining))  # noqa: S311 - no secret
            pause = min(pause * 2, _POLL_MOST)
        self.held = True

    def _timeout(self, patience: float, named: Holder | None) -> LockTimeoutError:
        if named and self.key == RUN_LOCK and named.is_gone:
            return LockTimeoutError(
                f"Waited {patience:.0f} s for {self.what}, whose runner has given no sign of life for "
                f"{named.silent:.0f} s: {named}. It is frozen, or its machine or network is gone.",
                next_step=f"guvnor migrate status\n{named.ends_it}   -- ends it\n{typed.again(when='then')}",
            )
        return LockTimeoutError(
            f"Waited {patience:.0f} s for {self.what}, which is still at work: {named or 'holder unknown'}.",
            next_step=f"guvnor migrate status\n{named.ends_it}   -- only if you know that it is stuck"
            if named
            else None,
        )

    def release(self) -> None:
        """Let go of the lock.

        :raises LockLostError: when the server says that this session does not hold it (as behind a connection
            pooler that changes the session under us).
        """
        if self.held:
            self.held = False
            if not scalar(self.connection, "SELECT pg_advisory_unlock(%s)", (self.key,)):
                raise LockLostError(
                    "The server says that this session did not hold the advisory lock it took."
                )


@dataclass
class Locks:
    """The run lock, and golang-migrate's two locks, which are free only during online steps.

    :ivar connection: in autocommit mode; the locks live as long as its session.
    :ivar patience: seconds to wait for each lock at most.
    :ivar golang_migrate: whether golang-migrate works on the same database.
    """

    connection: Connection
    database: str
    patience: float
    golang_migrate: bool = True

    def __post_init__(self) -> None:
        """Prepare the locks."""
        self._run = AdvisoryLock(self.connection, RUN_LOCK, _ANOTHER)
        keys = golang_keys(self.database) if self.golang_migrate else ()
        self._golang = [AdvisoryLock(self.connection, key, _GOLANG) for key in keys]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run lock and golang-migrate's, and release at the end whatever is held by then.

        What the body reads of the state is true until it lets golang-migrate in.

        :raises LockTimeoutError: when one of them is not free in time (exit code 7).
        """
        self._run.take(self.patience)
        try:
            self.shut_out_golang()
            yield
        finally:
            with contextlib.suppress(psycopg2.Error):
                self.let_golang_in()
                self._run.release()

    def shut_out_golang(self) -> None:
        """Take golang-migrate's locks where they are not held yet."""
        for lock in self._golang:
            if not lock.held:
                lock.take(self.patience)

    def let_golang_in(self) -> None:
        """Release golang-migrate's locks: a session waiting for them would hold up a concurrent index build.

        The dirty row keeps golang-migrate from doing anything meanwhile.
        """
        for lock in reversed(self._golang):
            lock.release()

    def check_alive(self) -> None:
        """Check that the session that holds the locks still lives.

        :raises LockLostError: when it has ended, and the locks with it.
        """
        try:
            held = scalar(
                self.connection,
                """
                SELECT EXISTS (
                    SELECT FROM pg_catalog.pg_locks
                    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
                      AND (classid::bigint << 32) | objid::bigint = %s
                )
                """,
                (RUN_LOCK,),
            )
        except psycopg2.Error:
            held = False
        if not held:
            raise LockLostError
