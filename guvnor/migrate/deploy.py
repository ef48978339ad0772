"""The deploy job: pre-flight, plan, backup, up and verification as one run, with a record of every stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guvnor import __version__, postgres
from guvnor.config import Settings
from guvnor.connection_errors import ConnectionFailedError
from guvnor.errors import GuvnorError
from guvnor.migrate import backup, commands, preview
from guvnor.migrate.move import Outcome, Request
from guvnor.migrate.plan import Plan
from guvnor.migrate.preflight import Check
from guvnor.migrate.preview import Preview

log = logging.getLogger(__name__)

_POLL = 1.0  # seconds
DONE, SKIPPED, FAILED = "done", "skipped", "failed"


class StillPendingError(GuvnorError):
    """The database is not at the newest revision yet."""

    exit_code = 8
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

    :ivar at_most: the last revision to apply; all when None.
    :ivar dry_run: stop after the plan.
    :ivar backup: where and how a backup is taken first; None for none.
    :ivar show_plan: whether the plan is logged.
    """

    at_most: str | None = None
    dry_run: bool = False
    backup: backup.Options | None = None
    show_plan: bool = True


class Deployment:
    """A deployment and the record of its stages."""

    def __init__(self, request: Request, options: Options) -> None:
        """Prepare a deployment.

        :param request: what is asked of ``up``, and who looks on.
        """
        self.stages: list[Stage] = []
        self.outcome: Outcome | None = None
        self.preview: Preview | None = None
        self._options = options
        self._request = replace(request, report=self._checked(request), planned=self._planned)
        self._check_began = time.monotonic()

    def run(self) -> None:
        """Do it all.

        Safe to run again after any failure: what is done is found done.

        :raises GuvnorError: of the stage that failed; the stages up to it are on record.
        """
        settings = self._request.settings
        if self._options.backup is not None:
            with self._stage("backup tools") as stage:
                dsn = postgres.connection_string(settings)
                stage.detail["found"] = backup.check(dsn, self._options.backup)
        if self._options.dry_run:
            commands.check(settings, self._request.report, self._request.patience)
            with self._stage("plan"):
                self.preview = preview.preview(settings, "up", self._options.at_most)
            self._skip("backup", "up", "verification")
            return
        try:
            self.outcome = commands.up(self._request, self._options.at_most)
        except GuvnorError as error:
            self.stages.append(Stage("up", FAILED, detail={"error": error.message}))
            raise
        self._record_outcome(self.outcome)

    def _record_outcome(self, outcome: Outcome) -> None:
        if not outcome.applied:
            self._skip("up", "verification", why="nothing to do")
            return
        applied = [
            {
                "revision": done.step.revision,
                "seconds": round(done.duration, 3),
                "lock_wait_seconds": round(done.lock_wait, 3),
                "tries": done.tries,
            }
            for done in outcome.applied
        ]
        took = sum(done.duration for done in outcome.applied)
        self.stages.append(Stage("up", DONE, round(took, 3), {"applied": applied}))
        if not self._request.settings.verify:
            self._skip("verification", why="--no-verify")
        else:
            self.stages.append(Stage("verification", FAILED if outcome.drift else DONE))

    def _checked(self, request: Request) -> Callable[[Check], None]:
        """Record each pre-flight check and pass it on."""

        def report(check: Check) -> None:
            now = time.monotonic()
            detail = {"text": check.text, "warnings": list(check.warnings)}
            outcome = FAILED if check.error else DONE
            stage = Stage(f"pre-flight: {check.name}", outcome, round(now - self._check_began, 3), detail)
            self.stages.append(stage)
            self._check_began = now
            request.report(check)

        return report

    def _planned(self, plan: Plan) -> None:
        """Log the plan and take the backup, under the run lock and before anything is changed."""
        if self._options.show_plan:
            with self._stage("plan") as stage:
                stage.detail.update(hash=plan.hash, steps=[f"{s.direction} {s.revision}" for s in plan.steps])
                log.info("plan", extra=stage.detail)
                for step in plan.steps:
                    log.debug("plan", extra={"revision": step.revision, "statements": step.statements})
        else:
            self._skip("plan", why="--skip-plan")
        if self._options.backup is None:
            self._skip("backup", why="not asked for")
            return
        with self._stage("backup") as stage:
            taken = _take_backup(self._request, self._options.backup)
            stage.detail.update({name: str(value) for name, value in asdict(taken).items()})
            log.info("backup taken", extra=stage.detail)

    @contextmanager
    def _stage(self, name: str) -> Iterator[Stage]:
        stage = Stage(name, FAILED)
        self.stages.append(stage)
        began = time.monotonic()
        try:
            yield stage
            stage.outcome = DONE
        finally:
            stage.seconds = round(time.monotonic() - began, 3)

    def _skip(self, *names: str, why: str = "--dry-run") -> None:
        for name in names:
            log.info(f"stage skipped: {name}", extra={"why": why})
            self.stages.append(Stage(name, SKIPPED, detail={"why": why}))


def _take_backup(request: Request, options: backup.Options) -> backup.Backup:
    dsn = postgres.connection_string(request.settings)
    if options.command is not None:
        return backup.by_command(dsn, options.command, request.progress)
    return backup.whole(dsn, options, request.progress)


def wait_until_current(settings: Settings, patience: float) -> int:
    """Wait until the database is at the newest revision, for the application's own pods.

    :param patience: seconds to wait at most.
    :returns: the number of the revision that the database is at.
    :raises StillPendingError: when it is not there in time (exit code 8).
    """
    deadline = time.monotonic() + patience
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
                    f"After {patience:.0f} s the database is at version {at}; the newest migration file is "
                    f"{found.newest.identifier}."
                )
        time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))


def result(deployment: Deployment, error: GuvnorError | None) -> dict[str, Any]:
    """Return the record of a deployment for its result file."""
    outcome = deployment.outcome
    exit_code = error.exit_code if error else 0
    return {
        "tool": f"guvnor {__version__}",
        "exit_code": exit_code,
        "summary": summary(deployment, error),
        "version": outcome.version if outcome else None,
        "applied": [done.step.revision for done in outcome.applied] if outcome else [],
        "stages": [asdict(stage) for stage in deployment.stages],
        "error": {"message": error.message, "state": error.state, "next": error.next_step} if error else None,
    }


def summary(deployment: Deployment, error: GuvnorError | None) -> str:
    """Say in one line how a deployment ended."""
    if error is not None:
        return f"Deployment failed with exit code {error.exit_code}: {error.message.splitlines()[0]}"
    if deployment.preview is not None:
        steps = len(deployment.preview.plan.steps)
        return f"Dry run: {steps} revision{'' if steps == 1 else 's'} would be applied"
    outcome = deployment.outcome
    assert outcome is not None
    if not outcome.applied:
        return f"Nothing to deploy: the database is at version {outcome.version}"
    return f"Deployed {len(outcome.applied)} revision(s): the database is at version {outcome.version}"
