"""Whether a migration can start from the state of a database, and what to type when it cannot."""

from __future__ import annotations

from guvnor.bookkeeping.state import State
from guvnor.errors import ExitCode, GuvnorError
from guvnor.revisions.files import Revision
from guvnor.revisions.identifiers import number


class StateError(GuvnorError):
    """The state of the database needs a decision."""

    exit_code = ExitCode.DECISION
    next_step = "guvnor migrate status"


class DirtyError(StateError):
    """Database is in dirty state."""

    found: State | None = None  # what the tables say


def is_ahead(state: State, revisions: tuple[Revision, ...]) -> bool:
    """Tell whether the database is ahead of the newest file, as after a rollback of the application."""
    return state.number > revisions[-1].number


def ahead_error(state: State, revisions: tuple[Revision, ...]) -> StateError:
    """Return the error of a command that cannot do its work on a database ahead of the files."""
    return StateError(
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
        raise StateError(
            f"alembic_version holds several revisions ({', '.join(state.alembic)}), but the migrations have "
            "no branches.",
            state="Nothing was changed.",
            next_step="guvnor migrate force REV   # after finding out which one the schema is at",
        )
    newest = revisions[-1]
    if state.dirty and max(state.golang or 0, state.number) > newest.number:
        error = dirty_error(state)
        error.message += f" The migration files do not know that version (newest: {newest.identifier})."
        error.next_step = (
            "guvnor migrate history   # names the release that began it: use it or a newer one\n"
            f"guvnor migrate force {newest.number}   # if you have made the schema that of revision "
            f"{newest.identifier} by hand"
        )
        raise error
    if state.dirty and not state.resumable:
        raise dirty_error(state)
    if state.dirty:
        return
    if not state.alembic and state.golang is not None:
        raise StateError(
            f"golang-migrate brought this database to version {state.golang}, and Alembic has no record of "
            "it. Running the migrations from the start would create existing objects again.",
            state=f"Nothing was changed; the schema is golang-migrate's version {state.golang}.",
            next_step="guvnor migrate adopt",
        )
    known = is_ahead(state, revisions) or state.version in [revision.identifier for revision in revisions]
    if state.version and not known:
        raise StateError(
            f"The database is at revision {state.version}, which is not among the migration files "
            f"({revisions[0].identifier} to {revisions[-1].identifier}).",
            state="Nothing was changed.",
            next_step="guvnor version   # is this the release that migrated the database?\n"
            "guvnor migrate history",
        )
    if state.number != (state.golang or 0):
        last = {
            True: "golang-migrate moved last (schema_migrations is the newer row)",
            False: "Alembic moved last (alembic_version is the newer row)",
            None: "it is unknown which tool moved last",
        }[state.golang_moved_last]
        younger = state.golang if state.golang_moved_last else state.number
        raise StateError(
            f"The version tables disagree: alembic_version says {state.version or 'nothing applied'}, "
            "schema_migrations (golang-migrate) says "
            f"{state.golang if state.golang is not None else 'nothing applied'}; {last}.",
            state="Nothing was changed.",
            next_step="guvnor migrate adopt   # compares the schema with both, and writes the matching one\n"
            f"guvnor migrate force {younger or 0}   # if you know that this is the version of the schema",
        )


def dirty_error(state: State) -> DirtyError:
    """Describe a dirty state: who left it, when, at which step."""
    target = max(state.golang or 0, 0)
    start = state.unfinished
    if start is not None and start.step is not None and number(start.to_version) == target:
        again = "can" if start.resumable else "cannot simply"
        what = (
            f"Revision {start.revision} ({start.direction}) was started {start.at:%Y-%m-%d %H:%M:%S %Z} by "
            f"{start.who} and {start.ended} at the step: {start.step}. "
            f"Its steps {again} be run again."
        )
    else:
        what = (
            f"golang-migrate left it: it was moving to version {target} and did not finish. "
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


def check_unmoved(seen: State, current: State) -> None:
    """Check that the version is still the one that was seen, and perhaps confirmed, before the run lock.

    :raises GuvnorError: when it was moved in between (exit code 1).
    """
    if (seen.alembic, seen.golang, seen.dirty) != (current.alembic, current.golang, current.dirty):
        raise GuvnorError(
            "Another session moved the version of the database while this command was waiting: from "
            f"{seen.number} to {current.number}.",
            state="Nothing was changed by this command.",
            next_step="guvnor migrate status",
        )
