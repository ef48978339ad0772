"""A sign of life of a runner: its session that holds the run lock runs a query every few seconds.

The server keeps a session whose client is frozen (SIGSTOP, a paused container), and for a while one whose
client has vanished. ``pg_stat_activity`` tells how long the session has been silent; see
:func:`guvnor.migrate.locks.holder`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2

from guvnor.online.repeating import repeating
from guvnor.postgres import Connection

INTERVAL = 5.0  # seconds


@contextlib.contextmanager
def beating(connection: Connection) -> Iterator[None]:
    """Run a query now and then while the body works.

    :param connection: what the body does on it may be in autocommit mode or in an explicit transaction.
    """

    def beat() -> bool:
        # Its transaction may be in error, or a signal may cancel this instead of the run's statement.
        with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return not connection.closed

    with repeating("heartbeat", INTERVAL, beat):
        yield
