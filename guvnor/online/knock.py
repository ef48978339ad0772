"""Knocking: asking for a lock without waiting for it, so that nobody queues behind the one who asks.

Who waits for a strong lock makes everybody wait who comes later. So the first try waits briefly and learns
which tables were in the way. From then on a transaction of its own asks for their locks with NOWAIT, again
and again (PostgreSQL documentation, LOCK). Once all were free, the revision is tried again, and asks in the
same way directly before the statement that had waited.

An autovacuum is cancelled for a session that has waited ``deadlock_timeout`` for its lock (PostgreSQL
documentation, "The Autovacuum Daemon"). SHARE UPDATE EXCLUSIVE conflicts with a vacuum, but neither with
reads nor with writes. So a transaction that waits for this mode first makes an autovacuum go while the
application goes on, keeps the next one out, and can then have the strong lock at once.

Where a table is never free, since short transactions overlap all the time, only waiting helps.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from guvnor.online.blockers import Autovacuum, Blocker, LockHolder, Wanted
from guvnor.online.lock_modes import in_sql
from guvnor.postgres import Connection, rows, scalar

log = logging.getLogger(__name__)

_OFTEN, _SELDOM = 0.02, 0.2  # seconds between two knocks
_OFTEN_FOR = 10.0  # seconds; a knock can cost a transaction ID
_LOOK_FIRST, _LOOK_MOST = 0.2, 6.4  # seconds between two looks at who is in the way
_REFUSED_MOST = 3  # times that a table was free for the knock, and not for the revision

_MARGIN = 2.0  # seconds beyond deadlock_timeout, in which a cancelled autovacuum comes to its end
_GENTLE = "LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE"
# LOCK takes neither a materialized view nor a TOAST table. Changing a storage parameter takes the same lock
# on them; the change is rolled back.
_RESET = "SAVEPOINT knock; ALTER TABLE {name} RESET ({parameter}); ROLLBACK TO SAVEPOINT knock"


class Answer(Enum):
    """How a knock has ended."""

    FREE = auto()  # all tables were free at the same moment
    CROWDED = auto()  # one is never free: transactions overlap on it all the time
    AUTOVACUUM = auto()  # an autovacuum that gives way is all that stays in the way
    UNKNOWN = auto()  # what was waited for is nothing to knock on
    TIME_UP = auto()


@dataclass(frozen=True)
class RevisionStatement:
    """A statement of a revision, known by its text and its place within its transaction."""

    place: int
    text: str


@dataclass
class Knock:
    """The tables that a step knocks on.

    :ivar relations: the OIDs of those from which autovacuum is asked to go, in the order in which it was
        found to be in the way.
    :ivar waits_for: the table that is waited for in this, or was when it was given up; None for none.
    :ivar was_refused: whether the last try was refused a lock that the last knock had found free.
    """

    relations: list[int] = field(default_factory=list)
    waits_for: str | None = field(default=None, init=False)
    _learned: dict[RevisionStatement, list[Wanted]] = field(default_factory=dict, init=False)
    _waits: bool = field(default=False, init=False)
    _refusals: int = field(default=0, init=False)
    was_refused: bool = field(default=False, init=False)
    _look_after: float = field(default=_LOOK_FIRST, init=False)

    def learn(
        self, statement: RevisionStatement | None, wanted: Wanted | None, blockers: Iterable[Blocker]
    ) -> bool:
        """Remember what a statement has waited for, and tell whether one can knock there.

        :param statement: None where the tool itself has waited.
        :param blockers: who was in the way.
        """
        self._learn_autovacuum(blockers)
        if statement is None or wanted is None or wanted.relation is None or wanted.kind != "relation":
            return False
        known = self._learned.setdefault(statement, [])
        if (wanted.relation, wanted.mode) not in {(lock.relation, lock.mode) for lock in known}:
            known.append(wanted)
            known.sort(key=lambda lock: lock.relation or 0)
        return True

    def _learn_autovacuum(self, blockers: Iterable[Blocker]) -> None:
        found = (blocker.relation for blocker in blockers if _gives_way(blocker))
        self.relations += [oid for oid in found if oid is not None and oid not in self.relations]

    def until_free(
        self,
        driver: Connection,
        look: Callable[[list[Wanted]], list[LockHolder]],
        remaining: Callable[[], float],
    ) -> Answer:
        """Knock until the tables that were learned are free.

        :param driver: of the session that needs the locks, outside of a transaction.
        :param look: returns who is in the way, as another session sees it.
        :param remaining: returns for how many seconds to go on.
        """
        began = looked = time.monotonic()
        self._refusals = self._refusals + 1 if self.was_refused else 0
        locks = [lock for known in self._learned.values() for lock in known]
        wanted = lockable(driver, locks)
        if not wanted:
            return Answer.UNKNOWN
        before = None
        while self._refusals < _REFUSED_MOST:
            if _are_free(driver, wanted):
                self._waits = self.was_refused = False
                return Answer.FREE
            now = time.monotonic()
            if before is None or now - looked >= self._look_after:
                holders, looked = look(locks), now
                here = {holder.transaction for holder in holders if not _gives_way(holder.blocker)}
                stays = here if before is None else here & before
                if not stays and any(_gives_way(holder.blocker) for holder in holders):
                    self._learn_autovacuum(holder.blocker for holder in holders)
                    self._waits = self.was_refused = False
                    return Answer.AUTOVACUUM
                if before is not None:
                    self._look_after = min(_LOOK_MOST, self._look_after * 2)
                    if not stays:
                        break
                before = here
            if remaining() <= 0:
                return Answer.TIME_UP
            pause = _OFTEN if now - began < _OFTEN_FOR else _SELDOM
            time.sleep(random.uniform(pause / 2, pause * 1.5))  # noqa: S311 - no secret
        self._waits, self.was_refused, self._refusals = True, False, 0
        return Answer.CROWDED

    def before(self, driver: Connection, statement: RevisionStatement) -> None:
        """Ask for the locks of a statement directly before it, in its transaction.

        :raises psycopg2.errors.LockNotAvailable: when one of them is not free.
        """
        if self._waits or statement not in self._learned:
            return
        wanted = lockable(driver, self._learned[statement])
        self.was_refused = True
        with driver.cursor() as cursor:
            for lock in wanted:
                cursor.execute(_strong(*lock))
        self.was_refused = False

    def ask_autovacuum(self, cursor: Any, patience: float) -> None:
        """Make autovacuum go, in the transaction that is about to need stronger locks.

        :param patience: seconds to wait at most, for all tables.
        :raises psycopg2.errors.LockNotAvailable: when one of them could not be had, for instance since the
            autovacuum prevents transaction ID wraparound.
        """
        self.waits_for = None
        if not self.relations:
            return
        cursor.execute(
            "SELECT setting::float8 / 1000 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'"
        )
        (deadlock_timeout,) = cursor.fetchone()
        deadline = time.monotonic() + patience
        for name, parameter in self._vacuumed(cursor):
            log.info("knocking, so that an autovacuum goes", extra={"table": name})
            self.waits_for = name
            timeout = min(deadlock_timeout + _MARGIN, deadline - time.monotonic())
            cursor.execute(f"SET LOCAL lock_timeout = {max(1, round(timeout * 1000))}")
            cursor.execute((_RESET if parameter else _GENTLE).format(name=name, parameter=parameter))
        self.waits_for = None

    def _vacuumed(self, cursor: Any) -> list[tuple[str, str | None]]:
        """Return the tables to lock that are still there, as far as the role may lock them.

        An index is locked by way of its table, and a TOAST table by way of the table that it belongs to.

        :returns: the name of each as SQL writes it, and the storage parameter to change where LOCK fails.
        """
        cursor.execute(
            """
            SELECT name, parameter
            FROM unnest(%s::oid[]) WITH ORDINALITY AS wanted (oid, place)
            LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = wanted.oid
            LEFT JOIN pg_catalog.pg_class AS main ON main.reltoastrelid = wanted.oid
            JOIN pg_catalog.pg_class AS c ON c.oid = COALESCE(main.oid, i.indrelid, wanted.oid)
            CROSS JOIN LATERAL (
                SELECT c.oid::regclass::text,
                       CASE WHEN main.oid IS NOT NULL THEN 'toast.autovacuum_enabled'
                            WHEN c.relkind = 'm' THEN 'autovacuum_enabled' END
            ) AS found (name, parameter)
            WHERE CASE WHEN parameter IS NOT NULL THEN pg_has_role(c.relowner, 'USAGE')
                       ELSE has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') END
            ORDER BY place
            """,
            (self.relations,),
        )
        return list(cursor.fetchall())


def lockable(connection: Connection, locks: list[Wanted]) -> list[tuple[str, str]]:
    """Return which locks LOCK takes: on tables and partitioned tables that are there, and may be locked.

    :returns: the name of each as SQL writes it, and the mode.
    """
    sql = """
        SELECT c.oid::regclass::text, wanted.mode
        FROM unnest(%s::oid[], %s::text[]) WITH ORDINALITY AS wanted (oid, mode, place)
        JOIN pg_catalog.pg_class AS c ON c.oid = wanted.oid
        WHERE c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
        ORDER BY place
    """
    found = rows(connection, sql, ([lock.relation for lock in locks], [lock.mode for lock in locks]))
    return [(name, mode) for name, mode in found]


def _strong(name: str, mode: str) -> str:
    return f"LOCK TABLE ONLY {name} IN {in_sql(mode)} MODE NOWAIT"


def _are_free(driver: Connection, wanted: Iterable[tuple[str, str]]) -> bool:
    """Tell whether all locks can be had at this moment, and release them at once."""
    # Caught where it arises, a refusal does not fill the server's log, knock after knock.
    sql = f"""
        DO $knock$ BEGIN
            {"; ".join(_strong(*lock) for lock in wanted)};
        EXCEPTION WHEN lock_not_available THEN
            PERFORM set_config('guvnor.refused', 'yes', true);
        END $knock$;
        SELECT COALESCE(current_setting('guvnor.refused', true), '') = ''
    """
    try:
        return bool(scalar(driver, sql))
    finally:
        driver.rollback()


def _gives_way(blocker: Blocker) -> bool:
    return isinstance(blocker, Autovacuum) and blocker.gives_way
