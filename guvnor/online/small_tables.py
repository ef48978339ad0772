"""Whether an index is better built in the revision's own transaction: its table is small, and locked anyway.

An online step marks the database dirty while it runs, and lets golang-migrate in. An application that
migrates at its start, and was waiting for our transaction, wakes into that mark. Where the build takes a
moment and the transaction keeps everybody from the table already, none of that is needed.
"""

from __future__ import annotations

import psycopg2

from guvnor.postgres import Connection, rows, scalar
from guvnor.postgres.quoting import quoted

_FEW = 8  # blocks
_LOCKED = """
    SELECT l.relation::bigint
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode = %s
      AND c.relkind = 'r'
"""


def can_be_built_at_once(connection: Connection, name: str, sql: str) -> bool:
    """Tell whether the table of an index has a few blocks, and this transaction has locked out everybody.

    The server says which table that is: CREATE INDEX IF NOT EXISTS locks it before it finds that a relation
    of the index's name is there, and builds nothing then (PostgreSQL documentation, CREATE INDEX). Such a
    relation is made for that, and everything is undone.

    :param connection: in the revision's transaction; in autocommit mode, the answer is no.
    :param sql: the statement for the index without CONCURRENTLY.
    """
    if connection.autocommit:
        return False
    ours = _locked(connection, "AccessExclusiveLock")
    if not any(_has_few_blocks(connection, oid) for oid in ours):
        return False
    before = _locked(connection, "ShareLock")
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT guvnor_probe")
        try:
            cursor.execute(f"SET LOCAL lock_timeout = '1ms'; CREATE SEQUENCE {quoted(name)}")
            cursor.execute(sql)
            after = _locked(connection, "ShareLock")
            found = after - before or after  # an earlier statement may have taken the same lock
        except psycopg2.Error:
            found = set()  # the index may be there already, or the table is busy
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT guvnor_probe; RELEASE SAVEPOINT guvnor_probe")
    return bool(found) and found <= ours and all(_has_few_blocks(connection, oid) for oid in found)


def _locked(connection: Connection, mode: str) -> set[int]:
    """Return the tables that this transaction has locked in a mode, by their oids."""
    return {oid for (oid,) in rows(connection, _LOCKED, (mode,))}


def _has_few_blocks(connection: Connection, oid: int) -> bool:
    """Tell whether a table has a few blocks, of live rows or not."""
    blocks = scalar(connection, "SELECT pg_relation_size(%s) / current_setting('block_size')::bigint", (oid,))
    return blocks is not None and int(blocks) <= _FEW
