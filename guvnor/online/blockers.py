"""Who blocks a statement that waits for a lock, as another connection reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from guvnor.online import signal_rights
from guvnor.online.lock_modes import CONFLICTS
from guvnor.postgres import Connection, row, rows, scalar
from guvnor.postgres.quoting import constant

log = logging.getLogger(__name__)

_PREPARED = 0  # what pg_blocking_pids() returns for a prepared transaction, which has no pid


@dataclass(frozen=True)
class Blocker:
    """A session that holds, or waits in front of us for, a lock that we want.

    :ivar age: seconds since its transaction began; None when it has none or the role may not see it.
    :ivar command: the first keyword of its query; the whole text goes to the debug log only, since it may
        hold data.
    :ivar table: the table that is locked, as SQL writes it; None where it is not a table that is waited for.
    :ivar relation: the OID of that table or index.
    :ivar first: what stands before the statement that ends it: whom to ask, where our role may not.
    """

    pid: int
    role: str | None
    application: str | None
    state: str | None
    age: float | None
    command: str | None
    table: str | None = None
    relation: int | None = None
    first: str = ""

    def __str__(self) -> str:
        """Describe the session in one phrase."""
        age = f", transaction open for {self.age:.0f} s" if self.age is not None else ""
        return (
            f"pid {self.pid}{self._place} (role {self.role or 'unknown'}, "
            f"{self.application or 'unnamed application'}, {self.state or 'state unknown'}{age}, "
            f"last command {self.command or 'unknown'})"
        )

    @property
    def way_out(self) -> str:
        """The SQL that takes it out of the way; a session without a query has nothing to cancel."""
        if self.state == "active":
            return f"{self.first}SELECT pg_cancel_backend({self.pid});   -- ends its query"
        return f"{self.first}SELECT pg_terminate_backend({self.pid});   -- ends its session"

    @property
    def _place(self) -> str:
        return f" on {self.table}" if self.table else ""


@dataclass(frozen=True)
class Autovacuum(Blocker):
    """An autovacuum worker. No role but a superuser may cancel it; the server does, for a waiter.

    :ivar gives_way: whether the server cancels it for somebody who waits for ``deadlock_timeout``. It does
        not when it prevents transaction ID wraparound (PostgreSQL documentation, "The Autovacuum Daemon"),
        which a role without the rights of ``pg_read_all_stats`` cannot see.
    """

    gives_way: bool = True

    def __str__(self) -> str:
        """Describe the worker in one phrase."""
        age = f", for {self.age:.0f} s" if self.age is not None else ""
        why = "" if self.gives_way else ", to prevent transaction ID wraparound: it does not give way"
        return f"an autovacuum{self._place} (pid {self.pid}{age}{why})"

    @property
    def way_out(self) -> str:
        """The SQL that tells what it does, since it cannot be cancelled."""
        if self.gives_way:
            why = "it goes when it is asked to for deadlock_timeout: let the run wait longer"
            return f"SELECT * FROM pg_stat_activity WHERE pid = {self.pid};   -- {why}"
        return f"SELECT * FROM pg_stat_progress_vacuum WHERE pid = {self.pid};   -- how far it is"


@dataclass(frozen=True)
class PreparedTransaction(Blocker):
    """A transaction that was prepared for a two-phase commit, and belongs to no session.

    :ivar gid: its name; None when it was gone before it could be read.
    """

    gid: str | None = None

    def __str__(self) -> str:
        """Describe the transaction in one phrase."""
        if self.gid is None:
            return f"a prepared transaction{self._place} (SELECT * FROM pg_prepared_xacts)"
        age = f", prepared {self.age:.0f} s ago" if self.age is not None else ""
        owner = f"role {self.role or 'unknown'}"
        return f"the prepared transaction {constant(self.gid)}{self._place} ({owner}{age})"

    @property
    def way_out(self) -> str:
        """The SQL that ends it."""
        if self.gid is None:
            return "SELECT * FROM pg_prepared_xacts;"
        return (
            f"ROLLBACK PREPARED {constant(self.gid)};   -- in this database, as its role; "
            "COMMIT PREPARED keeps its changes"
        )


def ways_out(blockers: Iterable[Blocker]) -> str:
    """Return the SQL that takes blockers out of the way, a line each, with a line end before each."""
    return "".join(f"\n{way}" for way in dict.fromkeys(blocker.way_out for blocker in blockers))


def named(blockers: Iterable[Blocker]) -> str:
    """Name blockers in a sentence."""
    return "; ".join(map(str, blockers)) or "a session that was gone before it could be named"


def session(connection: Connection, pid: int) -> Blocker:
    """Describe a session, whether it is in the way of anybody or not.

    :param connection: in autocommit mode.
    """
    return _described(connection, [pid], Wanted())[0]


def read(connection: Connection, pid: int) -> tuple[bool, tuple[Blocker, ...]]:
    """Tell whether a backend waits for a heavyweight lock, and who blocks it.

    :param connection: a connection other than the one that waits, in autocommit mode.
    """
    pids = blocking_pids(connection, pid)
    return pids is not None, waits_for(connection, pid, pids)[1] if pids else ()


@dataclass(frozen=True)
class Wanted:
    """The lock that a backend waits for: on a relation, or on a transaction that has changed a row of it.

    :ivar kind: what is locked, as ``pg_locks.locktype`` names it.
    """

    relation: int | None = None
    table: str | None = None
    transaction: str | None = None
    mode: str | None = None
    kind: str | None = "relation"

    @property
    def of_row(self) -> bool:
        """Whether a row is waited for: its last transaction, or the turn to wait for that."""
        return self.transaction is not None or self.kind == "tuple"

    def __str__(self) -> str:
        """Describe the lock in one phrase."""
        if self.of_row:
            return f"a row of {self.table}" if self.table else "a row"
        return f"{self.mode} on {self.table}" if self.table else self.mode or "a lock"


@dataclass(frozen=True)
class LockHolder:
    """Who is in the way of a lock that is wanted, and the transaction that it is in."""

    transaction: str
    blocker: Blocker


def holders_of_tables(
    connection: Connection, tables: Iterable[str], mode: str = "RowExclusiveLock"
) -> tuple[Blocker, ...]:
    """Return who keeps a lock on tables waiting, or waits to do so; by default ordinary reads and writes.

    It serves a session that has just given up waiting, and cannot be watched by another one.

    :param connection: in autocommit mode.
    :param tables: their names, without a schema; those that do not exist are left out.
    :param mode: the mode that is wanted, as ``pg_locks`` calls it.
    """
    sql = """
        SELECT to_regclass('public.' || quote_ident(name))::oid::bigint, name
        FROM unnest(%s::text[]) AS name WHERE to_regclass('public.' || quote_ident(name)) IS NOT NULL
    """
    wanted = [Wanted(relation, name, None, mode) for relation, name in rows(connection, sql, (list(tables),))]
    return tuple(holder.blocker for holder in holders(connection, wanted))


def holders(connection: Connection, wanted: Iterable[Wanted], ours: Iterable[int] = ()) -> list[LockHolder]:
    """Return who is in the way of locks on tables, or waits in front of us.

    :param connection: in autocommit mode.
    :param ours: the sessions that do not count, besides this one.
    """
    sql = """
        SELECT COALESCE(l.pid, 0), min(l.virtualtransaction)
        FROM pg_catalog.pg_locks AS l
        WHERE l.relation = %s::oid AND l.mode = ANY(%s)
          AND COALESCE(l.pid, 0) <> ALL (%s::integer[] || pg_backend_pid())
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        GROUP BY l.pid
        ORDER BY bool_or(l.granted) DESC, l.pid
    """
    found: list[LockHolder] = []
    excepted = list(ours)
    for lock in wanted:
        conflicting = CONFLICTS[lock.mode or ""]
        for pid, transaction in rows(connection, sql, (lock.relation, conflicting, excepted)):
            found += (LockHolder(transaction, blocker) for blocker in _described(connection, [pid], lock))
    return found


def blocking_pids(connection: Connection, pid: int) -> list[int] | None:
    """Return who blocks a backend; None when it does not wait for a heavyweight lock."""
    # pg_blocking_pids() locks the lock manager for a moment, so it is called only for a backend that waits.
    sql = """
        SELECT CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) END
        FROM pg_catalog.pg_stat_get_activity(%s)
    """
    found = scalar(connection, sql, (pid,))
    return None if found is None else sorted(set(found))


def waits_for(connection: Connection, pid: int, pids: list[int]) -> tuple[Wanted, tuple[Blocker, ...]]:
    """Return which lock a backend waits for, and who is in the way.

    :param pids: those who are, see :func:`blocking_pids`.
    """
    lock = wanted_by(connection, pid)
    return lock, _described(connection, pids, lock)


def wanted_by(connection: Connection, pid: int) -> Wanted:
    """Read which lock a backend waits for; a wait for a row is one for the transaction that changed it."""
    sql = """
        SELECT wanted.relation::bigint, wanted.relation::regclass::text, wanted.transactionid, wanted.mode,
               wanted.locktype
        FROM (
            SELECT COALESCE(max(relation::bigint) FILTER (WHERE NOT granted),
                            max(relation::bigint) FILTER (WHERE locktype = 'tuple'))::oid AS relation,
                   max(transactionid::text) FILTER (WHERE NOT granted) AS transactionid,
                   max(mode) FILTER (WHERE NOT granted) AS mode,
                   max(locktype) FILTER (WHERE NOT granted) AS locktype
            FROM pg_catalog.pg_locks
            WHERE pid = %s
        ) AS wanted
    """
    found = row(connection, sql, (pid,))
    return Wanted(*found) if found else Wanted()


def _described(connection: Connection, pids: list[int], wanted: Wanted) -> tuple[Blocker, ...]:
    """Describe the sessions and prepared transactions that keep a lock from us."""
    # An autovacuum worker is the only session of a database without a user, which every role can see; the
    # role may see neither its type nor its query.
    sql = f"""
        SELECT blocking.pid, a.usename, a.application_name, a.state,
               EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start)::float8,
               upper(substring(a.query FROM '^[[:space:]]*([A-Za-z]+)')), a.query,
               a.datid IS NOT NULL AND a.usesysid IS NULL,
               a.query LIKE '%%(to prevent wraparound)', {signal_rights.FIRST}
        FROM unnest(%s::integer[]) AS blocking (pid)
        LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = blocking.pid
        {signal_rights.JOINS}
    """
    result: list[Blocker] = []
    for pid, role, application, state, age, command, query, autovacuum, wraparound, first in rows(
        connection, sql, (pids,)
    ):
        log.debug("blocked", extra={"pid": pid, "query": query})
        session = (pid, role, application, state, age, command, wanted.table, wanted.relation)
        if pid == _PREPARED:
            result += _prepared(connection, wanted)
        elif autovacuum:
            result.append(Autovacuum(*session, gives_way=not wraparound))
        else:
            result.append(Blocker(*session, first))
    return tuple(result)


def _prepared(connection: Connection, wanted: Wanted) -> list[Blocker]:
    """Name the prepared transactions that hold a lock which conflicts with the wanted one."""
    sql = """
        WITH held AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks WHERE pid IS NULL AND granted)
        SELECT prepared.owner, EXTRACT(EPOCH FROM clock_timestamp() - prepared.prepared)::float8, prepared.gid
        FROM pg_catalog.pg_prepared_xacts AS prepared
        JOIN held AS its_own ON its_own.transactionid = prepared.transaction
        WHERE prepared.database = current_database()
          AND (prepared.transaction::text = %s
               OR EXISTS (SELECT FROM held
                          WHERE held.virtualtransaction = its_own.virtualtransaction
                            AND held.relation = %s::oid AND held.mode = ANY(%s)))
    """
    conflicting = CONFLICTS.get(wanted.mode or "", [])
    found = rows(connection, sql, (wanted.transaction, wanted.relation, conflicting)) or [(None, None, None)]
    place = (wanted.table, wanted.relation)
    return [
        PreparedTransaction(_PREPARED, role, None, None, age, None, *place, gid=gid)
        for role, age, gid in found
    ]
