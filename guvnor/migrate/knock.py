"""Knocking: asking for a weak lock before a strong one, so that nobody queues behind the strong one.

An autovacuum is cancelled for a session that has waited ``deadlock_timeout`` for its lock (PostgreSQL
documentation, "The Autovacuum Daemon"). A try does not wait that long for ACCESS EXCLUSIVE, since the
application would queue behind it. SHARE UPDATE EXCLUSIVE conflicts with a vacuum, but neither with reads nor
with writes. So a transaction that asks for this mode first makes an autovacuum go while the application goes
on, keeps the next one out, and can then have the strong lock at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from guvnor.online.blockers import Autovacuum, Blocker

log = logging.getLogger(__name__)

_MARGIN = 2.0  # seconds beyond deadlock_timeout, in which a cancelled autovacuum comes to its end

_LOCK = "LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE"
# LOCK takes neither a materialized view nor a TOAST table. Changing a storage parameter takes the same lock
# on them; the change is rolled back.
_RESET = "SAVEPOINT knock; ALTER TABLE {name} RESET ({parameter}); ROLLBACK TO SAVEPOINT knock"


@dataclass
class Knock:
    """The tables that the transactions of a step knock on, first thing.

    :ivar relations: their OIDs, in the order in which they were found to be in the way.
    :ivar waits_for: the table that it waits for, or was waiting for when it gave up; None for none.
    """

    relations: list[int] = field(default_factory=list)
    waits_for: str | None = field(default=None, init=False)

    def learn(self, blockers: Iterable[Blocker]) -> None:
        """Remember the tables from which an autovacuum can be asked to go.

        :param blockers: who was in the way of the last try.
        """
        for blocker in blockers:
            gives_way = isinstance(blocker, Autovacuum) and blocker.gives_way
            if gives_way and blocker.relation is not None and blocker.relation not in self.relations:
                self.relations.append(blocker.relation)

    def ask(self, cursor: Any, patience: float) -> None:
        """Ask for the locks, in the transaction that is about to need stronger ones.

        :param patience: seconds to wait at most, for all of them.
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
        for name, parameter in self._lockable(cursor):
            log.info("knocking, so that an autovacuum goes", extra={"table": name})
            self.waits_for = name
            timeout = min(deadlock_timeout + _MARGIN, deadline - time.monotonic())
            cursor.execute(f"SET LOCAL lock_timeout = {max(1, round(timeout * 1000))}")
            cursor.execute((_RESET if parameter else _LOCK).format(name=name, parameter=parameter))
        self.waits_for = None

    def _lockable(self, cursor: Any) -> list[tuple[str, str | None]]:
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
