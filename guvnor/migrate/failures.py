"""The errors that end a run early: what happened, what state the database is in and what to type next."""

from __future__ import annotations

import logging
import signal

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from guvnor.bookkeeping.state import State
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate.signals import RunInterrupted
from guvnor.online.blockers import Blocker
from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)

# The server is shutting down or starting (PostgreSQL documentation, "PostgreSQL Error Codes", class 57).
_SERVER_GONE = (errorcodes.ADMIN_SHUTDOWN, errorcodes.CRASH_SHUTDOWN, errorcodes.CANNOT_CONNECT_NOW)

_MEND_ROWS = "Correct the rows that violate it, then: {again}"
_NEXT_STEPS = {
    errorcodes.DISK_FULL: "Free or add disk space on the server, then: {again}",
    errorcodes.INSUFFICIENT_PRIVILEGE: "guvnor migrate preflight",
    errorcodes.QUERY_CANCELED: "{again}   # somebody cancelled the statement on the server",
    errorcodes.UNIQUE_VIOLATION: _MEND_ROWS,
    errorcodes.FOREIGN_KEY_VIOLATION: _MEND_ROWS,
    errorcodes.CHECK_VIOLATION: _MEND_ROWS,
    errorcodes.NOT_NULL_VIOLATION: _MEND_ROWS,
}


class BusyError(GuvnorError):
    """The locks that a revision needs could not be had in time."""

    exit_code = ExitCode.LOCKED


