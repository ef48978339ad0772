"""The state of a database: which version it is at, as Alembic, golang-migrate and the history say it.

``alembic_version`` is Alembic's. ``schema_migrations`` has golang-migrate's format, so that golang-migrate
and the Go ``guvnor`` binary see the same truth: one row with the version as a number and a dirty flag, no row
when nothing is applied, -1 for the way to no version. ``guvnor_migration_history`` is this project's.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guvnor.bookkeeping import history, production
from guvnor.bookkeeping.production import Mark
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, scalar
from guvnor.revisions.files import Revision
from guvnor.revisions.identifiers import number

BOOKKEEPING_TABLES = ("alembic_version", "schema_migrations", history.TABLE)
NO_VERSION = -1  # golang-migrate's number for a database on its way to no version

CREATE_ALEMBIC_VERSION = """
    CREATE TABLE IF NOT EXISTS alembic_version (
        version_num varchar(32) NOT NULL,
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
    )
"""
CREATE_SCHEMA_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version bigint NOT NULL PRIMARY KEY,
        dirty boolean NOT NULL
    )
"""


class StateError(GuvnorError):
    """The state of the database needs a decision."""

    exit_code = ExitCode.DECISION
    next_step = "guvnor migrate status"


class DirtyError(StateError):
    """Database is in dirty state."""

    found: State | None = None  # what the tables say


class DisagreementError(StateError):
    """The version tables disagree."""


class NotAdoptedError(StateError):
    """golang-migrate has migrated this database, and Alembic knows nothing of it."""


class UnknownVersionError(StateError):
    """The database is at a version that the migration files do not know."""


class AheadError(StateError):
    """The database is ahead of the migration files."""


@dataclass(frozen=True)
class State:
    """What the three tables say.

    :ivar alembic: rows of ``alembic_version``; None when there is no such table.
    :ivar golang: the version in ``schema_migrations``; None when there is no row or no table. Where that
        table is not kept in step, what it would hold.
    :ivar dirty: whether a revision is half done: golang-migrate's flag, or what the history says.
    :ivar golang_moved_last: whether ``schema_migrations`` was written after ``alembic_version``; None when
        that cannot be told.
    :ivar unfinished: the last start in the history that has no end.
    :ivar production: who marked this very database as production, and when; None when nobody did.
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
    def empty(self) -> bool:
        """Whether no tool has ever recorded a version."""
        return not self.alembic and self.golang is None

    @property
    def resumable(self) -> bool:
        """Whether the dirty row was left by a run of this project whose every step can be run again."""
        start = self.unfinished
        return (
            self.dirty
            and start is not None
            and start.resumable
            and start.target_number == max(self.golang or 0, 0)
            and start.from_version == self.version
        )


def read(connection: Connection, *, golang_migrate: bool = True) -> State:
    """Read the state in one snapshot.

    :param connection: in autocommit mode.
    :param golang_migrate: whether golang-migrate's table is kept in step; another tool may have one of that
        name otherwise.
    :raises ToolTooOldError: when a newer release keeps the history (exit code 5).
    """
    with _one_snapshot(connection):
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT
                    to_regclass('public.alembic_version') IS NOT NULL,
                    to_regclass('public.schema_migrations') IS NOT NULL,
                    to_regclass('public.guvnor_migration_history') IS NOT NULL
                """
            )
            has_alembic, has_golang, has_history = cursor.fetchone() or (False, False, False)
            has_golang = has_golang and golang_migrate
            # The tables cannot be named before it is known that they exist; what is missing reads as empty.
            alembic_rows = "public.alembic_version" if has_alembic else "(SELECT NULL::text LIMIT 0)"
            golang_rows = (
                "public.schema_migrations" if has_golang else "(SELECT NULL::bigint, NULL::boolean LIMIT 0)"
            )
            cursor.execute(
                f"""
                SELECT
                    (SELECT array_agg(version_num ORDER BY version_num)
                     FROM {alembic_rows} AS a (version_num)),
                    (SELECT min(version) FROM {golang_rows} AS g (version, dirty)),
                    (SELECT bool_or(dirty) FROM {golang_rows} AS g (version, dirty))
                """
            )
            versions, golang, dirty = cursor.fetchone() or (None, None, None)
            golang_moved_last: bool | None = None
            if has_alembic and has_golang:
                cursor.execute(
                    """
                    SELECT (SELECT min(age(xmin)) FROM public.schema_migrations)
                         < (SELECT min(age(xmin)) FROM public.alembic_version)
                    """
                )
                (golang_moved_last,) = cursor.fetchone() or (None,)
        if has_history:
            history.check_layout(connection)
        unfinished = history.unfinished(connection) if has_history else None
        if not golang_migrate:
            dirty = unfinished is not None and unfinished.step is not None
            golang = _mirrored(
                unfinished.to_version if unfinished and dirty else (versions or [None])[0], dirty
            )
        return State(
            alembic=tuple(versions or ()) if has_alembic else None,
            golang=golang,
            dirty=bool(dirty),
            golang_moved_last=golang_moved_last,
            unfinished=unfinished,
            production=production.read_mark(connection) if has_history else None,
        )


