"""Which steps a request takes from the database's version, and which of them remain under the run lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from guvnor.bookkeeping import consistency
from guvnor.bookkeeping.state import State
from guvnor.migrate.preflight import Ready
from guvnor.migrate.request import Request
from guvnor.revisions import check, plan as planning
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import Direction, find_steps

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationStep


def plan_request(request: Request, ready: Ready, current: State) -> Plan:
    """Make the plan of a request from a state; what an earlier run left unfinished comes first.

    :raises DirtyError: when the request would not finish what is unfinished.
    """
    heads = current.alembic or ()
    steps = list(request.find_steps(ready.script, heads))
    start = current.unfinished
    if current.resumable and start is not None:  # else golang-migrate is at work, or somebody has to decide
        if request.direction is Direction.STAMP or (
            request.direction is Direction.UP and start.direction == Direction.UP and not steps
        ):
            # A stamp runs nothing, and an up does not pass its target.
            raise consistency.dirty_error(current)
        finish = find_steps(ready.script, Direction(start.direction), heads, start.to_version)
        if steps[:1] != finish[:1]:
            target = (start.to_version,) if start.to_version else ()
            steps = finish + list(request.find_steps(ready.script, target))
    return make_plan(ready, current.version, steps)


def make_plan(ready: Ready, current: str | None, steps: Sequence[MigrationStep]) -> Plan:
    """Make a plan of steps whose SQL leaves transactions to the tool.

    :param current: the version that the steps start from.
    :raises RevisionFilesError: when the SQL of one of them does not (exit code 3).
    """
    plan = planning.make(ready.identity, current, steps)
    ran = ((step.revision, step.direction) for step in plan.steps if step.direction is not Direction.STAMP)
    check.check_transactions(ready.script, ran)
    return plan


def reconfirm(request: Request, ready: Ready, plan: Plan, current: State) -> Plan | None:
    """Return what remains of a plan under the lock: another run may have done part of it, or all of it.

    A relative target (``-1``) is not resolved again: what remains of the first plan is run.

    :returns: None when there is another plan now, which nobody has confirmed.
    :raises StateError: when the database is no longer on the way to a relative target (exit code 5).
    """
    remaining = plan.remaining(current.version)
    if remaining is None and request.relative:
        raise consistency.StateError(
            f"Another run moved the database to version {current.number} while this one was waiting.",
            state="Nothing was changed by this command.",
        )
    if remaining is not None and not current.dirty:
        return remaining
    fresh = plan_request(request, ready, current)
    return replace(fresh, lost=plan.lost) if fresh.hash == replace(plan, lost=()).hash else None
