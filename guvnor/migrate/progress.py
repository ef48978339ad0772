"""How far a long step is, read from the server while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg2

from guvnor.postgres import Connection

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
    with connection.cursor() as cursor:
        cursor.execute(
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
        row = cursor.fetchone()
    return Progress(what, *row) if row else None


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