def _mirrored(version: str | None, dirty: bool) -> int | None:
    """Return what golang-migrate's table would hold."""
    return number(version) or (NO_VERSION if dirty else None)


@contextlib.contextmanager
def _one_snapshot(connection: Connection) -> Iterator[None]:
    """Let all queries of the body see the same moment."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def is_ahead(state: State, revisions: tuple[Revision, ...]) -> bool:
    """Tell whether the database is later than the newest file: the application was rolled back."""
    return state.number > revisions[-1].number


def ahead_error(state: State, revisions: tuple[Revision, ...]) -> AheadError:
    """Return the error of a command that cannot do its work on a database ahead of the files."""
    return AheadError(
        f"The database is at version {state.number}, ahead of the migration files "
        f"(newest: {revisions[-1].identifier}).",
        state="Nothing was changed.",
        next_step="Use the release that migrated it: guvnor migrate history",
    )


def check(state: State, revisions: tuple[Revision, ...]) -> None:
    """Check that the state is one from which a migration can start.

    A dirty state that can be resumed passes, as does a database ahead of the files.

    :raises StateError: otherwise (exit code 5).
    """
    if state.alembic and len(state.alembic) > 1:
        raise UnknownVersionError(
            f"alembic_version holds several revisions ({', '.join(state.alembic)}); the migrations are one "
            "line.",
            state="Nothing was changed.",
            next_step="guvnor migrate force REV   # after finding out which one the schema is at",
        )
    if state.dirty and max(state.golang or 0, state.number) > revisions[-1].number:
        raise _dirty_ahead(state, revisions[-1])
    if state.dirty and not state.resumable:
        raise dirty_error(state)
    if state.dirty:
        return
    if not state.alembic and state.golang is not None:
        raise NotAdoptedError(
            f"golang-migrate brought this database to version {state.golang}, and Alembic has no record of "
            "it. "
            "Running the migrations from the start would create again what is there.",
            state=f"Nothing was changed; the schema is golang-migrate's version {state.golang}.",
            next_step="guvnor migrate adopt",
        )
    if state.version and not _known(state.version, revisions):
        raise UnknownVersionError(
            f"The database is at revision {state.version}, which is none of the migration files "
            f"({revisions[0].identifier} to {revisions[-1].identifier}).",
            state="Nothing was changed.",
            next_step="guvnor version   # is this the release that migrated the database?\nguvnor migrate "
            "history",
        )
    if state.number != (state.golang or 0):
        raise disagreement(state)


def _known(identifier: str, revisions: tuple[Revision, ...]) -> bool:
    return any(identifier == revision.identifier for revision in revisions) or (
        identifier.isdecimal() and int(identifier) > revisions[-1].number
    )


def disagreement(state: State) -> DisagreementError:
    """Describe version tables that say different things."""
    last = {
        True: "golang-migrate moved last (schema_migrations is the younger row)",
        False: "Alembic moved last (alembic_version is the younger row)",
        None: "which tool moved last cannot be told",
    }[state.golang_moved_last]
    younger = state.golang if state.golang_moved_last else state.number
    return DisagreementError(
        f"The version tables disagree: alembic_version says {state.version or 'nothing applied'}, "
        "schema_migrations (golang-migrate) says "
        f"{state.golang if state.golang is not None else 'nothing applied'}; "
        f"{last}.",
        state="Nothing was changed.",
        next_step="guvnor migrate adopt   # compares the schema with both, and writes the one that it is\n"
        f"guvnor migrate force {younger or 0}   # if you know that this is the version of the schema",
    )


def dirty_error(state: State) -> DirtyError:
    """Describe a dirty state: who left it, when, at which step."""
    target = max(state.golang or 0, 0)
    start = state.unfinished
    if start is not None and start.step is not None and start.target_number == target:
        again = "can" if start.resumable else "cannot simply"
        what = (
            f"Revision {start.revision} ({start.direction}) was started {start.at:%Y-%m-%d %H:%M:%S %Z} by "
            f"{start.who} and {start.ended} at the step: {start.step}. "
            f"Its steps {again} be run again."
        )
    else:
        what = (
            f"golang-migrate left it: it was moving to version {target} and did not come to the end. "
            f"Its files run as one implicit transaction, so version {target} is in the database either as a "
            "whole or not at all."
        )
    error = DirtyError(
        f"Database is in dirty state at version {target}. {what}",
        state=f"alembic_version says {state.version or 'nothing applied'}; this command changed nothing.",
        next_step="guvnor migrate repair",
    )
    error.found = state
    return error


def _dirty_ahead(state: State, newest: Revision) -> DirtyError:
    """Describe a revision that is half done and that the migration files do not know."""
    error = dirty_error(state)
    error.message += f" The migration files do not know that version (newest: {newest.identifier})."
    error.next_step = (
        "guvnor migrate history   # names the release that began it; only that one, or a newer one, ends it\n"
        f"guvnor migrate force {newest.number}   # if you have made the schema that of revision "
        f"{newest.identifier} by hand"
    )
    return error


def check_unmoved(seen: State, current: State) -> None:
    """Check that the version is still what somebody has seen, and perhaps confirmed.

    :param current: the state now, read under the run lock.
    :raises GuvnorError: when it was moved in between (exit code 1).
    """
    if (seen.alembic, seen.golang, seen.dirty) != (current.alembic, current.golang, current.dirty):
        raise GuvnorError(
            "Somebody else moved the version of the database while this command was waiting: it is at "
            f"version {current.number} now, not at {seen.number}.",
            state="Nothing was changed by this command.",
            next_step="guvnor migrate status",
        )


def write_golang(cursor: Any, version: int | None, *, dirty: bool) -> None:
    """Write golang-migrate's row in the current transaction.

    Its own way is TRUNCATE, which locks out readers; a DELETE leaves the same.

    :param version: the number of the revision; None for no row at all.
    """
    cursor.execute("DELETE FROM public.schema_migrations")
    if version is not None:
        cursor.execute(
            "INSERT INTO public.schema_migrations (version, dirty) VALUES (%s, %s)", (version, dirty)
        )


def create_tables(connection: Connection, *, golang_migrate: bool = True) -> None:
    """Create the bookkeeping tables that are missing.

    :param connection: in autocommit mode, holding the run lock.
    :param golang_migrate: whether golang-migrate's table is one of them.
    """
    wanted = {"alembic_version": CREATE_ALEMBIC_VERSION, history.TABLE: ";".join(history.CREATE)}
    if golang_migrate:
        wanted["schema_migrations"] = CREATE_SCHEMA_MIGRATIONS
    missing = scalar(
        connection,
        "SELECT bool_or(to_regclass('public.' || name) IS NULL) FROM unnest(%s::text[]) AS name",
        (list(wanted),),
    )
    if missing:
        with connection.cursor() as cursor:
            cursor.execute(";".join((*wanted.values(), history.READ_ONLY_FOR_OTHERS)))


def set_version(connection: Connection, current: State, version: str | None, direction: str) -> None:
    """Set the version in both version tables and clear the dirty flag, in one transaction with its history.

    :param connection: in autocommit mode, holding the run lock and golang-migrate's.
    :param current: the state before.
    :param version: the identifier of the revision; None for no version.
    :param direction: the word for the history: ``force``, ``adopt``.
    """
    create_tables(connection)
    attempt = history.Attempt(str(uuid.uuid4()), direction, version, current.version, version)
    connection.autocommit = False
    try:
        with connection, connection.cursor() as cursor:
            history.record(cursor, attempt, "started")
            _write_alembic(cursor, version)
            write_golang(cursor, number(version) or None, dirty=False)
            history.record(cursor, attempt, "succeeded")
    finally:
        connection.autocommit = True


def prepare_repair(connection: Connection, attempt: history.Attempt) -> None:
    """Make both version tables say that a revision is on its way, so that it can be run.

    A run that dies after this leaves a dirty state again, which can be repaired again.

    :param connection: in autocommit mode, holding the run lock and golang-migrate's.
    :param attempt: which revision, in which direction, from and to which version.
    """
    create_tables(connection)
    connection.autocommit = False
    try:
        with connection, connection.cursor() as cursor:
            _write_alembic(cursor, attempt.from_version)
            write_golang(cursor, number(attempt.to_version) or NO_VERSION, dirty=True)
            history.record(cursor, attempt, "repair", step="its repair, before anything of it was committed")
    finally:
        connection.autocommit = True


def _write_alembic(cursor: Any, version: str | None) -> None:
    cursor.execute("DELETE FROM public.alembic_version")
    if version is not None:
        cursor.execute("INSERT INTO public.alembic_version (version_num) VALUES (%s)", (version,))
