"""The deploy job: an ``up`` with a record of its stages, which the result file holds."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import psycopg2

from guvnor import __version__, postgres
from guvnor.backup import take
from guvnor.backup.take import TakenBackup
from guvnor.commands import migrate as commands, preview
from guvnor.commands.migrate import Status
from guvnor.commands.preview import Preview
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError, UsageError, reason
from guvnor.migrate import signals
from guvnor.migrate.engine import migrate
from guvnor.migrate.guard import Risk
from guvnor.migrate.preflight import PreflightCheck
from guvnor.migrate.request import Observer, Outcome, Request
from guvnor.migrate.runner import Applied
from guvnor.online.progress import Progress
from guvnor.postgres import Identity, errors as postgres_errors
from guvnor.postgres.errors import ConnectionFailedError
from guvnor.revisions.plan import Plan, Step

log = logging.getLogger(__name__)

_POLL = 1.0  # seconds
_DONE, _SKIPPED, _FAILED = "done", "skipped", "failed"
# The stage that begins when one ends; that of the plan includes its confirmation and the wait for the lock.
_NEXT = {"pre-flight: state": "plan", "plan": "backup", "backup": "up", "up": "verification"}
# The stages after which the metrics are written: each after which the database may be another.
_MEASURED = frozenset({"pre-flight: state", "plan", "up", "verification", "wait"})
# The summary until the job ends; it stays in the result file when the job is killed.
_UNDER_WAY = "The deployment is under way, or was killed"
_LOG_EVERY = 5.0  # seconds between two records of a wait
_TOOL = f"guvnor {__version__}"


class StillPendingError(GuvnorError):
    """The database is not at the newest revision yet."""

    exit_code = ExitCode.PENDING
    state = "Nothing was changed by this command."
    next_step = "guvnor migrate status"


class Deployment(Observer):
    """A deployment and the record of its stages.

    :ivar error: the error that ended it; None when there was none.
    """

    def __init__(
        self,
        shown: Observer,
        write: Callable[[dict[str, Any]], None] | None = None,
        measure: Callable[[Settings], None] | None = None,
    ) -> None:
        """Prepare a deployment.

        :param shown: another observer, which is also told what happens.
        :param write: writes the record to the result file; it raises a UsageError when it cannot; None for
            no file.
        :param measure: writes the metrics of the database; None for nobody.
        """
        self.error: GuvnorError | None = None
        self._write, self._measure = write or (lambda _: None), measure
        self._settings: Settings | None = None
        self._started = _now()
        self._ended = False
        self._place: dict[str, Any] = dict.fromkeys(("host", "port", "database", "role"))
        self._version: int | None = None
        self._stages: list[dict[str, Any]] = []  # in the format of the result file
        self._outcome: Outcome | None = None
        self._preview: Preview | None = None
        self._shown = shown
        self._began = time.monotonic()  # the current stage
        self._under_way = "pre-flight"

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record an error of the body and suppress it; the first error counts."""
        try:
            with postgres.explained(), signals.interruptible("Nothing was changed by this command."):
                yield
        except GuvnorError as error:
            self.fail(error)

    def fail(self, error: GuvnorError) -> None:
        """Record an error in the stage that is under way; the first error counts."""
        self.error = self.error or error
        if not any(stage["outcome"] == _FAILED for stage in self._stages):
            self._record(self._under_way, _FAILED, error=error.message)

    def begin(self) -> None:
        """Write the result file for the first time.

        :raises UsageError: when it cannot be written.
        """
        self._write(self.result())

    def end(self) -> None:
        """Write the result file for the last time.

        :raises UsageError: when it cannot be written.
        """
        self._ended = True
        self._write_metrics()
        self._write(self.result())

    def configured(self, settings: Settings) -> None:
        """Take note of the database that the configuration names."""
        self._settings = settings
        if settings.storage_dsn and settings.storage_type != "embedded":
            found = postgres_errors.place(postgres.parse(settings.storage_dsn))
            port = found["port"]
            self._place |= {**found, "port": int(port) if port.isdecimal() else port}

    def connected(self, identity: Identity) -> None:
        """Take note of the database that is worked on."""
        self._place |= identity.place

    def wait(self, settings: Settings, patience: float) -> int:
        """Wait until the database is at the newest revision, and change nothing.

        :param patience: seconds to wait at most.
        :returns: the number of the revision that the database is at.
        :raises GuvnorError: as :func:`wait_until_current` does.
        """
        self._under_way = "wait"
        version = wait_until_current(settings, patience, self._looked)
        self._record("wait", _DONE, version=version)
        return version

    def _looked(self, found: Status) -> None:
        self._version = found.state.number
        self.connected(found.identity)

    def run(self, request: Request) -> Outcome:
        """Run an ``up``; it can be run again after any failure, and skips what is done.

        :param request: a request with this deployment as its observer.
        :raises GuvnorError: when a stage failed or was interrupted.
        """
        outcome = self._outcome = migrate(request)
        self._version = outcome.version
        if not outcome.applied:
            for name in _NEXT.values():
                self._skip(name, "nothing to do")
        elif outcome.drift is None:
            verify = request.settings.verify
            self._skip("verification", "the log says why it could not be done" if verify else "--no-verify")
        elif outcome.drift.clean:
            self._record("verification", _DONE)
        else:
            titles = [finding.title for finding in outcome.drift.findings]
            self._record("verification", _FAILED, differences=titles)
        return outcome

    def run_dry(self, request: Request, to: str | None) -> Preview:
        """Run the checks and make the plan, but change nothing.

        :param request: a request with this deployment as its observer.
        :param to: the last revision that would be applied; None for the newest.
        :raises GuvnorError: when a stage failed or was interrupted.
        """
        settings, backup = request.settings, request.backup
        commands.run_preflight(settings, self.checked, request.patience, running_files=True)
        found = self._preview = preview.preview(settings, "up", to)
        self._record("plan", _DONE, **_described(found.plan))
        would_be = {}
        if backup is not None:
            would_be["would_be"] = take.check_backup(Database.of(settings), backup, whole=True)
        self._skip("backup", "--dry-run", **would_be)
        self._skip("up", "--dry-run")
        self._skip("verification", "--dry-run")
        return found

    def ask(self, risk: Risk) -> bool | None:
        """Ask for a confirmation."""
        return self._shown.ask(risk)

    def instead(self, step: Step) -> tuple[str, ...]:
        """Ask what to write instead of a step."""
        return self._shown.instead(step)

    def progressed(self, progress: Progress) -> None:
        """Pass on the progress of a long step."""
        self._shown.progressed(progress)

    def checked(self, check: PreflightCheck) -> None:
        """Record a pre-flight check, and pass it on."""
        outcome = _FAILED if check.error else _DONE
        self._record(f"pre-flight: {check.name}", outcome, text=check.text, warnings=list(check.warnings))
        self._shown.checked(check)

    def planned(self, plan: Plan) -> None:
        """Record and log the plan."""
        log.info("plan", extra=_described(plan))
        for step in plan.steps:
            log.debug("plan", extra={"revision": step.revision, "statements": step.statements})
        self._record("plan", _DONE, **_described(plan))

    def backed_up(self, taken: TakenBackup | None) -> None:
        """Record the backup, or that there is none."""
        if taken is not None:
            self._record("backup", _DONE, **asdict(taken))
        else:
            self._skip("backup", "not asked for: --backup DIR")

    def executed(self, applied: Sequence[Applied]) -> None:
        """Record the steps that were run."""
        steps = [
            {
                "revision": done.step.revision,
                "direction": done.step.direction,
                "seconds": round(done.duration, 3),
                "lock_wait_seconds": round(done.lock_wait, 3),
                "tries": done.tries,
                "stalled_seconds": round(done.stalled, 3),
                "stalled_sessions": done.stalled_sessions,
                "stalled_statement": done.stalled_statement,
            }
            for done in applied
        ]
        self._record("up", _DONE, applied=steps)

    def _record(self, name: str, outcome: str, **detail: Any) -> None:
        """Record a stage that ends now, and begin the next one."""
        now = time.monotonic()
        seconds = round(now - self._began, 3)
        self._stages.append({"name": name, "outcome": outcome, "seconds": seconds, "detail": detail})
        self._began = now
        self._under_way = _NEXT.get(name, self._under_way)
        if not self._ended:
            with contextlib.suppress(UsageError):  # the last attempt to write it tells
                self._write(self.result())
        if name in _MEASURED or outcome == _FAILED:
            self._write_metrics()

    def _write_metrics(self) -> None:
        """Write the metrics, where there is a database; a deployment does not fail because it cannot."""
        if self._measure is None or self._settings is None or self._place["role"] is None:
            return
        try:
            self._measure(self._settings)
        except (GuvnorError, psycopg2.Error) as error:
            log.warning(f"the metrics were not written: {reason(error).splitlines()[0]}")

    def _skip(self, name: str, why: str, **detail: Any) -> None:
        log.info(f"stage skipped: {name}", extra={"why": why, **detail})
        self._record(name, _SKIPPED, why=why, **detail)

    def summary(self, *, reason: bool = True) -> str:
        """Say in one line how the deployment ended.

        :param reason: whether to say why it failed.
        """
        error, outcome = self.error, self._outcome
        if error is not None:
            how = "was interrupted" if isinstance(error, signals.RunInterrupted) else "failed"
            stage = next(stage["name"] for stage in self._stages if stage["outcome"] == _FAILED)
            why = f": {error.message.splitlines()[0]}" if reason else ""
            return f"Deployment {how} in the stage {stage} with exit code {error.exit_code}{why}"
        if self._preview is not None:
            steps = len(self._preview.plan.steps)
            return f"Dry run: {steps} revision{'' if steps == 1 else 's'} would be applied"
        if outcome is None:
            return f"The database is at version {self._version}"
        at = f"the database is at version {outcome.version}"
        if outcome.applied:
            return f"Deployed {len(outcome.applied)} revision(s): {at}"
        ahead = f", ahead of the migration files (newest: {outcome.newest:03d})" if outcome.ahead else ""
        return f"Nothing to deploy: {at}{ahead}"

    def result(self) -> dict[str, Any]:
        """Return the record for the result file."""
        error, outcome = self.error, self._outcome
        failed = [stage["name"] for stage in self._stages if stage["outcome"] == _FAILED]
        return {
            "tool": _TOOL,
            "time": _now(),
            "started": self._started,
            **self._place,
            "stage": failed[0] if failed else self._under_way,
            "exit_code": (error.exit_code if error else ExitCode.DONE) if self._ended else None,
            "summary": self.summary() if self._ended else _UNDER_WAY,
            "version": self._version,
            "applied": [done.step.revision for done in outcome.applied] if outcome else [],
            "stages": self._stages,
            "error": {"message": error.message, "state": error.state, "next": error.next_step}
            if error
            else None,
        }


