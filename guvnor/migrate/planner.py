"""Which steps a request means from where the database is, and what remains of them under the lock."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from guvnor.bookkeeping import consistency
from guvnor.bookkeeping.state import State
from guvnor.errors import GuvnorError
from guvnor.migrate.request import Request
from guvnor.postgres import Identity
from guvnor.revisions import plan as planning
from guvnor.revisions.direction import Direction
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import find_steps


class Planner:
    """Makes the plans of one request."""

    def __init__(self, request: Request, script: ScriptDirectory, database: Identity) -> None:
        """Plan nothing yet.

        :param script: Alembic's view of the revision files.
        """
        self._request = request
        self._script = script
        self._database = database

    def plan(self, current: State) -> Plan:
        """Make the plan from a state; what an earlier run left unfinished comes first.

        :raises DirtyError: when what is unfinished is not on the way of the request.
        """
        request, script = self._request, self._script
        heads = current.alembic or ()
        steps = list(request.find_steps(script, heads))
        start = current.unfinished
        if current.dirty and start is not None:
            if request.direction is Direction.STAMP or (
                request.direction is Direction.UP and start.direction == Direction.UP and not steps
            ):
                # A stamp runs nothing, and the target of an up is not to be passed.
                raise consistency.dirty_error(current)
            finish = find_steps(script, Direction(start.direction), heads, start.to_version)
            if steps[:1] != finish[:1]:
                target = (start.to_version,) if start.to_version else ()
                steps = finish + list(request.find_steps(script, target))
        return planning.make(self._database, current.version, steps)

    def reconfirm(self, plan: Plan, current: State) -> Plan | None:
        """Return what remains of a plan under the lock: another run may have done a part of it, or all.

        A relative target (``-1``) is resolved once: what remains of the first plan is run.

        :returns: None when it is another plan now, which nobody has confirmed.
        """
        remaining = plan.remaining(current.version)
        if remaining is None and self._request.relative:
            raise GuvnorError(
                f"Another run moved the database to version {current.number} while this one was waiting.",
                state="Nothing was changed by this command.",
                next_step="guvnor migrate status",
            )
        if remaining is not None and not current.dirty:
            return remaining
        fresh = self.plan(current)
        return fresh if fresh.hash == plan.hash else None