def driver_error(error: BaseException) -> psycopg2.Error | None:
    """Return the driver's error in an error of SQLAlchemy or of the driver; None for others."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg2.Error):
        return error.orig
    return error if isinstance(error, psycopg2.Error) else None


def describe(
    step: Step,
    error: BaseException,
    state: State | None,
    *,
    committed: bool,
    signal_received: int | None,
    connection_lost: bool,
) -> tuple[GuvnorError, str]:
    """Return the error to raise for what ended a step, and the outcome for the history.

    :param state: as read after the failure; None when it could not be read.
    :param committed: whether a part of the step is committed.
    :param signal_received: the number of the signal that has arrived; None for none.
    """
    if signal_received is not None:
        # Whatever the interruption looks like by now: closing a cancelled block raises errors of its own.
        return _interrupted(step, signal_received, state), "interrupted"
    cause = driver_error(error)
    if isinstance(error, GuvnorError):
        result = error
        if committed:
            result.state = where(state)
    elif cause is not None and (connection_lost or cause.pgcode in _SERVER_GONE):
        result = GuvnorError(
            f"The connection to the database was lost while revision {step.revision} was going "
            f"{step.direction}."
        )
    else:
        log.debug("the revision's error", exc_info=error)
        result = _revision_failed(step, error, cause, again_by(step, state))
    result.state = result.state or where(state)
    result.next_step = result.next_step or again_by(step, state)
    if state is not None and lost_its_mark(state):
        result.state, result.next_step = _unmarked(step, state)
    return result, "failed"


def where(state: State | None) -> str:
    """Say in a sentence what state the database is in.

    :param state: as read after the failure; None when it could not be read.
    """
    if state is None:
        return (
            "The server could not be asked. It rolls back what was not committed; once it answers, "
            "`guvnor migrate status` tells which version the database is at."
        )
    at = f"version {state.number}" if state.version else "no migrations applied"
    if not state.dirty:
        return f"The revision was rolled back; the database is as it was before it ({at})."
    step = f" at the step: {state.unfinished.step}" if state.unfinished and state.unfinished.step else ""
    if state.resumable:
        return (
            "The revision is half done: what came before its online part is committed, and it stopped"
            f"{step}. The database is marked dirty ({at}), the application can go on using it, and the next "
            "run finishes the revision."
        )
    return (
        f"The revision is half done and cannot simply be run again; it stopped{step}. "
        f"The database is marked dirty ({at})."
    )


def lost_its_mark(state: State) -> bool:
    """Tell whether the last step has committed a part, and another session took its dirty mark away."""
    return not state.dirty and state.unfinished is not None and state.unfinished.step is not None


def _unmarked(step: Step, state: State) -> tuple[str, str]:
    """Describe a step that :func:`lost_its_mark`.

    :returns: the state of the database, and what to type next.
    """
    at = (
        f"What came before the online part of revision {step.revision} is committed. Another session has "
        "taken the dirty mark away meanwhile: schema_migrations says "
        f"{state.golang if state.golang is not None else 'nothing applied'}, alembic_version "
        f"{state.version or 'nothing applied'}."
    )
    next_step = (
        "guvnor migrate adopt   # if the schema is that of one of the two versions\n"
        f"guvnor migrate force {step.from_version or 'base'}   # else; then run the revision again: "
        f"guvnor migrate {'down' if step.direction == 'down' else 'up'}"
    )
    return at, next_step


def again_by(step: Step, state: State | None) -> str:
    """Return the command that goes on from a failed step."""
    if state is not None and state.dirty and not state.resumable:
        return "guvnor migrate repair"
    return f"guvnor migrate {'down' if step.direction == 'down' else 'up'}"


def _revision_failed(
    step: Step, error: BaseException, cause: psycopg2.Error | None, again: str
) -> GuvnorError:
    """Describe a revision that failed by itself: an error of the server, or one of the revision's code.

    :param again: the command that goes on from here.
    """
    name = f"Revision {step.revision} ({step.description}) failed going {step.direction}"
    if any(isinstance(e, InvalidRequestError) for e in (error, getattr(error, "orig", None))):
        return GuvnorError(
            f"{name}: a colon before a word was taken for a bound parameter. {str(error).splitlines()[0]}",
            next_step="Write \\: for the colon in the statement of the revision (a cast, ::, is fine).",
        )
    if cause is None:
        return GuvnorError(f"{name}: {type(error).__name__}: {error}")
    diagnostics = cause.diag
    code = f" (SQLSTATE {cause.pgcode})" if cause.pgcode else ""
    lines = [f"{name}: {diagnostics.message_primary or str(cause).strip() or 'no reason was given'}{code}"]
    for label, value in (("Detail", diagnostics.message_detail), ("Hint", diagnostics.message_hint)):
        if value:
            lines.append(f"{label}: {value}")
    statement = getattr(error, "statement", None)
    if statement:
        lines.append(f"Statement:\n{_excerpt(statement)}")
    next_step = _NEXT_STEPS.get(cause.pgcode or "", "Correct the revision or what it ran into, then: {again}")
    return GuvnorError("\n".join(lines), next_step=next_step.format(again=again))


def _interrupted(step: Step, number: int, state: State | None) -> RunInterrupted:
    """Describe a signal that arrived while a revision was being run; the revision may just have finished."""
    finished = state is not None and not state.dirty and state.version == step.to_version
    at = "The revision had just been finished." if finished else where(state)
    next_step = "guvnor migrate status" if finished else again_by(step, state)
    if state is not None and lost_its_mark(state):
        at, next_step = _unmarked(step, state)
    return RunInterrupted(
        f"Interrupted by {signal.Signals(number).name} while revision {step.revision} was going "
        f"{step.direction}.",
        number,
        state=at,
        next_step=next_step,
    )


def busy(
    step: Step, waited: float, tries: int, blockers: tuple[Blocker, ...], state: State | None
) -> BusyError:
    """Describe locks that could not be had by the deadline.

    :param waited: seconds since the first try.
    """
    who = (
        "; ".join(str(blocker) for blocker in blockers) or "a session that was gone before it could be named"
    )
    ends = "".join(f"\n{_end(blocker)}" for blocker in blockers if blocker.pid)
    return BusyError(
        f"Could not get the locks that revision {step.revision} needs within {waited:.0f} s ({tries} tries). "
        f"In the way: {who}.",
        state=where(state),
        next_step=f"{again_by(step, state)}   # once that transaction has ended{ends}",
    )


def _end(blocker: Blocker) -> str:
    """Return the SQL that takes a blocker out of the way; a session without a query has nothing to cancel."""
    if blocker.state == "active":
        return f"SELECT pg_cancel_backend({blocker.pid});   -- ends its query"
    return f"SELECT pg_terminate_backend({blocker.pid});   -- ends its session"


def _excerpt(statement: str) -> str:
    lines = statement.strip().splitlines()
    return "\n".join(lines[:12] + (["..."] if len(lines) > 12 else []))
