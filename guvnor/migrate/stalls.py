"""Who waits for a lock because of one session: what the watch over a revision reads on its own connection.

A session waits because of ours when ``pg_blocking_pids()`` names ours: it holds the lock, or stands in front
in the queue for it (PostgreSQL documentation, "System Information Functions"). That function locks the lock
manager for a moment, so it is asked only about sessions that wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from guvnor.bookkeeping.tables import BOOKKEEPING_TABLES
from guvnor.migrate.locks import REVISION_SESSION
from guvnor.online import blockers
from guvnor.online.blockers import Wanted
from guvnor.online.lock_modes import CONFLICTS
from guvnor.postgres import Connection, rows, scalar

_ASKED_MOST = 50  # sessions, those that have waited longest
_NAMED_MOST = 3


@dataclass(frozen=True)
class Waiter:
    """A session that waits because of ours.

    :ivar since: when it began to wait because of ours, on the clock of :func:`time.monotonic`.
    :ivar began: what tells this wait of the session from its others: when it began, as the server says it.
    """

    pid: int
    since: float
    began: float


@dataclass(frozen=True)
class Stall:
    """The application waited because of a revision.

    :ivar seconds: how long the session waited that waited longest.
    :ivar sessions: how many sessions waited.
    :ivar statement: what the revision had run last; None for none.
    :ivar waiting: some of the sessions, a phrase each.
    :ivar for_rows: whether they wait for rows that the revision has changed or locked.
    :ivar idle: whether the revision ran no statement meanwhile.
    """

    seconds: float = 0.0
    sessions: int = 0
    statement: str | None = None
    waiting: tuple[str, ...] = ()
    for_rows: bool = False
    idle: bool = False


@dataclass
class Blame:
    """Finds the statement in which most of a wait was spent, since a transaction has several.

    :ivar statement: that statement.
    """

    statement: str | None = None
    _wait: tuple[int, float] | None = field(default=None, init=False)
    _seconds: float = field(default=0.0, init=False)

    def count(self, waiter: Waiter, statement: str | None, began: float) -> None:
        """Count the wait of a session until now.

        :param statement: what the revision has run last.
        :param began: when that began, on the clock of :func:`time.monotonic`.
        """
        seconds = time.monotonic() - max(waiter.since, began)
        if self._wait != (waiter.pid, waiter.began) or seconds > self._seconds:
            self._wait, self._seconds = (waiter.pid, waiter.began), seconds
            self.statement = statement


def sees_everybody(connection: Connection) -> bool:
    """Tell whether the role sees what other sessions wait for (``pg_read_all_stats``)."""
    return bool(scalar(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"))


def waiting_pids(connection: Connection) -> list[int]:
    """Return the sessions of this database that wait for a lock, as a role with ``pg_read_all_stats`` sees.

    A view that shows NULL to others is not asked: NULL would mean that nobody waits.
    """
    sql = """
        SELECT pid
        FROM pg_catalog.pg_stat_get_activity(NULL)
        WHERE wait_event_type = 'Lock'
          AND datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    """
    return [pid for (pid,) in rows(connection, sql)]


def waiting_pids_of_locks(connection: Connection) -> list[int]:
    """Return the same from ``pg_locks``, which every role sees as a whole, at the price of copying it."""
    sql = "SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted AND pid IS NOT NULL"
    return [pid for (pid,) in rows(connection, sql)]


def has_standby(connection: Connection) -> bool:
    """Tell whether a standby replays what this server writes; logical replication takes no locks there."""
    sql = """
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_stat_replication AS sender
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS slot
                              WHERE slot.active_pid = sender.pid AND slot.slot_type = 'logical')
        )
    """
    return bool(scalar(connection, sql))


def holds_access_exclusive(connection: Connection, pid: int) -> bool:
    """Tell whether a session holds ACCESS EXCLUSIVE on a table that it has not made itself just now."""
    sql = """
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_locks AS l
            JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
            WHERE l.pid = %s AND l.granted AND l.mode = 'AccessExclusiveLock'
              AND c.relkind IN ('r', 'p', 'm')
        )
    """
    return bool(scalar(connection, sql, (pid,)))


@dataclass
class WaitersBehind:
    """Follows the sessions that wait because of one session, over the time of its transaction.

    Not counted: migrations, autovacuum, who waited before the transaction began, and who is held up by
    somebody else as well; the time since that one is gone does count.

    :ivar pid: of the session.
    :ivar began: when its transaction began, on the clock of :func:`time.monotonic`.
    """

    pid: int
    began: float
    _known: dict[tuple[int, float], Waiter] = field(default_factory=dict, init=False)

    def read(self, connection: Connection, pids: Iterable[int]) -> list[Waiter]:
        """Return who waits because of the session now, the longest first.

        :param pids: the sessions that wait for a lock.
        """
        found = self._blocked(connection, list(pids))
        behind = {pid for pid, _, _, blocking in found if self.pid in blocking}
        while outsiders := {
            pid for pid, _, _, blocking in found if pid in behind and blocking - behind - {self.pid}
        }:
            behind -= outsiders
        now = time.monotonic()
        known, self._known = self._known, {}
        for pid, began, waited, _ in found:
            if now - waited < self.began:
                continue
            # It may have waited for somebody else until now.
            since = now - waited if (pid, began) not in known else known[pid, began].since
            self._known[pid, began] = Waiter(pid, since if pid in behind else now, began)
        waiters = [waiter for waiter in self._known.values() if waiter.pid in behind]
        return sorted(waiters, key=lambda waiter: waiter.since)

    def _blocked(self, connection: Connection, pids: list[int]) -> list[tuple[int, float, float, set[int]]]:
        """Return who waits: the pid, when it began, for how many seconds, and who is in front."""
        # An autovacuum worker is the only session of a database without a user. A golang-migrate of its own
        # accord waits for its advisory lock or for one of the bookkeeping tables.
        sql = """
            WITH waiting AS MATERIALIZED (
                SELECT l.pid, l.waitstart
                FROM pg_catalog.pg_locks AS l
                JOIN pg_catalog.pg_stat_get_activity(NULL) AS a ON a.pid = l.pid
                WHERE NOT l.granted AND l.pid = ANY(%s) AND l.pid <> %s AND a.usesysid IS NOT NULL
                  AND a.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                  AND NOT EXISTS (
                      SELECT FROM pg_catalog.pg_locks AS its_own
                      WHERE its_own.pid = l.pid AND its_own.locktype = 'advisory'
                        AND its_own.classid = %s::oid
                  )
                  AND COALESCE(l.relation, 0) <> ALL (
                      SELECT c.oid FROM pg_catalog.pg_class AS c
                      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                      WHERE n.nspname = 'public' AND c.relname = ANY(%s)
                  )
                  AND COALESCE(l.waitstart >= clock_timestamp() - make_interval(secs => %s), true)
                ORDER BY l.waitstart
                LIMIT %s
            )
            SELECT pid, COALESCE(EXTRACT(EPOCH FROM waitstart), 0)::float8,
                   COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - waitstart), 0)::float8,
                   pg_blocking_pids(pid)
            FROM waiting
        """
        open_for = time.monotonic() - self.began
        parameters = (pids, self.pid, REVISION_SESSION, list(BOOKKEEPING_TABLES), open_for, _ASKED_MOST)
        found = rows(connection, sql, parameters)
        return [(pid, began, waited, set(blocking)) for pid, began, waited, blocking in found]


def explained(connection: Connection, pid: int, waiters: Iterable[Waiter]) -> Stall:
    """Return those that have waited longest, and what they wait for, without figures.

    :param pid: of the session that they wait for.
    """
    session = """
        SELECT usename, application_name, upper(substring(query FROM '^[[:space:]]*([A-Za-z]+)'))
        FROM pg_catalog.pg_stat_activity WHERE pid = %s
    """
    phrases, for_rows = [], False
    for waiter in list(waiters)[:_NAMED_MOST]:
        wanted = blockers.wanted_by(connection, waiter.pid)
        for_rows = for_rows or wanted.of_row
        held = f" ({', '.join(modes)} of the revision)" if (modes := _held(connection, pid, wanted)) else ""
        for role, application, command in rows(connection, session, (waiter.pid,)):
            doing = f", {command}" if command else ""
            who = f"pid {waiter.pid} (role {role}, {application or 'unnamed application'}{doing})"
            phrases.append(f"{who} for {wanted}{held}")
    return Stall(waiting=tuple(phrases), for_rows=for_rows)


def _held(connection: Connection, pid: int, wanted: Wanted) -> list[str]:
    """Return the locks that a session holds or wants itself on a table that another one waits for."""
    sql = "SELECT DISTINCT mode FROM pg_catalog.pg_locks WHERE pid = %s AND relation = %s AND mode = ANY(%s)"
    conflicting = CONFLICTS.get(wanted.mode or "", [])
    return [mode for (mode,) in rows(connection, sql, (pid, wanted.relation, conflicting))]
