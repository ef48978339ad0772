"""What a test waits for, and what it sees of sessions and locks from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from psycopg2.extensions import connection

from tests.support.server import Target, run

T = TypeVar("T")

# Sessions of a command under test, as they call themselves.
OURS = "datname = current_database() AND application_name LIKE 'guvnor %%'"


def wait_for(what: str, seen: Callable[[], T], seconds: float = 20) -> T:
    """Look until something is seen, and return it.

    :param what: for the message when it does not come.
    """
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return found


def running(target: Target, pattern: str) -> int:
    """Wait until one of our sessions runs a statement like this; return its pid."""
    return wait_for(
        pattern,
        lambda: [
            pid
            for (pid,) in target.execute(
                f"SELECT pid FROM pg_stat_activity WHERE {OURS} AND state = 'active' AND query ~* %s",
                [pattern],
            )
        ],
    )[0]


def finds_it_busy(process: Any) -> None:
    """Wait until a run says that it could not have a lock."""
    wait_for("a busy table", lambda: "could not get a lock" in process.stderr.read())


def waiting_for_lock(observer: connection, table: str) -> list[tuple[Any, ...]]:
    """Return who waits for a lock on a table: pid and virtual transaction."""
    return run(
        observer,
        "SELECT pid, virtualtransaction FROM pg_locks WHERE relation = %s::regclass AND NOT granted",
        [table],
    )


def sessions(target: Target) -> int:
    """Count our sessions that are still there."""
    ((count,),) = target.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}", [])
    return int(count)
