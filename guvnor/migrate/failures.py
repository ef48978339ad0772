"""The errors that end a run early: what happened, what state the database is in and what to type next."""

from __future__ import annotations

import logging
import signal
import traceback

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy.exc import InvalidRequestError

from guvnor import typed
from guvnor.bookkeeping.state import State
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate import stopped
from guvnor.migrate.own_transaction import STILL_OPEN, UNCLEAR, EndedByItselfError
from guvnor.migrate.signals import RunInterrupted
from guvnor.migrate.stage import Stage
from guvnor.migrate.watch import Watch
from guvnor.online import remedies
from guvnor.online.blockers import Blocker, named, ways_out
from guvnor.online.execute import OnlineStepError
from guvnor.postgres import row_security
from guvnor.postgres.engine import driver_error
from guvnor.postgres.excerpt import excerpt, redacted
from guvnor.postgres.transient import SERVER_GONE, may_pass
from guvnor.revisions import transaction_control
from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)

_NO_VALUE = "Give text() the value of the parameter, or pass the SQL to op.execute without text()."
_MEND_ROWS = "Correct the rows that violate it, then: {again}"
_NEXT_STEPS = {
    errorcodes.DISK_FULL: "Free or add disk space on the server, then: {again}",
    errorcodes.QUERY_CANCELED: "{again}   # somebody cancelled the statement on the server",
    errorcodes.UNIQUE_VIOLATION: _MEND_ROWS,
    errorcodes.FOREIGN_KEY_VIOLATION: _MEND_ROWS,
    errorcodes.CHECK_VIOLATION: _MEND_ROWS,
    errorcodes.NOT_NULL_VIOLATION: "Give a new column a default in the revision, or fill it there with "
    "op.backfill before op.set_not_null; or correct the rows that hold NULL. Then: {again}",
}


class BusyError(GuvnorError):
    """The locks that a revision needs could not be had in time."""

    exit_code = ExitCode.LOCKED


_BACK = "guvnor migrate repair --back   # or: undo what the revision has committed"


def describe(
    step: Step,
    error: BaseException,
    state: State | None,
    *,
    stage: Stage,
    signal_received: int | None,
    connection_lost: bool,
    refused: tuple[str, ...] | None = (),
    lacking: tuple[str, ...] = (),
    idle: float = 0.0,
    watch: Watch | None = None,
    instead: tuple[str, ...] = (),
) -> tuple[GuvnorError, str]:
    """Return the error to raise for what ended a step, and the outcome for the history.

    :param state: as read after the failure; None when it could not be read.
    :param stage: how far the step is with its transactions.
    :param signal_received: the number of the signal that has arrived; None for none.
    :param refused: which writes a half-done revision refuses or slows down, see
        :mod:`guvnor.migrate.leftovers`; None where that is unknown.
    :param lacking: what to type where the server denied something; see :mod:`guvnor.migrate.denied`.
    :param idle: seconds that the transaction was idle before its last statement.
    :param watch: may have stopped the step.
    :param instead: what to write instead where it has.
    """
    if signal_received is not None:
        # Whatever the interruption looks like by now: closing a cancelled block raises errors of its own.
        return _interrupted(step, signal_received, state, refused), "interrupted"
    cause = driver_error(error)
    stays = False
    if watch is not None and stopped.was_stopped(watch, error, connection_lost=connection_lost):
        stays = watch.stopped is not None
        result = stopped.describe(step, watch, again_by(step, state), instead)
        result.next_step = _next_step(result.next_step or "", error, state)
    elif isinstance(error, GuvnorError):
        result = error
        stays = isinstance(error, OnlineStepError)
        if stage.committed or isinstance(error, BusyError):
            result.state = where(state, step, refused=refused, stays=stays)
        if stays:
            advice = f"Correct the revision, then: {again_by(step, state)}"
            result.next_step = _next_step(advice, error, state)
        if stage.committed and state is not None and state.dirty and not state.resumable:
            result.next_step = again_by(step, state)
    elif cause is not None and connection_lost and idle >= step.max_idle:
        result = GuvnorError(
            f"Revision {step.revision} left its transaction, and its locks, idle for {step.max_idle:g} s: "
            "the server ended its session.",
            next_step=f"{again_by(step, state)}\n"
            'Or say in the revision how long it needs between two statements: max_idle = "10min"  # why',
        )
    elif cause is not None and (connection_lost or cause.pgcode in SERVER_GONE):
        result = GuvnorError(
            f"The connection to the database was lost while revision {step.revision} was going "
            f"{step.direction}."
        )
    else:
        log.debug("the revision failed at\n%s", redacted("".join(traceback.format_tb(error.__traceback__))))
        stays = cause is None or not may_pass(cause.pgcode)
        sent = watch.statement if watch is not None else None
        result = _revision_failed(step, error, cause, state, lacking, sent)
    if stage.ended_by_itself and not isinstance(error, EndedByItselfError):
        result.message += "\nIt had ended its transaction by itself before, with a COMMIT."
    if stage.still_open:
        result.state, result.next_step = STILL_OPEN, "guvnor migrate status"
    elif not stage.committed and cause is not None and _hides_transactions(cause):
        result.state = UNCLEAR
    result.state = result.state or where(state, step, refused=refused, stays=stays)
    result.next_step = result.next_step or again_by(step, state)
    if state is not None and lost_its_mark(state):
        result.state, result.next_step = _unmarked(step, state)
    return result, "failed"


