"""Who blocks a statement: a second connection watches while the statement waits for a lock."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import psycopg2

from guvnor.postgres import Connection, rows, scalar

log = logging.getLogger(__name__)

_INTERVAL = 0.01  # seconds between two polls; a fifth of the shortest wait


@dataclass(frozen=True)
class Blocker:
    """A session that holds, or waits in front of us for, a lock that we want.

    :ivar age: seconds since its transaction began; None when it has none or the role may not see it.
    :ivar command: the first keyword of its query; the whole text goes to the debug log only, since it may
        hold data.
    """

    pid: int
    role: str | None
    application: str | None
    state: str | None
    age: float | None
    command: str | None

    def __str__(self) -> str:
        """Describe the session in one phrase."""
        if self.pid == 0:
            return "a prepared transaction (SELECT * FROM pg_prepared_xacts)"
        age = f", transaction open for {self.age:.0f} s" if self.age is not None else ""
        return (
            f"pid {self.pid} (role {self.role or 'unknown'}, {self.application or 'unnamed application'}, "
            f"{self.state or 'state unknown'}{age}, last command {self.command or 'unknown'})"
        )


def read(connection: Connection, pid: int) -> tuple[bool, tuple[Blocker, ...]]:
    """Tell whether a backend waits for a heavyweight lock, and who blocks it.

    :param connection: a connection other than the one that waits, in autocommit mode.
    """
    # pg_blocking_pids() locks the lock manager for a moment, so it is called only for a backend that waits.
    blocking_pids = """
        SELECT CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) END
        FROM pg_catalog.pg_stat_get_activity(%s)
    """
    pids = scalar(connection, blocking_pids, (pid,))
    if pids is None:
        return False, ()
    sessions = """
        SELECT
            blocking.pid, a.usename, a.application_name, a.state,
            EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start)::float8,
            upper(substring(a.query FROM '[A-Za-z]+')), a.query
        FROM unnest(%s::integer[]) AS blocking (pid)
        LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    """
    found = rows(connection, sessions, (sorted(set(pids)),))
    for blocker in found:
        log.debug("blocked", extra={"pid": blocker[0], "query": blocker[6]})
    return True, tuple(Blocker(*blocker[:6]) for blocker in found)


class LockMonitor:
    """Measures how long a backend waits for locks, and remembers its last blockers.

    A thread polls the server on a connection that is otherwise idle, while ``polling`` is set.
    """

    def __init__(self, connection: Connection, pid: int) -> None:
        """Start the thread, which watches a backend through another connection, in autocommit mode."""
        self.waited = 0.0  # seconds, in the current transaction
        self.blockers: tuple[Blocker, ...] = ()
        self._connection = connection
        self._pid = pid
        self.polling = threading.Event()  # set while a statement runs
        self._closed = False
        self._thread = threading.Thread(target=self._look, name="lock watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self.polling.set()
        self._thread.join()

    def _look(self) -> None:
        waiting_since: float | None = None
        while True:
            self.polling.wait()
            if self._closed:
                return
            time.sleep(_INTERVAL)
            if not self.polling.is_set():
                waiting_since = None
                continue
            try:
                waiting, blockers = read(self._connection, self._pid)
            except psycopg2.Error:
                return  # the connection is gone, which the run notices before it commits
            now = time.monotonic()
            if waiting:
                self.blockers = blockers or self.blockers
                self.waited += now - (waiting_since or now - _INTERVAL)
                waiting_since = now
            else:
                waiting_since = None
