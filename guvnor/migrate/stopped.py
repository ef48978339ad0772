"""The error of a revision that its watch has stopped: who waited, behind what, and what to write instead."""

from __future__ import annotations

from psycopg2 import errorcodes

from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate.stalls import Stall
from guvnor.migrate.watch import StoppedError, Watch, WatchLostError
from guvnor.postgres.engine import driver_error
from guvnor.postgres.excerpt import excerpt
from guvnor.revisions.plan import Step

# A lock timeout or a deadlock may come before the cancellation does.
_CODES = (errorcodes.QUERY_CANCELED, errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED)

_ROWS = (
    "Change the rows batch by batch: op.backfill(table, assignments, where), or op.change_rows and "
    "op.delete_rows, which keep what was there"
)
_COMPUTE = "Compute what takes long before the first statement that locks anything."
_USUAL = "Write it so that it holds its locks for a moment only: docs/migrations.md has a form for each."


class StalledError(GuvnorError):
    """A revision was stopped, since it would make the application wait for longer than it may."""

    exit_code = ExitCode.STALLED


def was_stopped(watch: Watch, error: BaseException, *, connection_lost: bool) -> bool:
    """Tell whether a step ended with this error because the watch has stopped it.

    Only then: somebody else may have cancelled a statement (SQLSTATE 57014), and a revision that was about to
    be stopped may fail by itself.
    """
    if watch.stopped is None and not (watch.lost and watch.budget is not None):
        return False
    if connection_lost and not watch.cut:  # the server is gone, for both
        return False
    if isinstance(error, StoppedError | WatchLostError):
        return True
    cause = driver_error(error)
    return cause is not None and (connection_lost or cause.pgcode in _CODES)


def describe(step: Step, watch: Watch, again: str, instead: tuple[str, ...]) -> GuvnorError:
    """Return the error of a step that the watch has stopped.

    :param again: the command that goes on from here.
    :param instead: what to write instead, a line each; nothing where that is unknown.
    """
    if watch.stopped is None:
        return WatchLostError(
            f"The watch was lost while revision {step.revision} was going {step.direction}: nobody could see "
            "any more whether it made the application wait, so it was stopped.",
            next_step=again,
        )
    stall, budget = watch.stopped, watch.budget or 0.0
    return StalledError(
        f"Revision {step.revision} ({step.description}) was stopped going {step.direction}: it would make "
        f"the application wait for longer than max_stall allows ({_milliseconds(budget)}).\n"
        f"Waiting for {_milliseconds(stall.seconds)}:\n{_waiting(stall)}{_behind(stall)}\n"
        "The application goes on. Running it again, as it is, would end in the same way.",
        next_step="\n".join(
            (
                *(instead or (_usual(stall),)),
                f"Then: {again}",
                'Or say in the revision how long the application may wait, and why: max_stall = "5s"  # why',
            )
        ),
    )


def _usual(stall: Stall) -> str:
    if stall.idle:
        return _COMPUTE
    return _ROWS if stall.for_rows else _USUAL


def _waiting(stall: Stall) -> str:
    more = stall.sessions - len(stall.waiting)
    others = (f"{more} more session{'s' if more > 1 else ''}",) if more > 0 else ()
    return "\n".join(f"  {line}" for line in (*stall.waiting, *others))


def _behind(stall: Stall) -> str:
    if not stall.statement:
        return ""
    what = "Python between two statements, after" if stall.idle else "the statement"
    return f"\nBehind {what}:\n{excerpt(stall.statement)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
