"""A command that moves the version: plan, confirm, lock, look again, execute."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2
from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory

from guvnor import __version__, postgres
from guvnor.config import Settings
from guvnor.errors import GuvnorError
from guvnor.migrate import guard, history, operations, preflight, repair, signals, state
from guvnor.migrate import plan as planning
from guvnor.migrate.attempt import Applied
from guvnor.migrate.context import configure, connected
from guvnor.migrate.locks import Locks
from guvnor.migrate.plan import Plan
from guvnor.migrate.precaution import Outlook, Precaution
from guvnor.migrate.progress import Progress
from guvnor.migrate.run import Runner
from guvnor.migrate.state import State

if TYPE_CHECKING:
    from guvnor.migrate.backup import Backup
    from guvnor.migrate.backup import Options as BackupOptions
    from guvnor.migrate.verify import Verification
    from guvnor.schema.drift import DriftReport

log = logging.getLogger(__name__)


@dataclass
class Request:
    """What is asked of the environment, and by whom the answers are shown.

    :ivar report: is told each pre-flight check.
    :ivar ask: asks for a confirmation.
    :ivar progress: is told how far a long step is.
    :ivar repair: the way out of a dirty state to take; None for an ordinary command.
    :ivar backup: how the whole database is backed up first; None: only what a rollback drops, see
        :class:`guvnor.migrate.precaution.Precaution`.
    :ivar planned: is told the plan under the run lock, before a backup is taken and anything is changed.
    :ivar backed_up: is told the backup that was taken, or None; the steps of the plan come next.
    :ivar executed: is told the steps that were run; the look at the schema comes next.
    :ivar strict: refuse a database that is ahead of the files.
    :ivar outcome: what was done, once it is done.
    """

    settings: Settings
    report: preflight.Report
    ask: guard.Ask
    progress: Callable[[Progress], None]
    tool: str = f"guvnor {__version__}"
    patience: float = 0.0
    strict: bool = False
    repair: str | None = None
    backup: BackupOptions | None = None
    planned: Callable[[Plan], None] = lambda _: None
    backed_up: Callable[[Backup | None], None] = lambda _: None
    executed: Callable[[Sequence[Applied]], None] = lambda _: None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Outcome:
    """What a command that moves the version has done.

    :ivar version: the number of the revision that the database is at now; 0 for none.
    :ivar ahead: whether that is later than the newest file.
    :ivar backup: that was taken first; None when none was.
    :ivar verified: whether the schema was compared with the expected one.
    :ivar drift: how the schema differs from what was expected of the run; None when it does not.
    """

    version: int
    newest: int
    applied: tuple[Applied, ...] = field(default=())
    ahead: bool = False
    backup: Backup | None = None
    verified: bool = False
    drift: DriftReport | None = None


class Move:
    """One command that moves the version, from the plan to the outcome."""

    def __init__(
        self,
        context: Any,
        request: Request,
        ready: preflight.Ready,
        script: ScriptDirectory,
        options: dict[str, Any],
        canceller: signals.Canceller,
    ) -> None:
        """Prepare a move.

        :param context: the module ``alembic.context``.
        :param ready: what the pre-flight checks found.
        :param options: Alembic's options of the command: its ``fn`` finds the steps.
        :param canceller: cancels statements when a signal arrives.
        """
        self._context = context
        self._request = request
        self._ready = ready
        self._script = script
        self._find_steps: Callable[[Any, Any], Sequence[MigrationStep]] = options["fn"]
        self._upwards = self._find_steps.__name__ == "upgrade"
        self._relative = str(options["destination_rev"])[:1] in ("+", "-")
        self._canceller = canceller
        self._outlook = Outlook()
        self._precaution = Precaution(
            request.settings, script, ready.connection, request.backup, request.progress, canceller
        )
        self._locks = Locks(
            ready.connection,
            ready.identity.database,
            request.settings.lock_wait,
            lambda text: log.warning(text),
        )

    def run(self) -> Outcome:
        """Plan, confirm, lock, look again, and execute."""
        ready = self._ready
        if self._request.repair:
            return self._repair(self._request.repair)
        if state.is_ahead(ready.state, ready.revisions):
            return self._ahead(ready.state)
        plan = self._plan(ready.state)
        if not plan.steps and not ready.state.dirty:
            self._mark_production(ready.state)
            return self._outcome(ready.state)
        current = ready.state
        while True:
            self._guard(plan, current)  # nobody is kept out while somebody thinks
            self._locks.take()
            try:
                current = state.read(ready.connection)
                state.check(current, ready.revisions)
                still = self._still(plan, current)
                if still is not None:
                    return self._carry_out(still, current)
                plan = self._plan(current)
            finally:
                with contextlib.suppress(psycopg2.Error):
                    self._locks.release()

    def _carry_out(self, plan: Plan, current: State) -> Outcome:
        """Back up, execute and verify, under the run lock."""
        self._mark_production(current)
        if not plan.steps:
            return self._outcome(current)
        self._request.planned(plan)
        taken = self._back_up(plan, current)
        verification = self._verification(plan)
        applied = self._execute(plan, taken)
        self._request.executed(applied)
        drift = verification.new_drift() if verification else None
        return self._outcome(
            state.read(self._ready.connection),
            tuple(applied),
            backup=taken,
            verified=verification is not None and verification.done,
            drift=drift,
        )

    def _mark_production(self, current: State) -> None:
        """Mark the database at its first production run: from then on it is guarded from anywhere."""
        if self._request.settings.production and current.production is None:
            history.set_mark(self._ready.connection, production=True)

    def _verification(self, plan: Plan) -> Verification | None:
        """Look at the schema before an upgrade, to know afterwards which differences are new."""
        if not self._request.settings.verify or not any(step.direction == "up" for step in plan.steps):
            return None
        from guvnor.migrate.verify import Verification

        dsn = postgres.connection_string(self._request.settings)
        try:
            return Verification(self._request.settings, self._script, dsn, self._ready.connection)
        except GuvnorError as error:
            log.warning("the schema cannot be verified", extra={"reason": error.message})
            return None

    def _repair(self, name: str) -> Outcome:
        """Run the revision that left the database dirty, onward or back."""
        ready = self._ready
        choice = repair.choose(ready.state, ready.revisions, name)
        if choice is None:
            return self._outcome(ready.state)
        plan = planning.make(ready.identity, choice.from_version, self._repairing_steps(choice))
        self._guard(plan, ready.state)  # nobody is kept out while somebody thinks
        self._locks.take()
        try:
            current = state.read(ready.connection)
            state.check_unmoved(ready.state, current)
            taken = self._back_up(plan, current)
            self._locks.shut_out_golang()
            state.prepare_repair(ready.connection, _attempt(choice))
            applied = self._execute(plan, taken)
            return self._outcome(state.read(ready.connection), tuple(applied), backup=taken)
        finally:
            with contextlib.suppress(psycopg2.Error):
                self._locks.release()

    def _repairing_steps(self, choice: repair.Choice) -> list[MigrationStep]:
        heads = (choice.from_version,) if choice.from_version else ()
        return self._steps_to(choice.direction or "up", choice.to_version, heads)

    def _plan(self, current: State) -> Plan:
        """Make the plan from a state; what an earlier run left unfinished comes first."""
        heads = current.alembic or ()
        steps = list(self._find_steps(heads, self._context.get_context()))
        start = current.unfinished
        if current.dirty and start is not None:
            if self._find_steps.__name__ == "do_stamp" or (
                self._upwards and start.direction == "up" and not steps
            ):
                # A stamp runs nothing, and the target of an up is not to be passed.
                raise state.dirty_error(current)
            finish = self._steps_to(start.direction, start.to_version, heads)
            if steps[:1] != finish[:1]:
                target = (start.to_version,) if start.to_version else ()
                steps = finish + list(self._find_steps(target, self._context.get_context()))
        return planning.make(self._ready.identity, current.version, steps)

    def _steps_to(self, direction: str, target: str | None, heads: tuple[str, ...]) -> list[MigrationStep]:
        """Ask Alembic for the steps to a version."""
        if direction == "up":
            return list(self._script._upgrade_revs(target or "head", heads))  # type: ignore[arg-type]
        return list(self._script._downgrade_revs(target or "base", heads))  # type: ignore[arg-type]

    def _still(self, plan: Plan, current: State) -> Plan | None:
        """Return what remains of a plan under the lock: another run may have done a part of it, or all.

        A relative target (``-1``) is resolved once: what remains of the first plan is run.

        :returns: None when it is another plan now, which nobody has confirmed.
        """
        remaining = plan.remaining(current.version)
        if remaining is None and self._relative:
            raise GuvnorError(
                f"Another run moved the database to version {current.number} while this one was waiting.",
                state="Nothing was changed by this command.",
                next_step="guvnor migrate status",
            )
        if remaining is not None and not current.dirty:
            return remaining
        fresh = self._plan(current)
        return fresh if fresh.hash == plan.hash else None

    def _guard(self, plan: Plan, current: State) -> None:
        """Find out what the plan would lose and which backup is taken first, and ask where that is needed."""
        why = guard.production(self._request.settings, current)
        outlook = self._outlook = self._precaution.look(plan, production=why is not None)
        if why is None or not plan.steps:
            return
        if not outlook.losses and all(step.direction == "up" for step in plan.steps):
            return
        actions = {"up": guard.DROP, "down": guard.ROLLBACK, "stamp": guard.FORCE}
        risk = guard.Risk(
            action=actions[plan.steps[0].direction],
            why=why,
            database=plan.database,
            current=plan.current,
            target=plan.target,
            revisions=tuple(
                f"{step.direction} {step.revision} {step.description}".strip() for step in plan.steps
            ),
            losses=outlook.losses,
            hash=plan.hash,
            backup=outlook.backup,
        )
        guard.check(risk, self._request.settings.confirm, self._request.ask)

    def _back_up(self, plan: Plan, current: State) -> Backup | None:
        """Take the backup that is called for, under the run lock and before anything is changed."""
        production = guard.production(self._request.settings, current) is not None
        taken = self._precaution.take(plan, self._outlook, production=production)
        self._request.backed_up(taken)
        return taken

    def _execute(self, plan: Plan, taken: Backup | None) -> list[Applied]:
        dsn = postgres.connection_string(self._request.settings)
        with connected(dsn, "revision") as connection:
            runner = Runner(
                connection,
                self._ready.connection,
                self._locks,
                self._request.settings,
                self._request.progress,
                self._canceller,
                self._request.tool,
                note=f"backup: {taken.path or taken.what}" if taken else None,
            )
            try:
                configure(
                    self._context,
                    connection,
                    transaction_per_migration=True,
                    on_version_apply=runner.version_applied,
                    fn=runner.next_step,
                    **{operations.RUNNER: runner},
                )
                return runner.execute(plan, self._context.get_context(), self._run_migrations)
            finally:
                runner.close()

    def _run_migrations(self) -> None:
        with self._context.begin_transaction():
            self._context.run_migrations()

    def _ahead(self, current: State) -> Outcome:
        """Leave a database alone that is ahead of the files: the application was rolled back."""
        error = state.ahead_error(current, self._ready.revisions)
        if self._request.strict or not self._upwards:
            raise error
        log.warning(error.message)
        return self._outcome(current)

    def _outcome(self, current: State, applied: tuple[Applied, ...] = (), **found: Any) -> Outcome:
        newest = self._ready.revisions[-1].number
        return Outcome(current.number, newest, applied, ahead=current.number > newest, **found)


def _attempt(choice: repair.Choice) -> history.Attempt:
    return history.Attempt(
        str(uuid.uuid4()),
        choice.direction or "up",
        choice.revision,
        choice.from_version,
        choice.to_version,
    )
