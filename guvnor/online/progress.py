"""The progress of a long step, read from the server while the step runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import psycopg2

from guvnor.online import blockers
from guvnor.online.repeating import repeating
from guvnor.postgres import Connection, row

_INTERVAL = 0.5  # seconds between two polls

# What the server does in a step of one statement, by the first word of the step.
_DOING = {"validate": "validating", "check": "validating", "drop": "dropping", "add": "adding"}


@dataclass(frozen=True)
class Progress:
    """The progress of a long step.

    :ivar what: the step, in words.
    :ivar phase: what the server is doing now.
    :ivar done: units done; None where that is not known.
    :ivar total: units in all; None where that is not known.
    :ivar ended: whether the step is over.
    """

    what: str
    phase: str
    done: int | None = None
    total: int | None = None
    ended: bool = False


def index_build(connection: Connection, what: str, pid: int) -> Progress | None:
    """Read the progress of a backend's index build; None when it builds none.

    See the PostgreSQL documentation, "CREATE INDEX Progress Reporting".
    """
    sql = """
        SELECT phase,
               CASE WHEN tuples_total > 0 THEN tuples_done WHEN blocks_total > 0 THEN blocks_done
                    WHEN lockers_total > 0 THEN lockers_done END,
               CASE WHEN tuples_total > 0 THEN tuples_total WHEN blocks_total > 0 THEN blocks_total
                    WHEN lockers_total > 0 THEN lockers_total END
        FROM pg_catalog.pg_stat_progress_create_index
        WHERE pid = %s
    """
    found = row(connection, sql, (pid,))
    return Progress(what, *found) if found else None


def step(connection: Connection, what: str, pid: int) -> Progress | None:
    """Read the progress of a backend's online step: its index build, and the session that it waits for.

    The step has no lock timeout, so the report must name what it waits for.

    :returns: None when it neither waits nor is one statement; what goes on range by range tells by itself.
    """
    waits, blocked_by = blockers.read(connection, pid)
    build = index_build(connection, what, pid)
    if not waits or not blocked_by:
        doing = _DOING.get(what.partition(" ")[0])
        return build or (Progress(what, doing) if doing else None)
    phase = f"waits for {blocked_by[0]}"
    return replace(build, phase=f"{build.phase}, {phase}") if build else Progress(what, phase)


@contextlib.contextmanager
def watching(read: Callable[[], Progress | None], report: Callable[[Progress], None]) -> Iterator[None]:
    """Read and report progress from a thread while the body runs a statement.

    :param read: reads it on another connection than the busy one.
    """

    def look() -> bool:
        try:
            progress = read()
        except psycopg2.Error:
            return False  # the run itself notices the lost connection
        if progress:
            report(progress)
        return True

    with repeating("progress", _INTERVAL, look):
        yield