def _described(plan: Plan) -> dict[str, Any]:
    return {"hash": plan.hash, "steps": [f"{step.direction} {step.revision}" for step in plan.steps]}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def wait_until_current(
    settings: Settings, patience: float, looked: Callable[[Status], None] = lambda _: None
) -> int:
    """Wait until the database is at the newest revision; the application's own pods use it.

    :param patience: seconds to wait at most.
    :param looked: is told what each look finds.
    :returns: the number of the revision that the database is at.
    :raises StillPendingError: when it is not there in time (exit code 8).
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    began = time.monotonic()
    deadline, last, known = began + patience, -math.inf, False

    def tell(msg: str, **fields: Any) -> None:
        """Log why it goes on waiting, every few seconds."""
        nonlocal last
        if (now := time.monotonic()) - last >= _LOG_EVERY:
            last = now
            left = {"waited_s": round(now - began, 1), "patience_s": patience}
            log.info(msg, extra={"stage": "wait", **fields, **left})

    with signals.interruptible(StillPendingError.state):
        while True:
            remaining = max(1.0, deadline - time.monotonic())
            try:
                found = commands.status(replace(settings, max_wait=min(settings.max_wait, remaining)))
            except ConnectionFailedError as error:
                tell("waiting for the server", why=error.message)
                if time.monotonic() >= deadline:
                    raise
            else:
                looked(found)
                if not known:
                    known = True
                    version_text = found.identity.version_text
                    log.info(_TOOL, extra={**found.identity.place, "server_version": version_text})
                if not found.pending and found.problem is None and not found.state.dirty:
                    return found.state.number
                tell(
                    "waiting for the newest revision",
                    version=found.state.number,
                    newest=found.newest.number,
                    dirty=found.state.dirty,
                    running=found.running.sentence if found.running else None,
                )
                if time.monotonic() >= deadline:
                    at = found.state.number
                    raise StillPendingError(
                        f"After {patience:.0f} s the database is at version {at}; the newest migration file "
                        f"is {found.newest.identifier}."
                    )
            time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))
