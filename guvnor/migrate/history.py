"""The history of migrations: an append-only table of events, written beside the work.

``started`` is committed before the work, ``online`` together with the first committed step of a revision that
cannot run in one transaction (and before each later one), ``succeeded`` in the revision's own transaction,
``failed`` or ``interrupted`` after the rollback, ``measured`` after it all. All events of one attempt share
its number; an attempt without an end is a killed run. ``marked`` and ``unmarked`` say whether this database
is production.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from guvnor import __version__
from guvnor.errors import GuvnorError
from guvnor.postgres import Connection, scalar

TABLE = "guvnor_migration_history"
LAYOUT = 1  # of the table; kept in its comment, so that an older tool knows that it is too old

CREATE = (
    """
    CREATE TABLE IF NOT EXISTS guvnor_migration_history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        attempt uuid NOT NULL,
        event text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        direction text NOT NULL,
        revision text,
        from_version text,
        to_version text,
        step text,
        resumable boolean,
        duration_ms bigint,
        lock_wait_ms bigint,
        tries integer,
        database_bytes bigint,
        checksum text,
        sqlstate text,
        error text,
        database_role text NOT NULL DEFAULT current_user,
        os_user text,
        host text,
        job text,
        tool text NOT NULL,
        database_identity text
    )
    """,
    f"COMMENT ON TABLE guvnor_migration_history IS 'layout {LAYOUT}'",
)

_INSERT = """
    INSERT INTO public.guvnor_migration_history ({columns})
    VALUES ({values})
