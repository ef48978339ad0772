"""The deploy job: pre-flight, plan, backup, up and verification as one run, with a record of every stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guvnor import __version__, postgres
from guvnor.backup import take
from guvnor.backup.take import BackupOptions, TakenBackup
from guvnor.commands import migrate as commands, preview
from guvnor.commands.preview import Preview
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate import signals
from guvnor.migrate.engine import migrate
from guvnor.migrate.guard import Risk
from guvnor.migrate.observer import Observer
from guvnor.migrate.preflight import Check
from guvnor.migrate.request import Outcome, Request
from guvnor.migrate.runner import Applied
from guvnor.online.progress import Progress
from guvnor.postgres.errors import ConnectionFailedError
from guvnor.revisions.plan import Plan

log = logging.getLogger(__name__)

_POLL = 1.0  # seconds
DONE, SKIPPED, FAILED = "done", "skipped", "failed"
# What the result file says from the start, and for ever when the job is killed.
UNDER_WAY = {
    "tool": f"guvnor {__version__}",
    "exit_code": None,
    "summary": "The deployment is under way, or was killed",
}


class StillPendingError(GuvnorError):
    """The database is not at the newest revision yet."""

    exit_code = ExitCode.PENDING
    state = "Nothing was changed by this command."
    next_step = "guvnor migrate status"


@dataclass
class Stage:
    """One stage of a deployment.

    :ivar outcome: ``done``, ``skipped`` or ``failed``.
    :ivar seconds: how long it took.
    :ivar detail: what is worth knowing of it, for the result file.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a deployment does beyond ``up``.

    :ivar at_most: the last revision to apply, for a dry run; all when None.
    :ivar dry_run: stop after the plan.
    :ivar backup: where and how the whole database is backed up first; None for no such backup.
    :ivar show_plan: whether the plan is logged.
    """

    at_most: str | None = None
    dry_run: bool = False
    backup: BackupOptions | None = None
    show_plan: bool = True


class Deployment(Observer):
    """A deployment and the record of its stages."""

    def __init__(self, request: Request, options: Options) -> None:
        """Prepare a deployment.

        :param request: what is asked of ``up``; its observer is told what happens here, too.
        """
        self.stages: list[Stage] = []
        self.outcome: Outcome | None = None
        self.preview: Preview | None = None
        self._options = options
        self._shown = request.observer
        self._request = replace(request, observer=self, backup=options.backup)
        self._began = time.monotonic()  # the stage that is under way
        self._under_way = "pre-flight"

    def run(self) -> None:
        """Do it all.

        Safe to run again after any failure: what is done is found done.

        :raises GuvnorError: of the stage that failed or was interrupted; it is on record, with those before.
        """
        try:
            with postgres.explained(), signals.explained("Nothing was changed by this command."):
                if self._options.dry_run:
                    self._look()
                else:
                    self.outcome = migrate(self._request)
                    self._record_outcome(self.outcome)
        except GuvnorError as error:
            if not any(stage.outcome == FAILED for stage in self.stages):
                self._record(self._under_way, FAILED, error=error.message)
            raise

    def _look(self) -> None:
        """Run the checks and make the plan."""
        settings = self._request.settings
        commands.run_preflight(settings, self.checked, self._request.patience)
        self._under_way = "plan"
        self.preview = preview.preview(settings, "up", self._options.at_most)
        self._record("plan", DONE, **_described(self.preview.plan))
        if self._options.backup is not None:
            self._under_way = "backup"
            found = take.check_backup(Database.of(settings), self._options.backup, whole=True)
            self._skip("backup", why="--dry-run", would_be=found)
        else:
            self._skip("backup", why="--dry-run")
        self._skip("up", why="--dry-run")
        self._skip("verification", why="--dry-run")

    def ask(self, risk: Risk) -> bool | None:
        """Ask for a confirmation."""
        return self._shown.ask(risk)

    def progressed(self, progress: Progress) -> None:
        """Pass on how far a long step is."""
        self._shown.progressed(progress)

    def checked(self, check: Check) -> None:
        """Record a pre-flight check, and pass it on."""
        outcome = FAILED if check.error else DONE
        self._record(f"pre-flight: {check.name}", outcome, text=check.text, warnings=list(check.warnings))
        if check.name == "state":
            self._under_way = "plan"  # which is confirmed where it has to be, and waits for its turn
        self._shown.checked(check)

    def planned(self, plan: Plan) -> None:
        """Record and log the plan."""
        if self._options.show_plan:
            log.info("plan", extra=_described(plan))
            for step in plan.steps:
                log.debug("plan", extra={"revision": step.revision, "statements": step.statements})
            self._record("plan", DONE, **_described(plan))
        else:
            self._skip("plan", why="--skip-plan")
        self._under_way = "backup"

    def backed_up(self, taken: TakenBackup | None) -> None:
        """Record the backup, or that there is none."""
        if taken is not None:
            self._record("backup", DONE, **asdict(taken))
        else:
            self._skip("backup", why="not asked for: --backup DIR")
        self._under_way = "up"

    def executed(self, applied: Sequence[Applied]) -> None:
        """Record the steps that were run."""
        steps = [
            {
                "revision": done.step.revision,
                "direction": done.step.direction,
                "seconds": round(done.duration, 3),
                "lock_wait_seconds": round(done.lock_wait, 3),
                "tries": done.tries,
            }
            for done in applied
        ]
        self._record("up", DONE, applied=steps)
        self._under_way = "verification"

    def _record_outcome(self, outcome: Outcome) -> None:
        if not outcome.applied:
            for name in ("plan", "backup", "up", "verification"):
                self._skip(name, why="nothing to do")
        elif outcome.drift:
            titles = [finding.title for finding in outcome.drift.findings]
            self._record("verification", FAILED, differences=titles)
        elif outcome.verified:
            self._record("verification", DONE)
        else:
            verify = self._request.settings.verify
            self._skip(
                "verification", why="the log says why it could not be done" if verify else "--no-verify"
            )

    def _record(self, name: str, outcome: str, **detail: Any) -> None:
        """Record a stage that ends now; the next one begins."""
        now = time.monotonic()
        self.stages.append(Stage(name, outcome, round(now - self._began, 3), detail))
        self._began = now

    def _skip(self, name: str, **detail: Any) -> None:
        log.info(f"stage skipped: {name}", extra=detail)
        self._record(name, SKIPPED, **detail)


def _described(plan: Plan) -> dict[str, Any]:
    return {"hash": plan.hash, "steps": [f"{step.direction} {step.revision}" for step in plan.steps]}


def wait_until_current(settings: Settings, patience: float) -> int:
    """Wait until the database is at the newest revision, for the application's own pods.

    :param patience: seconds to wait at most.
    :returns: the number of the revision that the database is at.
    :raises StillPendingError: when it is not there in time (exit code 8).
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    deadline = time.monotonic() + patience
    with signals.explained(StillPendingError.state):
        while True:
            try:
                found = commands.status(settings)
            except ConnectionFailedError:
                if time.monotonic() >= deadline:
                    raise
            else:
                if not found.pending and found.problem is None and not found.state.dirty:
                    return found.state.number
                if time.monotonic() >= deadline:
                    at = found.state.number
                    raise StillPendingError(
                        f"After {patience:.0f} s the database is at version {at}; the newest migration file "
                        f"is {found.newest.identifier}."
                    )
            time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))