def _hides_transactions(cause: psycopg2.Error) -> bool:
    """Tell whether SQL that failed may have ended the transaction and begun others that are committed.

    They leave no trace. SQL that passes through SQLAlchemy is looked at before it is run, other SQL is not.
    """
    query = cause.cursor.query if cause.cursor is not None else None
    return query is not None and transaction_control.ending(query.decode(errors="replace")) is not None


def where(
    state: State | None, attempted: Step, *, refused: tuple[str, ...] | None = (), stays: bool = False
) -> str:
    """Say in a few sentences what state the database is in.

    :param state: as read after the failure; None when it could not be read.
    :param attempted: the step that did not end well.
    :param refused: which writes are refused or slower; None where that is unknown.
    :param stays: whether the next run would fail, too, as long as nobody corrects what stopped this one.
    """
    if state is None:
        return (
            "The state could not be read: the server does not answer, or the version tables are locked. "
            "What was not committed is rolled back; `guvnor migrate status` tells later which version the "
            "database is at."
        )
    at = f"version {state.number}" if state.version else "no migrations applied"
    if _is_finished(attempted, state):
        return f"The revision had just been finished ({at})."
    if not state.dirty:
        return f"The revision was rolled back; the database is as it was before it ({at})."
    step = f" at the step: {state.unfinished.step}" if state.unfinished and state.unfinished.step else ""
    until = f" Until it is finished or undone, {'; '.join(refused)}." if refused else ""
    if not state.resumable:
        return (
            f"The revision is half done and cannot simply be run again; it stopped{step}. "
            f"The database is marked dirty ({at}).{until}"
        )
    half_done = (
        "The revision is half done: what came before its online part is committed, and it stopped"
        f"{step}. The database is marked dirty ({at})"
    )
    if refused == () and not stays:
        return f"{half_done}, the application can go on using it, and the next run finishes the revision."
    use = ", and the application can go on using it" if refused == () else ""
    next_run = (
        "The next run fails in the same way, until the cause is corrected."
        if stays
        else "The next run finishes the revision."
    )
    return f"{half_done}{use}.{until} {next_run}"


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
        f"{_going(step)}"
    )
    return at, next_step


def again_by(step: Step, state: State | None) -> str:
    """Return the command that goes on from a failed step."""
    if _is_finished(step, state):
        return "guvnor migrate status"
    if state is not None and state.dirty and not state.resumable:
        return "guvnor migrate repair"
    return _going(step)


def _going(step: Step) -> str:
    return typed.going("down" if step.direction == "down" else "up")


def _is_finished(step: Step, state: State | None) -> bool:
    """Tell whether a step is applied all the same: the connection was lost, or a signal came, just then."""
    return state is not None and not state.dirty and state.version == step.to_version


def _next_step(advice: str, error: BaseException, state: State | None) -> str:
    """Return what to type after a failure that stays: what mends it, and the way back where there is one.

    :param advice: how to go on, a line each.
    """
    lines = [advice, *remedies.notes(error)]
    if state is not None and state.resumable:
        lines.append(_BACK)
    return "\n".join(lines)


def _revision_failed(
    step: Step,
    error: BaseException,
    cause: psycopg2.Error | None,
    state: State | None,
    lacking: tuple[str, ...],
    sent: str | None,
) -> GuvnorError:
    """Describe a revision that failed by itself: an error of the server, or one of the revision's code.

    :param sent: the last statement that was sent to the server.
    """
    name = f"Revision {step.revision} ({step.description}) failed going {step.direction}"
    if any(isinstance(e, InvalidRequestError) for e in (error, getattr(error, "orig", None))):
        return GuvnorError(
            f"{name}: text() takes a colon before a word for a parameter. {str(error).splitlines()[0]}",
            next_step=_next_step(_NO_VALUE, error, state),
        )
    if cause is None:
        next_step = _next_step(again_by(step, state), error, state)
        return GuvnorError(f"{name}: {type(error).__name__}: {excerpt(str(error))}", next_step=next_step)
    diagnostics = cause.diag
    code = f" (SQLSTATE {cause.pgcode})" if cause.pgcode else ""
    reason = excerpt(diagnostics.message_primary or str(cause)) or "no reason was given"
    lines = [f"{name}: {reason}{code}"]
    # To an owner whose rows a policy hides, the hint is to lift it, whatever commits in between.
    hint = None if row_security.refused(cause) else diagnostics.message_hint
    for label, value in (("Detail", diagnostics.message_detail), ("Hint", hint)):
        if value:
            lines.append(f"{label}: {excerpt(value)}")
    if statement := getattr(error, "statement", None):
        lines.append(f"Statement:\n{excerpt(sent or statement)}")
    usual = "Correct the revision or what it ran into, then: {again}"
    advice = _NEXT_STEPS.get(cause.pgcode or "", usual).format(again=again_by(step, state))
    if not may_pass(cause.pgcode):
        advice = _next_step("\n".join(lacking) or advice, cause, state)
    return GuvnorError("\n".join(lines), next_step=advice)


def _interrupted(
    step: Step, number: int, state: State | None, refused: tuple[str, ...] | None
) -> RunInterrupted:
    """Describe a signal that arrived while a revision was being run; the revision may just have finished."""
    at, next_step = where(state, step, refused=refused), again_by(step, state)
    if state is not None and state.resumable:
        next_step = f"{next_step}\n{_BACK}"
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
    return BusyError(
        f"Could not get the locks that revision {step.revision} needs within {waited:.0f} s ({tries} tries). "
        f"In the way: {named(blockers)}.",
        state=where(state, step),
        next_step=f"{again_by(step, state)}   # once that transaction has ended{ways_out(blockers)}",
    )
