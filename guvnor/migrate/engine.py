"""Moving the version of a database: ``guvnor migrate up`` and plain ``alembic`` both come here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg2

from guvnor import __version__, postgres, telemetry
from guvnor.bookkeeping import consistency, history, production, state, tables, versions
from guvnor.bookkeeping.consistency import DirtyError
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.errors import GuvnorError, reason
from guvnor.migrate import edited_files, guard, heartbeat, preflight, repair, signals, takeover
from guvnor.migrate.backup_policy import BackupDecision, BackupPolicy
from guvnor.migrate.edited_files import EditedFile
from guvnor.migrate.locks import Locks
from guvnor.migrate.planner import make_plan, plan_request, reconfirm
from guvnor.migrate.preflight import Ready
from guvnor.migrate.repair import Choice
from guvnor.migrate.request import Outcome, Request
from guvnor.migrate.signals import Canceller
from guvnor.postgres import Connection, scalar
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import Direction, alembic_environment, find_steps

if TYPE_CHECKING:
    from guvnor.backup.take import TakenBackup
    from guvnor.migrate.runner import Applied
    from guvnor.migrate.verify import Verification

log = logging.getLogger(__name__)

_ACTIONS = {Direction.UP: guard.APPLY, Direction.DOWN: guard.ROLLBACK, Direction.STAMP: guard.FORCE}


def migrate(request: Request) -> Outcome:
    """Move the version of a database: check, plan, confirm, lock, look again, back up, execute and verify.

    It is safe to run again after any failure: what was done before is not done twice.

    :raises GuvnorError: when it does not complete; the error says what state the database is in.
    """
    with (
        telemetry.exporting(__version__),
        telemetry.span(f"migrate {request.direction}", {"db.system.name": "postgresql"}),
        signals.interruptible("No revision was being run.") as canceller,
        _ready(request, canceller) as ready,
    ):
        migration = Migration(request, ready, canceller)
        if request.repair is not None:
            return migration.repair(request.repair)
        migration.check_files(ready.state)
        if consistency.is_ahead(ready.state, ready.revisions):
            return migration.leave_alone(ready.state)
        current, plan = ready.state, plan_request(request, ready, ready.state)
        if not plan.steps and current.agreed:
            return migration.nothing_to_do(current)
        seen = ready.seen or current
        while True:
            # Ask before the locks are taken, so that a slow answer blocks nobody.
            plan = migration.confirm(plan, current)
            with migration.holding_locks():
                seen = current = migration.look_again(plan, seen)
                if consistency.is_ahead(current, ready.revisions):
                    return migration.leave_alone(current)
                remaining = reconfirm(request, ready, plan, current)
                if remaining is not None:
                    return migration.carry_out(remaining, current)
                plan = plan_request(request, ready, current)


@contextlib.contextmanager
def _ready(request: Request, canceller: Canceller) -> Iterator[Ready]:
    """Run the pre-flight checks, and announce the run.

    :raises DirtyError: which says how much of the interrupted revision is in the database.
    """
    try:
        with preflight.passed(
            request.settings,
            request.project,
            request.observer.checked,
            environment=request.environment,
            patience=request.patience,
            purpose="control",
            moving=request.repair is None,
            repairing=request.repair is not None,
            canceller=canceller,
            running_files=_runs_files(request),
            planning=(lambda ready: plan_request(request, ready, ready.state))
            if request.direction is Direction.UP
            else None,
        ) as ready:
            _announce(request, ready)
            yield ready
    except DirtyError as error:
        from guvnor.migrate import diagnosis

        known = diagnosis.describe(request.settings, error.found) if error.found else ()
        error.state = "\n".join((error.state or "", *known))
        raise


def _runs_files(request: Request) -> bool:
    """Tell whether a request relies on the files of applied revisions: a stamp and a repair do not."""
    return request.repair is None and request.direction is not Direction.STAMP


def _announce(request: Request, ready: Ready) -> None:
    """Log which tool works on which database, and that the run starts."""
    identity = ready.identity
    request.observer.connected(identity)
    telemetry.annotate(
        {
            "server.address": identity.host,
            "server.port": identity.port,
            "db.namespace": identity.database,
            "db.version": identity.version_text,
            "guvnor.tool": request.tool,
        }
    )
    log.info(request.tool, extra={**identity.place, "server_version": identity.version_text})
    what = "repair" if request.repair else request.direction
    log.info(
        f"Starting database migration ({what})",
        extra={"current_version": ready.state.number, "migrations_found": len(ready.revisions)},
    )


@dataclass
class Migration:
    """What one request does to a database, part by part, in the order in which :func:`migrate` calls it.

    :ivar ready: what the pre-flight checks found.
    :ivar canceller: cancels statements when a signal arrives.
    """

    request: Request
    ready: Ready
    canceller: Canceller
    _decision: BackupDecision = field(default_factory=BackupDecision, init=False)
    _marked: bool = field(default=False, init=False)
    _accepted: tuple[EditedFile, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Prepare the locks and the backup."""
        connection, database = self.ready.connection, self.ready.identity.database
        settings, project = self.request.settings, self.request.project
        self.locks = Locks(connection, database, settings.lock_wait, project.golang_migrate)
        self._policy = BackupPolicy(self.request, self.ready, self.canceller)

    @contextlib.contextmanager
    def holding_locks(self) -> Iterator[None]:
        """Hold the run lock, and let others see that this run is alive."""
        with self.locks.held(), heartbeat.beating(self.ready.connection):
            yield

    def check_files(self, current: State) -> None:
        """Check that the files of the applied revisions are those that were applied, or are accepted.

        :raises EditedFileError: when one is not.
        """
        if _runs_files(self.request):
            ready, settings = self.ready, self.request.settings
            self._accepted = edited_files.check(ready.connection, current, ready.script, settings)

    def leave_alone(self, current: State) -> Outcome:
        """Leave alone a database that is ahead of the files, as after a rollback of the application.

        :raises StateError: when the request is strict, or is not an upgrade.
        """
        error = consistency.ahead_error(current, self.ready.revisions)
        if self.request.strict or self.request.direction is not Direction.UP:
            raise error
        self._accept_files(current)
        return self._outcome(current)

    def nothing_to_do(self, current: State) -> Outcome:
        """End a run that finds the database at its target already."""
        self._mark_production(current)
        self._accept_files(current)
        return self._outcome(current)

    def confirm(self, plan: Plan, current: State) -> Plan:
        """Find out what a plan would lose and which backup is taken first, and have it confirmed if need be.

        :returns: the plan, which knows what it loses.
        :raises RefusedError: when it is not confirmed.
        """
        why = self._production_reason(current)
        decision = self._decision = self._policy.decide(plan, production=why is not None)
        waits = tuple(
            f"Revision {step.revision} may make the application wait for up to {said.text}: {said.reason}"
            for step in plan.steps
            if (said := step.max_stall)
        )
        only_up = all(step.direction is Direction.UP for step in plan.steps)
        plan = replace(plan, lost=decision.hashed)
        if decision.accepted:
            log.info("the revisions accept a loss of data", extra={"losses": decision.accepted})
        if why is None or (only_up and not decision.losses and not waits):
            return plan
        action = guard.STALL if only_up and not decision.losses else _ACTIONS[plan.steps[0].direction]
        risk = guard.Risk(
            action=action.format(does=decision.does),
            why=why,
            database=plan.database,
            current=plan.current,
            target=plan.target,
            revisions=tuple(
                f"{step.direction} {step.revision} {step.description}".strip() for step in plan.steps
            ),
            losses=decision.losses,
            accepted=decision.accepted,
            waits=waits,
            hash=plan.hash,
            backup=decision.backup,
        )
        guard.check(risk, self.request.settings.confirm, self.request.observer.ask)
        return plan

    def look_again(self, plan: Plan, seen: State) -> State:
        """Read the state under all locks: another run may have changed it, or golang-migrate.

        What golang-migrate did of the plan meanwhile is adopted.

        :param seen: the state that the plan was made from.
        :raises StateError: when no migration can start from it.
        """
        current = self._read_state()
        if takeover.adopt_progress(self.ready, plan, seen, current):
            current = self._read_state()
        consistency.check(current, self.ready.revisions)
        self.check_files(current)
        return current

    def carry_out(self, plan: Plan, current: State) -> Outcome:
        """Back up, execute and verify, under all locks."""
        if not plan.steps:
            return self.nothing_to_do(current)
        self._mark_production(current)
        self._accept_files(current)
        self.request.observer.planned(plan)
        taken = self._back_up(plan, current)
        verification = self._begin_verification(plan)
        applied = self._execute(plan, taken, current)
        self.request.observer.executed(applied)
        with telemetry.span("verification"):
            drift = verification.new_drift() if verification else None
        return self._outcome(self._read_state(), applied, backup=taken, drift=drift)

    def repair(self, choice: Choice) -> Outcome:
        """Run the revision that left the database dirty, forward or back.

        :param choice: the way out that the user has taken; see :func:`guvnor.migrate.repair.choices`.
        :raises StateError: when that is no longer a way out (exit code 5).
        """
        ready = self.ready
        direction = choice.direction or Direction.UP
        heads = (choice.from_version,) if choice.from_version else ()
        steps = find_steps(ready.script, direction, heads, choice.to_version)
        plan = make_plan(ready, choice.from_version, steps)
        self._check_still_open(choice, ready.state)
        plan = self.confirm(plan, ready.state)
        with self.holding_locks():
            current = self._read_state()
            consistency.check_unmoved(ready.state, current)
            taken = self._back_up(plan, current)
            attempt = history.Attempt(direction, choice.revision, choice.from_version, choice.to_version)
            self._write(lambda connection: versions.prepare_repair(connection, attempt))
            applied = self._execute(plan, taken, current)
            return self._outcome(self._read_state(), applied, backup=taken)

    def _check_still_open(self, choice: Choice, current: State) -> None:
        """Check that a way out that was chosen is still one."""
        if choice not in repair.choices(current, self.ready.revisions):
            raise consistency.moved_error(current)

    def _read_state(self) -> State:
        return state.read(
            self.ready.connection,
            max_wait=self.request.settings.max_wait,
            golang_migrate=self.request.project.golang_migrate,
        )

    def _write(self, work: Callable[[Connection], None]) -> None:
        """Write to the bookkeeping tables, waiting while somebody else has locked one of them."""
        connection = self.ready.connection
        wait_for_tables(connection, self.request.settings.max_wait, lambda: work(connection))

    def _production_reason(self, current: State) -> str | None:
        return production.reason(self.request.settings.production_environment, current.production)

    def _mark_production(self, current: State) -> None:
        """Mark the database at its first production run, so that it is guarded whatever GUVNOR_ENV says."""
        if self.request.settings.production and current.production is None:
            self._write(lambda connection: production.set_mark(connection, production=True))
            self._marked = True

    def _accept_files(self, current: State) -> None:
        """Record which changed files of applied revisions the user accepts."""
        if self._accepted:
            self._write(lambda connection: edited_files.accept(connection, current, self._accepted))
            accepted = [each.known.revision for each in self._accepted]
            log.warning("the changed files of applied revisions are accepted", extra={"revisions": accepted})

    def _back_up(self, plan: Plan, current: State) -> TakenBackup | None:
        """Take the backup that is called for, before anything is changed."""
        guarded = self._production_reason(current) is not None
        with telemetry.span("backup"):
            taken = self._policy.back_up(plan, self._decision, production=guarded)
        self.request.observer.backed_up(taken)
        return taken

    def _begin_verification(self, plan: Plan) -> Verification | None:
        """Look at the schema before an upgrade, to know afterwards which differences are new."""
        if not self.request.settings.verify or not any(s.direction is Direction.UP for s in plan.steps):
            return None
        from guvnor.migrate.verify import Verification

        try:
            return Verification(self.ready.database, self.ready.script, self.ready.connection)
        except (GuvnorError, psycopg2.Error) as error:
            log.warning("the schema cannot be verified", extra={"reason": reason(error)})
            return None

    def _execute(self, plan: Plan, taken: TakenBackup | None, current: State) -> tuple[Applied, ...]:
        """Run the steps of a plan, one after the other; those before a failing one stay applied."""
        # Imported only if there is something to run: most runs find nothing to do, and have to be quick.
        from guvnor.migrate.runner import StepRunner
        from guvnor.migrate.session import RevisionSession
        from guvnor.migrate.watch import Watch
        from guvnor.postgres.engine import connected

        ready, request = self.ready, self.request
        golang_migrate = request.project.golang_migrate
        self._write(lambda connection: tables.create_missing(connection, golang_migrate=golang_migrate))
        note = f"backup: {taken.path or taken.what}" if taken else None
        applied = []
        with (
            postgres.closing(ready.database.connect("watch")) as watching,
            connected(lambda: ready.database.connect("revision")) as connection,
            alembic_environment(request.environment, ready.script) as environment,
        ):
            control_pid = int(scalar(ready.connection, "SELECT pg_backend_pid()"))
            session = RevisionSession(connection, control_pid, ready.database.keep)
            watch = Watch(watching, session)
            runner = StepRunner(
                environment,
                request,
                session,
                ready.connection,
                watch,
                self.locks,
                self.canceller,
                note,
                production=self._production_reason(current) is not None,
            )
            with contextlib.closing(watch):
                for step in plan.steps:
                    told = {"guvnor.revision": step.revision, "guvnor.direction": str(step.direction)}
                    with telemetry.span(f"revision {step.revision} {step.direction}", told):
                        applied.append(runner.run(step))
        return tuple(applied)

    def _outcome(self, current: State, applied: tuple[Applied, ...] = (), **found: Any) -> Outcome:
        ahead = consistency.is_ahead(current, self.ready.revisions)
        at = current.furthest if ahead else current.number
        newest = self.ready.revisions[-1].number
        return Outcome(at, newest, applied, ahead=ahead, marked=self._marked, **found)
