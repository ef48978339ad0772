"""The state of a database: which version it is at, according to Alembic, golang-migrate and the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guvnor import postgres
from guvnor.bookkeeping import history, production, tables
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.production import Mark
from guvnor.postgres import Connection
from guvnor.revisions.identifiers import number

NO_VERSION = -1  # golang-migrate's number for a database on its way to no version


@dataclass(frozen=True)
class State:
    """What the three tables say.

    :ivar alembic: rows of ``alembic_version``; None when there is no such table.
    :ivar golang: the version in ``schema_migrations``; None when there is no row or no table. Where that
        table is not kept in step, what it would hold.
    :ivar dirty: whether a revision is half done: golang-migrate's flag, or what the history says.
    :ivar golang_moved_last: whether ``schema_migrations`` was written after ``alembic_version``; None when
        that is unknown.
    :ivar unfinished: the last attempt in the history, if it did not succeed.
    :ivar production: who marked this very database as production, and when; None without a mark.
    """

    alembic: tuple[str, ...] | None
    golang: int | None
    dirty: bool
    golang_moved_last: bool | None
    unfinished: history.Start | None
    production: Mark | None

    @property
    def version(self) -> str | None:
        """The identifier of the revision that the database is at, as Alembic knows it."""
        return self.alembic[0] if self.alembic else None

    @property
    def number(self) -> int:
        """The number of the revision that the database is at; 0 for none."""
        return number(self.version)

    @property
    def furthest(self) -> int:
        """The later one of the two tools' versions; 0 for none."""
        return max(self.number, self.golang or 0)

    @property
    def agreed(self) -> bool:
        """Whether both tools say the same, and nothing is half done."""
        return not self.dirty and self.number == (self.golang or 0)

    @property
    def empty(self) -> bool:
        """Whether no tool has ever recorded a version."""
        return not self.alembic and self.golang is None

    @property
    def resumable(self) -> bool:
        """Whether a run of this tool left the database dirty, and all its committed steps can be repeated."""
        start = self.unfinished
        return (
            self.dirty
            and start is not None
            and start.resumable
            and number(start.to_version) == max(self.golang or 0, 0)
            and start.from_version == self.version
        )


def read(connection: Connection, *, max_wait: float, golang_migrate: bool = True) -> State:
    """Read the state in one snapshot.

    :param connection: in autocommit mode.
    :param max_wait: seconds to wait for a table that somebody else has locked.
    :param golang_migrate: whether golang-migrate's table is kept in step; otherwise another tool may own a
        table of that name.
    :raises ToolTooOldError: when a newer release keeps the history (exit code 5).
    :raises BookkeepingBusyError: when a table stays locked (exit code 7).
    :raises ForeignTableError: when golang-migrate's table is another tool's (exit code 5).
    """
    return wait_for_tables(connection, max_wait, lambda: _read(connection, golang_migrate=golang_migrate))


def _read(connection: Connection, *, golang_migrate: bool) -> State:
    versions: list[str] | None = None
    alembic_age: int | None = None
    golang: int | None = None
    golang_age: int | None = None
    dirty = False
    with postgres.snapshot(connection) as cursor:
        found = tables.existing(cursor)
        if golang_migrate and "schema_migrations" not in found:
            tables.check_golang(cursor)
        if "alembic_version" in found:
            cursor.execute(
                """
                SELECT array_agg(version_num ORDER BY version_num), min(age(xmin))
                FROM public.alembic_version
                """
            )
            versions, alembic_age = cursor.fetchone() or (None, None)
        if "schema_migrations" in found and golang_migrate:
            cursor.execute(
                """
                SELECT min(version), coalesce(bool_or(dirty), false), min(age(xmin))
                FROM public.schema_migrations
                """
            )
            golang, dirty, golang_age = cursor.fetchone() or (None, False, None)
        unfinished = mark = None
        if tables.HISTORY in found:
            history.check_layout(connection)
            unfinished = history.unfinished(connection)
            mark = production.read_mark(connection)
    if not golang_migrate:
        dirty = unfinished is not None and unfinished.step is not None
        applied = versions[0] if versions else None
        version = unfinished.to_version if unfinished and dirty else applied
        golang = number(version) or (NO_VERSION if dirty else None)
    return State(
        alembic=tuple(versions or ()) if "alembic_version" in found else None,
        golang=golang,
        dirty=dirty,
        golang_moved_last=None if alembic_age is None or golang_age is None else golang_age < alembic_age,
        unfinished=unfinished,
        production=mark,
    )


def recorded_version(cursor: Any) -> str | None:
    """Return the version that Alembic has recorded, else golang-migrate's; None when neither has."""
    found = tables.existing(cursor)
    if "alembic_version" in found:
        cursor.execute("SELECT version_num FROM public.alembic_version")
        if row := cursor.fetchone():
            return str(row[0])
    if "schema_migrations" in found:
        cursor.execute("SELECT version FROM public.schema_migrations WHERE version > 0")
        if row := cursor.fetchone():
            return f"{row[0]:03d}"
    return None