"""


class ToolTooOldError(GuvnorError):
    """This release of guvnor is older than the one that migrated the database."""

    exit_code = 5
    state = "Nothing was changed."
    next_step = "Use the release that `guvnor migrate history` names, or a newer one."


@dataclass(frozen=True)
class Attempt:
    """One run of one revision, or of a command that moves the version by itself (force, stamp, adopt)."""

    number: str
    direction: str
    revision: str | None
    from_version: str | None
    to_version: str | None
    checksum: str | None = None
    tool: str = field(default=f"guvnor {__version__}")


@dataclass(frozen=True)
class Start:
    """The last attempt that has not succeeded.

    :ivar end: ``failed`` or ``interrupted``; None for a killed run.
    :ivar step: the last online step that it began; None when it committed nothing.
    :ivar resumable: whether it committed steps, all of which can be run again.
    """

    attempt: str
    direction: str
    revision: str | None
    from_version: str | None
    to_version: str | None
    at: datetime
    who: str
    end: str | None
    step: str | None
    resumable: bool

    @property
    def target_number(self) -> int:
        """The number of the version that it was moving to; 0 for none."""
        return int(self.to_version) if self.to_version and self.to_version.isdecimal() else 0


@dataclass(frozen=True)
class Mark:
    """Who marked a database as production, and when."""

    at: datetime
    who: str


@dataclass(frozen=True)
class Entry:
    """One attempt, as ``guvnor migrate history`` shows it."""

    at: datetime
    direction: str
    revision: str | None
    from_version: str | None
    to_version: str | None
    outcome: str
    duration_ms: int | None
    lock_wait_ms: int | None
    tries: int | None
    size_change: int | None
    database_role: str
    os_user: str | None
    host: str | None
    job: str | None
    tool: str
    checksum: str | None
    sqlstate: str | None
    error: str | None


def exists(connection: Connection) -> bool:
    """Tell whether the history table is there."""
    return bool(scalar(connection, "SELECT to_regclass('public.guvnor_migration_history') IS NOT NULL"))


def check_layout(connection: Connection) -> None:
    """Check that this release knows the layout of the history table.

    :raises ToolTooOldError: when a newer release has made or changed it (exit code 5).
    """
    comment = scalar(
        connection,
        "SELECT obj_description(to_regclass('public.guvnor_migration_history'), 'pg_class')",
    )
    layout = int(comment.removeprefix("layout ")) if comment and comment[7:].isdecimal() else LAYOUT
    if layout > LAYOUT:
        raise ToolTooOldError(
            f"A newer release of guvnor keeps the history of this database (layout {layout}; "
            f"this release, {__version__}, knows {LAYOUT})."
        )


@cache
def _identity() -> dict[str, str | None]:
    try:
        user: str | None = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else None
    return {"os_user": user, "host": socket.gethostname(), "job": _job()}


def _job() -> str | None:
    """Name the job that runs this, from the environments of the common systems."""
    for system, names in (
        ("github", ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_SHA")),
        ("gitlab", ("CI_PROJECT_PATH", "CI_JOB_ID", "CI_COMMIT_SHA")),
        ("jenkins", ("BUILD_TAG", "GIT_COMMIT")),
        ("kubernetes", ("POD_NAMESPACE", "POD_NAME")),
    ):
        values = [os.environ[name] for name in names if os.environ.get(name)]
        if values:
            return f"{system}: {' '.join(values)}"
    return None


def record(cursor: Any, attempt: Attempt, event: str, **columns: Any) -> None:
    """Write one event in the cursor's transaction (or at once, in autocommit mode).

    :param columns: further columns of the table by name.
    """
    values: Mapping[str, Any] = {
        "attempt": attempt.number,
        "event": event,
        "direction": attempt.direction,
        "revision": attempt.revision,
        "from_version": attempt.from_version,
        "to_version": attempt.to_version,
        "checksum": attempt.checksum,
        "tool": attempt.tool,
        **_identity(),
        **columns,
    }
    cursor.execute(
        _INSERT.format(columns=", ".join(values), values=", ".join(["%s"] * len(values))),
        tuple(values.values()),
    )


def unfinished(connection: Connection) -> Start | None:
    """Return the last attempt when it did not succeed, else None."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                started.attempt::text, started.direction, started.revision, started.from_version,
                started.to_version, started.at,
                concat(started.database_role, ' (', concat_ws(', ',
                    started.os_user || '@' || started.host, started.job), ')'),
                (SELECT later.event FROM public.guvnor_migration_history AS later
                 WHERE later.attempt = started.attempt AND later.event IN ('failed', 'interrupted')
                 ORDER BY later.id DESC LIMIT 1),
                (SELECT online.step FROM public.guvnor_migration_history AS online
                 WHERE online.attempt = started.attempt AND online.event = 'online'
                 ORDER BY online.id DESC LIMIT 1),
                COALESCE((SELECT bool_and(online.resumable) FROM public.guvnor_migration_history AS online
                          WHERE online.attempt = started.attempt AND online.event = 'online'), false)
            FROM (
                SELECT * FROM public.guvnor_migration_history
                WHERE event = 'started' ORDER BY id DESC LIMIT 1
            ) AS started
            WHERE NOT EXISTS (
                SELECT FROM public.guvnor_migration_history AS ended
                WHERE ended.attempt = started.attempt AND ended.event = 'succeeded'
            )
            """
        )
        row = cursor.fetchone()
    return Start(*row) if row else None


def production_mark(connection: Connection) -> Mark | None:
    """Return who marked this very database as production; a restored copy's mark does not count."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT event, at, concat(database_role, ' (', os_user, '@', host, ')')
            FROM public.guvnor_migration_history
            WHERE event IN ('marked', 'unmarked') AND database_identity = %s
            ORDER BY id DESC
            LIMIT 1
            """,
            (database_identity(connection),),
        )
        row = cursor.fetchone()
    return Mark(row[1], row[2]) if row and row[0] == "marked" else None


def set_mark(connection: Connection, *, production: bool) -> None:
    """Record that this very database is production, or is no longer."""
    attempt = Attempt(str(uuid.uuid4()), "mark", None, None, None)
    with connection.cursor() as cursor:
        create(cursor)
        record(
            cursor,
            attempt,
            "marked" if production else "unmarked",
            database_identity=database_identity(connection),
        )


def create(cursor: Any) -> None:
    """Create the history table when it is missing."""
    cursor.execute("SELECT to_regclass('public.guvnor_migration_history') IS NULL")
    if cursor.fetchone() == (True,):
        cursor.execute(";".join(CREATE))


def database_identity(connection: Connection) -> str:
    """Return what tells this database from a copy: the cluster's identifier and the database's oid."""
    return str(
        scalar(
            connection,
            """
            SELECT concat(
                CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
                     THEN (SELECT system_identifier FROM pg_catalog.pg_control_system()) END,
                '/', (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            )
            """,
        )
    )


def database_size(connection: Connection) -> int:
    """Return the size of the database in bytes; slow, so never inside a revision's transaction."""
    return int(scalar(connection, "SELECT pg_database_size(current_database())"))


def entries(connection: Connection) -> list[Entry]:
    """Return every attempt, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                started.at, started.direction, started.revision, started.from_version, started.to_version,
                COALESCE(ended.event, 'killed'), ended.duration_ms, ended.lock_wait_ms, ended.tries,
                measured.database_bytes - started.database_bytes, started.database_role, started.os_user,
                started.host, started.job, started.tool, started.checksum, ended.sqlstate, ended.error
            FROM public.guvnor_migration_history AS started
            LEFT JOIN LATERAL (
                SELECT * FROM public.guvnor_migration_history AS e
                WHERE e.attempt = started.attempt AND e.event IN ('succeeded', 'failed', 'interrupted')
                ORDER BY e.id DESC LIMIT 1
            ) AS ended ON true
            LEFT JOIN LATERAL (
                SELECT m.database_bytes FROM public.guvnor_migration_history AS m
                WHERE m.attempt = started.attempt AND m.event = 'measured' LIMIT 1
            ) AS measured ON true
            WHERE started.event = 'started'
            ORDER BY started.id
            """
        )
        return [Entry(*row) for row in cursor.fetchall()]
