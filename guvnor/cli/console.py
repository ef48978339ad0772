"""What a person sees and is asked, the same for ``guvnor`` and for plain ``alembic``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from guvnor import postgres
from guvnor.bookkeeping.consistency import dirty_error
from guvnor.bookkeeping.state import State
from guvnor.cli.streams import say
from guvnor.errors import GuvnorError
from guvnor.migrate.request import Observer
from guvnor.migrate.signals import RunInterrupted

if TYPE_CHECKING:
    from guvnor.migrate.guard import Risk
    from guvnor.migrate.preflight import PreflightCheck
    from guvnor.migrate.repair import Choice
    from guvnor.migrate.request import Outcome
    from guvnor.online.progress import Progress
    from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)

_LOG_EVERY = 5.0  # seconds between two records of progress


def show(renderable: Any) -> None:
    """Show a renderable of rich; lines are not wrapped in a pipe or a file, which has no width."""
    from rich.console import Console as RichConsole

    width = None if sys.stdout.isatty() else 200
    console = RichConsole(emoji=False, highlight=False, width=width, soft_wrap=width is not None)
    with console.capture() as shown:
        console.print(renderable)
    say(shown.get().removesuffix("\n"))


def show_table(table: Any) -> None:
    """Show a table of rich; lines are not wrapped in a pipe or a file, which has no width."""
    from rich.console import Console as RichConsole

    console = RichConsole(markup=False, highlight=False, width=None if sys.stdout.isatty() else 1000)
    with console.capture() as shown:
        console.print(table)
    say("\n".join(line.rstrip() for line in shown.get().splitlines()))


def error(problem: GuvnorError) -> None:
    """Say on standard error what happened, what state the database is in and what to type next."""
    say(f"❌ {problem.message}", sys.stderr)
    if problem.state:
        say(f"   State: {problem.state}", sys.stderr)
    if problem.next_step:
        first, *rest = problem.next_step.splitlines()
        say(f"   Next:  {first}", sys.stderr)
        for line in rest:
            say(f"          {line}", sys.stderr)


class ProgressBar:
    """Shows the progress of a long step: a bar on a terminal, else a log record every few seconds."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._task: Any = None
        self._last_record = 0.0

    def update(self, progress: Progress) -> None:
        """Show the progress of the step."""
        if not sys.stderr.isatty() or "NO_PROGRESS" in os.environ:
            now = time.monotonic()
            if now - self._last_record >= _LOG_EVERY:
                self._last_record = now
                known = {"phase": progress.phase, "done": progress.done, "total": progress.total}
                log.info(progress.what, extra=known)
            return
        if self._bar is None:
            self._begin(progress.what)
        self._bar.update(
            self._task,
            description=f"{progress.what}: {progress.phase}",
            completed=progress.done or 0,
            total=progress.total,
        )

    def _begin(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(what)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Console(Observer):
    """Shows what happens while a command runs, and asks."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._started = False
        self._bar = ProgressBar()

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Show an error of the body and exit with its code."""
        problem: GuvnorError
        try:
            with contextlib.closing(self._bar), postgres.explained():
                yield
            return
        except GuvnorError as failure:
            problem = failure
        except KeyboardInterrupt:  # outside of a migration, which explains its own interruption
            state, next_step = "No revision was being run.", "guvnor migrate status"
            problem = RunInterrupted("Interrupted.", signal.SIGINT, state=state, next_step=next_step)
        if (drift := getattr(problem, "report", None)) is not None:
            from guvnor.reports.drift import as_terminal

            show(as_terminal(drift))
        error(problem)
        raise SystemExit(problem.exit_code)

    def checked(self, check: PreflightCheck) -> None:
        """Show a pre-flight check; the error of a failed check is shown separately."""
        if not self._started:
            self._started = True
            say("Running pre-flight checks")
        say(f"❌ {check.text}" if check.error else f"✅ {check.text}")
        for warning in check.warnings:
            say(f"⚠️  WARNING: {warning}")
        if check.name == "state" and not check.error:
            say("✅ Pre-flight checks passed")

    def choices(self, found: State, choices: Sequence[Choice], known: Sequence[str]) -> None:
        """Show what is known of a dirty state and the ways out of it."""
        say(f"⚠️  WARNING: {dirty_error(found).message}")
        for line in known:
            say(line)
        for choice in choices:
            say(f"   guvnor migrate repair --{choice.name:<8} {choice.meaning}")

    def ask(self, risk: Risk) -> bool | None:
        """Show what is at stake and read ``yes`` from the terminal; None without a terminal."""
        database = risk.database
        loss = " This may result in data loss." if risk.may_lose_data else ""
        for line in (
            f"⚠️  You are about to {risk.action} in production.{loss}",
            f"   Database:  {database.database} on {database.host}, port {database.port}",
            f"   Role:      {database.role}",
            f"   Because:   {risk.why}",
            f"   Version:   {risk.current or 'none'} → {risk.target or 'none'}",
            *(f"   Step:      {revision}" for revision in risk.revisions),
            *(f"   Lost:      {lost}" for lost in risk.losses),
            *(f"   Lost:      {lost}" for lost in risk.accepted),
            *(f"   Waits:     {wait}" for wait in risk.waits),
            *((f"   Backup:    {risk.backup}",) if risk.backup else ()),
            f"   Plan hash: {risk.hash}",
        ):
            say(line, sys.stderr)
        if not sys.stdin.isatty():
            return None
        answer = b""
        try:
            print("Type 'yes' to continue: ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.buffer.readline()  # whatever is typed, in any encoding
        finally:
            if not answer.endswith(b"\n"):  # after Ctrl-C or Ctrl-D, end the line of the question
                say(stream=sys.stderr)
        return answer.strip() == b"yes"

    def instead(self, step: Step) -> tuple[str, ...]:
        """Let lint say what to write instead of a step."""
        from guvnor.lint import engine

        return engine.instead(step.file, step.direction) if step.file else ()

    def progressed(self, progress: Progress) -> None:
        """Show the progress of a long step."""
        self._bar.update(progress)

    def outcome(self, outcome: Outcome) -> None:
        """Show what a command that moves the version has done.

        :raises DriftError: when the schema differs from what was expected (exit code 6).
        """
        self._bar.close()
        if outcome.backup is not None:
            say(f"✅ Backup taken: {outcome.backup.path or outcome.backup.what}")
        for applied in outcome.applied:
            step = applied.step
            what = {"up": "Applied", "down": "Rolled back", "stamp": "Stamped"}[step.direction]
            waited = f", waited {applied.lock_wait:.1f} s for locks" if applied.lock_wait >= 0.05 else ""
            tries = f", {applied.tries} tries" if applied.tries > 1 else ""
            say(f"✅ {what} {step.revision} {step.description} ({applied.duration:.2f} s{waited}{tries})")
        version = f"version {outcome.version}" if outcome.version else "no migrations applied"
        if outcome.ahead:
            newest = f"(newest: {outcome.newest:03d})"
            say(
                f"⚠️  WARNING: the database is at {version}, ahead of the migration files {newest}. "
                "Nothing was done."
            )
        elif outcome.applied:
            say(f"✅ Migration completed: {version}")
        else:
            say(f"✅ No change: {version}")
        if outcome.drift and not outcome.drift.clean:
            from guvnor.schema.drift import DriftError

            raise DriftError(
                "The migration is applied, but the schema now differs from its revision.",
                outcome.drift,
                state=f"The database is at {version}, as the migration files left it.",
                next_step="Reconcile what is listed above, then: guvnor schema check",
            )
