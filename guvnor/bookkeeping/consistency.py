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
    """Tell whether the database is ahead of the newest file, as after a rollback of the application.

    It also is when golang-migrate has applied a newer version, of which Alembic has no record.
    """
    newest = revisions[-1].number
    return state.number > newest or ((state.golang or 0) > newest and not state.dirty)


def ahead_error(state: State, revisions: tuple[Revision, ...]) -> StateError:
    """Return the error of a command that cannot do its work on a database ahead of the files."""
    next_step = "Use the release that migrated it: guvnor migrate history"
    if by_golang := who_is_ahead(state):
        next_step = f"Use a release whose migration files know version {state.furthest}: guvnor version"
    return StateError(
        f"The database is at version {state.furthest}, ahead of the migration files "
        f"(newest: {revisions[-1].identifier}).{by_golang}",
        state="Nothing was changed.",
        next_step=next_step,
    )


def who_is_ahead(state: State) -> str:
    """Say in a sentence, after a space, that golang-migrate alone is ahead; empty when it is not."""
    if state.number >= state.furthest:
        return ""
    return f" golang-migrate moved it there; alembic_version says {state.version or 'nothing applied'}."


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
    ahead = is_ahead(state, revisions)
    if not state.alembic and state.golang is not None and not ahead:
        raise StateError(
            f"golang-migrate brought this database to version {state.golang}, and Alembic has no record of "
            "it. Running the migrations from the start would create existing objects again.",
            state=f"Nothing was changed; the schema is golang-migrate's version {state.golang}.",
            next_step="guvnor migrate adopt",
        )
    known = state.version in [revision.identifier for revision in revisions]
    if state.version and not known and state.number <= newest.number:
        raise StateError(
            f"The database is at revision {state.version}, which is not among the migration files "
            f"({revisions[0].identifier} to {revisions[-1].identifier}).",
            state="Nothing was changed.",
            next_step="guvnor version   # is this the release that migrated the database?\n"
            "guvnor migrate history",
        )
    if ahead and state.number <= newest.number:
        return  # golang-migrate's newer version leaves nothing to do here, whatever Alembic says
    check_agreement(state, revisions)


def check_agreement(state: State, revisions: tuple[Revision, ...]) -> None:
    """Check that the two version tables say the same of a database that is not dirty.

    :raises StateError: when they disagree (exit code 5).
    """
    if state.dirty or state.agreed:
        return
    last = {
        True: "golang-migrate moved last (schema_migrations is the newer row)",
        False: "Alembic moved last (alembic_version is the newer row)",
        None: "it is unknown which tool moved last",
    }[state.golang_moved_last]
    raise StateError(
        f"The version tables disagree: alembic_version says {state.version or 'nothing applied'}, "
        "schema_migrations (golang-migrate) says "
        f"{state.golang if state.golang is not None else 'nothing applied'}; {last}.",
        state="Nothing was changed.",
        next_step=_ways_to_agree(state, revisions),
    )


def _ways_to_agree(state: State, revisions: tuple[Revision, ...]) -> str:
    """Name the commands that make the version tables agree: only those that are accepted."""
    newest = revisions[-1].number
    if state.furthest > newest:
        return (
            f"Use a release whose migration files know version {state.furthest}: guvnor version\n"
            "guvnor migrate history"
        )
    lines = ["guvnor migrate adopt   # compares the schema with both, and writes the matching one"]
    if state.golang is None:
        lines.append("guvnor migrate force base   # if golang-migrate has rolled back everything")
    younger = state.golang if state.golang_moved_last else state.number
    lines.append(
        f"guvnor migrate force {younger or 'base'}   # if you know that this is the version of the schema"
    )
    return "\n".join(dict.fromkeys(lines))


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
            f"golang-migrate left it: it was moving to version {target or 'none'} and did not finish. "
            "Its tables do not say how much of that is in the database: a file may commit in parts "
            "(x-multi-statement, or BEGIN and COMMIT in it)."
        )
    error = DirtyError(
        f"Database is in dirty state at version {target}. {what}",
        state=f"alembic_version says {state.version or 'nothing applied'}; this command changed nothing.",
        next_step="guvnor migrate repair",
    )
    error.found = state
    return error


def check_unmoved(seen: State, current: State) -> None:
    """Check that the version is still the one that was seen, and perhaps confirmed, before the locks came.

    :raises StateError: when it was moved in between (exit code 5).
    """
    if (seen.alembic, seen.golang, seen.dirty) != (current.alembic, current.golang, current.dirty):
        raise moved_error(current, seen)


def moved_error(current: State, seen: State | None = None) -> StateError:
    """Return the error of a command that was decided on in another state.

    :param seen: that state; None where only the present one is known.
    """
    before = f"from {_in_words(seen)} " if seen else ""
    return StateError(
        "Another session moved the version of the database while this command was waiting: "
        f"{before}to {_in_words(current)}.",
        state="Nothing was changed by this command.",
    )


def golang_went_on(seen: State, current: State) -> bool:
    """Tell whether golang-migrate, and nobody else, has moved the version forwards since a state was seen."""
    return not current.dirty and current.alembic == seen.alembic and (current.golang or 0) > current.number


def at_work_error(running: str) -> StateError:
    """Return the error of a command that must not judge a state which somebody else is still changing.

    :param running: who that is, in words.
    """
    return StateError(
        f"{running}. What looks unfinished is its work in progress.",
        state="Nothing was changed by this command.",
    )


def _in_words(state: State) -> str:
    """Say what the version tables hold, in a phrase."""
    if state.dirty:
        return f"dirty on the way to version {max(state.golang or 0, 0)}"
    if state.agreed:
        return f"version {state.number}" if state.number else "no version"
    return f"{state.number or 'no version'} (Alembic) and {state.golang or 'no version'} (golang-migrate)"
