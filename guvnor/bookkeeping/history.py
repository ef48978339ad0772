"""The history of migrations: an append-only table of events, written beside the work.

``started`` is committed before the work, ``online`` together with the first committed step of a revision that
cannot run in one transaction (and before each later one), ``succeeded`` in the revision's own transaction,
``failed`` or ``interrupted`` after the rollback, ``measured`` at the end. All events of one attempt share
its number; an attempt without an end is a killed run. ``repair`` says that a user chose to run a dirty
revision again, ``accepted`` that a user let the changed file of an applied revision pass. ``marked`` and
``unmarked`` say whether this database is production.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any

from psycopg2 import extensions

from guvnor import __version__
from guvnor.bookkeeping import invoker, tables
from guvnor.config import presentable, seconds
from guvnor.errors import ExitCode, GuvnorError, UsageError
from guvnor.postgres import Connection, row, rows, scalar, tls


class ToolTooOldError(GuvnorError):
    """This release of guvnor is older than the one that migrated the database."""

    exit_code = ExitCode.DECISION
    state = "Nothing was changed."
    next_step = "Use the release that `guvnor migrate history` names, or a newer one."


@dataclass(frozen=True)
class Attempt:
    """One run of one revision, or of a command that moves the version by itself (force, stamp, adopt).

    Its fields are columns of the table.

    :ivar rendering: how the statements of the checksum were rendered; None by an older release.
    :ivar source: the fingerprint of the file; None by an older release, or without a file.
    :ivar checkout: the branch and the commit that were checked out; None without Git.
    """

    direction: str
    revision: str | None
    from_version: str | None
    to_version: str | None
    checksum: str | None = None
    rendering: int | None = None
    tool: str = field(default=f"guvnor {__version__}")
    note: str | None = None
    attempt: str = field(default_factory=lambda: str(uuid.uuid4()))
    source: str | None = None
    checkout: str | None = None


@dataclass(frozen=True)
class Start:
    """The last attempt that has not succeeded.

    :ivar end: ``failed`` or ``interrupted``; None for a killed run.
    :ivar step: the last online step that it began, or that it is a repair; None when it committed nothing.
    :ivar resumable: whether it committed steps, all of which can be run again.
    """

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
    def ended(self) -> str:
        """How it ended, in words."""
        return {None: "was killed", "interrupted": "was interrupted"}.get(self.end, "failed")


@dataclass(frozen=True)
class Entry:
    """One attempt, as ``guvnor migrate history`` shows it.

    :ivar stalled_ms: the longest that a session of the application waited behind it.
    :ivar stalled_sessions: how many sessions waited behind it.
    :ivar stalled_statement: the statement that the longest wait was for.
    :ivar size_before: of the database, in bytes.
    :ivar size_after: the same at the end; None where the attempt did not come so far.
    """

    at: datetime
    direction: str
    revision: str | None
    from_version: str | None
    to_version: str | None
    outcome: str
    duration_ms: int | None
    lock_wait_ms: int | None
    tries: int | None
    stalled_ms: int | None
    stalled_sessions: int | None
    stalled_statement: str | None
    size_before: int | None
    size_after: int | None
    database_role: str
    os_user: str | None
    host: str | None
    job: str | None
    tool: str
    checksum: str | None
    sqlstate: str | None
    error: str | None
    note: str | None

    @property
    def size_change(self) -> int | None:
        """How many bytes the database has grown by."""
        if self.size_before is None or self.size_after is None:
            return None
        return self.size_after - self.size_before


def exists(connection: Connection) -> bool:
    """Tell whether the history table exists."""
    with connection.cursor() as cursor:
        return tables.HISTORY in tables.existing(cursor)


def check_layout(connection: Connection) -> None:
    """Check that this release knows the layout of the history table.

    :raises ToolTooOldError: when a newer release has made or changed it (exit code 5).
    """
    comment = scalar(
        connection,
        "SELECT obj_description(to_regclass('public.guvnor_migration_history'), 'pg_class')",
    )
    layout = int(comment.removeprefix("layout ")) if comment and comment[7:].isdecimal() else tables.LAYOUT
    if layout > tables.LAYOUT:
        raise ToolTooOldError(
            f"A newer release of guvnor keeps the history of this database (layout {layout}; "
            f"this release, {__version__}, knows {tables.LAYOUT})."
        )


def record(cursor: Any, attempt: Attempt, event: str, **columns: Any) -> None:
    """Write one event in the cursor's transaction (or at once, in autocommit mode).

    Characters that the database's encoding cannot hold are written as escapes, such as ``\\u0142``: an error
    may quote a file that has others, and its record must not be lost.

    :param columns: further columns of the table by name.
    """
    encoding = extensions.encodings.get(cursor.connection.info.parameter_status("server_encoding"), "ascii")
    values: Mapping[str, Any] = {
        # A table of an older release may lack a column that has no value.
        **{name: value for name, value in vars(attempt).items() if value is not None},
        "event": event,
        **invoker.history_columns(),
        "note": "; ".join(filter(None, (tls.note(cursor.connection), attempt.note))) or None,
        **columns,
    }
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    cursor.execute(
        f"INSERT INTO public.guvnor_migration_history ({names}) VALUES ({places})",
        [_escaped(value, encoding) if isinstance(value, str) else value for value in values.values()],
    )


def _escaped(text: str, encoding: str) -> str:
    """Escape what an encoding cannot hold, and NUL, which no text of PostgreSQL can."""
    return text.replace("\0", "\\x00").encode(encoding, "backslashreplace").decode(encoding)


def unfinished(connection: Connection) -> Start | None:
    """Return the last attempt when it did not succeed, else None.

    Its committed steps may come from earlier attempts, since an attempt that resumes may be killed before its
    first online step. So all online steps since the last success count.
    """
    found = row(
        connection,
        """
        SELECT
            started.direction, started.revision, started.from_version, started.to_version, started.at,
            concat(started.database_role, ' (', concat_ws(', ',
                started.os_user || '@' || started.host, started.job), ')'),
            (SELECT later.event FROM public.guvnor_migration_history AS later
             WHERE later.attempt = started.attempt AND later.event IN ('failed', 'interrupted')
             ORDER BY later.id DESC LIMIT 1),
            (SELECT online.step FROM public.guvnor_migration_history AS online
             WHERE online.event IN ('repair', 'online') AND online.id > last_success.id
               AND (online.revision, online.direction) = (started.revision, started.direction)
             ORDER BY online.id DESC LIMIT 1),
            COALESCE((SELECT bool_and(online.resumable) FROM public.guvnor_migration_history AS online
                      WHERE online.event = 'online' AND online.id > last_success.id
                        AND (online.revision, online.direction) = (started.revision, started.direction)),
                     false)
        FROM (SELECT COALESCE(max(id), 0) AS id FROM public.guvnor_migration_history
              WHERE event = 'succeeded') AS last_success,
        (
            SELECT * FROM public.guvnor_migration_history
            WHERE event = 'started' ORDER BY id DESC LIMIT 1
        ) AS started
        WHERE NOT EXISTS (
            SELECT FROM public.guvnor_migration_history AS ended
            WHERE ended.attempt = started.attempt AND ended.event = 'succeeded'
        )
        """,
    )
    return Start(*found) if found else None


def database_size(connection: Connection) -> int:
    """Return the size of the database in bytes; slow, so never inside a revision's transaction."""
    return int(scalar(connection, "SELECT pg_database_size(current_database())"))


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a point in time: a date, a time of today, both (ISO 8601), or how long ago it was.

    :param text: ``2026-03-01``, ``03:00``, ``2026-03-01T03:00+00:00``, ``90min``, ``7d``; local time where no
        zone is named.
    :param now: the present, with its zone.
    :raises UsageError: when it is none of these (exit code 2).
    """
    text = text.strip()
    with contextlib.suppress(ValueError, OverflowError):
        return now - timedelta(seconds=seconds(text))
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone()
    try:
        return datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
    except ValueError:
        raise UsageError(
            f"{presentable(text)} is not a point in time such as 2026-03-01, 03:00, 2026-03-01T03:00, "
            "90min or 7d.",
            next_step="guvnor migrate history --help",
        ) from None


def entries(
    connection: Connection, *, since: datetime | None = None, failed: bool = False, running: bool = False
) -> list[Entry]:
    """Return the attempts, the oldest first.

    :param since: leave out those that started before.
    :param failed: leave out those that succeeded, and one that is running.
    :param running: whether a run is at work now; then the last attempt without an end is running, not killed.
    """
    found = rows(
        connection,
        """
        SELECT *
        FROM (
            SELECT
                started.at, started.direction, started.revision, started.from_version,
                started.to_version,
                CASE WHEN started.event = 'accepted' THEN 'accepted'
                     WHEN ended.event IS NOT NULL THEN ended.event
                     WHEN %(running)s AND started.id =
                         max(started.id) FILTER (WHERE started.event = 'started') OVER () THEN 'running'
                     ELSE 'killed' END AS outcome,
                ended.duration_ms, ended.lock_wait_ms, ended.tries,
                -- A table of an older release lacks these columns until the next run.
                (to_jsonb(ended) ->> 'stalled_ms')::bigint, (to_jsonb(ended) ->> 'stalled_sessions')::integer,
                to_jsonb(ended) ->> 'stalled_statement',
                started.database_bytes, measured.database_bytes, started.database_role,
                started.os_user, started.host, started.job, started.tool, started.checksum,
                ended.sqlstate, ended.error, COALESCE(ended.note, started.note)
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
            WHERE started.event IN ('started', 'accepted')
            ORDER BY started.id
        ) AS attempts
        WHERE (%(since)s::timestamptz IS NULL OR at >= %(since)s)
          AND (NOT %(failed)s OR outcome NOT IN ('succeeded', 'accepted', 'running'))
        """,
        {"since": since, "failed": failed, "running": running},
    )
    return [Entry(*values) for values in found]
