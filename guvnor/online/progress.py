"""How far a long step is, read from the server while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import psycopg2

from guvnor.online import blockers
from guvnor.postgres import Connection, row

_INTERVAL = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Progress:
    """How far a long step is.

    :ivar what: the step, in words.
    :ivar phase: what the server is doing now.
    :ivar done: units done; None where that is not known.
    :ivar total: units in all; None where that is not known.
    """

    what: str
    phase: str
    done: int | None = None
    total: int | None = None


def index_build(connection: Connection, what: str, pid: int) -> Progress | None:
    """Read how far a backend's index build is (PostgreSQL documentation, "CREATE INDEX Progress Reporting").

    :param pid: of the backend that builds.
    :returns: None when it builds none.
    """
    found = row(
        connection,
        """
        SELECT phase,
               CASE WHEN tuples_total > 0 THEN tuples_done WHEN blocks_total > 0 THEN blocks_done
                    WHEN lockers_total > 0 THEN lockers_done END,
               CASE WHEN tuples_total > 0 THEN tuples_total WHEN blocks_total > 0 THEN blocks_total
                    WHEN lockers_total > 0 THEN lockers_total END
        FROM pg_catalog.pg_stat_progress_create_index
        WHERE pid = %s
        """,
        (pid,),
    )
    return Progress(what, *found) if found else None


def step(connection: Connection, what: str, pid: int) -> Progress | None:
    """Read how far a backend's online step is: the index that it builds, and the session that it waits for.

    It has no lock timeout, so whoever looks on has to know what it waits for.

    :param pid: of the backend that runs the step.
    :returns: None when it neither builds an index nor waits.
    """
    waits, blocked_by = blockers.read(connection, pid)
    build = index_build(connection, what, pid)
    if not waits or not blocked_by:
        return build
    phase = f"waits for {blocked_by[0]}"
    return replace(build, phase=f"{build.phase}, {phase}") if build else Progress(what, phase)


@contextlib.contextmanager
def watching(read: Callable[[], Progress | None], report: Callable[[Progress], None]) -> Iterator[None]:
    """Read and report progress from a thread while the body runs a statement.

    :param read: reads it, through another connection than the one that is busy.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(_INTERVAL):
            try:
                progress = read()
            except psycopg2.Error:
                return  # progress is a comfort; that the connection is gone is noticed elsewhere
            if progress:
                report(progress)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
