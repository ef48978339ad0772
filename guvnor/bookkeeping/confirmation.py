"""Synchronous standbys: no lock is held while one is waited for, and each revision is confirmed afterwards.

A commit waits for a synchronous standby while it still holds its locks, without a limit (PostgreSQL
documentation, "Synchronous Replication"). So the sessions of this project commit with ``synchronous_commit =
local``. After a revision, one event of the history is committed as the server's settings say; once a standby
has that, it has everything before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from guvnor.postgres import Connection, cancellation, scalar, transaction

LIMIT = 30.0  # seconds to wait for a standby


def is_awaited(connection: Connection) -> bool:
    """Tell whether an ordinary commit of this role in this database waits for a standby."""
    sql = """
        SELECT current_setting('synchronous_standby_names') <> '' AND EXISTS (
            SELECT FROM pg_catalog.pg_settings
            WHERE name = 'synchronous_commit' AND reset_val NOT IN ('off', 'local')
        )
    """
    return bool(scalar(connection, sql))


def is_missing(connection: Connection) -> bool:
    """Tell whether ordinary commits wait for a standby while none is connected.

    The role may be one that sees no details of standbys (pg_monitor does); then any standby counts.
    """
    sql = """
        SELECT count(*) = 0 FROM pg_catalog.pg_stat_replication
        WHERE sync_state IS NULL OR sync_state IN ('sync', 'quorum')
    """
    return is_awaited(connection) and bool(scalar(connection, sql))


def commit_confirmed(connection: Connection, write: Callable[[], None], limit: float = LIMIT) -> bool:
    """Commit something as the server's settings say, and tell whether the standby has confirmed it.

    :param connection: in autocommit mode.
    :param write: writes it on that connection, in an explicit transaction.
    :param limit: seconds; then the wait is cancelled, which leaves the commit in place.
    :raises psycopg2.Error: when it was not committed.
    """
    ended, lock = False, threading.Lock()

    def cancel() -> None:
        with lock:
            if not ended:
                cancellation.cancel(connection)

    timer = threading.Timer(limit, cancel)
    timer.daemon = True
    try:
        with transaction(connection) as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO DEFAULT")
            write()
            del connection.notices[:]
            timer.start()
    finally:
        timer.cancel()
        with lock:
            ended = True
    # A wait that ends early ends with a warning, whoever cancelled it; nothing else warns in a COMMIT.
    return not connection.notices