def result(deployment: Deployment, error: GuvnorError | None) -> dict[str, Any]:
    """Return the record of a deployment for its result file."""
    outcome = deployment.outcome
    return {
        "tool": f"guvnor {__version__}",
        "exit_code": error.exit_code if error else 0,
        "summary": summary(deployment, error),
        "version": outcome.version if outcome else None,
        "applied": [done.step.revision for done in outcome.applied] if outcome else [],
        "stages": [asdict(stage) for stage in deployment.stages],
        "error": {"message": error.message, "state": error.state, "next": error.next_step} if error else None,
    }


def summary(deployment: Deployment, error: GuvnorError | None) -> str:
    """Say in one line how a deployment ended."""
    if error is not None:
        how = "was interrupted" if isinstance(error, signals.RunInterrupted) else "failed"
        failed = [stage.name for stage in deployment.stages if stage.outcome == FAILED]
        where = f" in the stage {failed[0]}" if failed else ""
        return f"Deployment {how}{where} with exit code {error.exit_code}: {error.message.splitlines()[0]}"
    if deployment.preview is not None:
        steps = len(deployment.preview.plan.steps)
        return f"Dry run: {steps} revision{'' if steps == 1 else 's'} would be applied"
    outcome = deployment.outcome
    assert outcome is not None
    if outcome.ahead:
        return (
            f"Nothing to deploy: the database is at version {outcome.version}, ahead of the migration files "
            f"(newest: {outcome.newest:03d})"
        )
    if not outcome.applied:
        return f"Nothing to deploy: the database is at version {outcome.version}"
    return f"Deployed {len(outcome.applied)} revision(s): the database is at version {outcome.version}"
