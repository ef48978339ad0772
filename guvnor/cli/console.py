"""What a person sees and is asked, the same for ``guvnor`` and for plain ``alembic``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from guvnor import postgres, records, terminal, typed
from guvnor.bookkeeping.consistency import dirty_error
from guvnor.bookkeeping.state import State
from guvnor.cli.record import Record, as_fields
from guvnor.cli.streams import on_one_terminal, result_kept_clean, say, tell, tell_lines
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate.request import Observer
from guvnor.migrate.signals import RunInterrupted
from guvnor.postgres.excerpt import redacted
from guvnor.revisions import loading

if TYPE_CHECKING:
    from guvnor.migrate.guard import Risk
    from guvnor.migrate.preflight import PreflightCheck
    from guvnor.migrate.repair import Choice
    from guvnor.migrate.request import Outcome
    from guvnor.online.progress import Progress
    from guvnor.revisions.plan import Step
    from guvnor.schema.drift import DriftReport

log = logging.getLogger(__name__)

_LOG_EVERY = 5.0  # seconds between two records of progress


def error(problem: GuvnorError, **more: Any) -> None:
    """Say on standard error what happened, what state the database is in and what to type next.

    :param more: further fields, where that is a record.
    """
    if records.on():
        known = {"exit_code": int(problem.exit_code), "state": problem.state, "next": problem.next_step}
        records.say("ERROR", problem.message, sys.stderr, **known, **more)
        return
    first, *rest = problem.message.splitlines() or [""]
    tell(f"❌ {first}", sys.stderr, style="red")
    for line in rest:
        tell(line, sys.stderr)
    # What is known of a half-done revision has its own indentation.
    for label, text, further in (("State: ", problem.state, ""), ("Next:  ", problem.next_step, " " * 10)):
        for place, line in enumerate((text or "").splitlines()):
            tell(f"{further if place else f'   {label}'}{line}", sys.stderr)


def unexpected(failure: BaseException) -> tuple[GuvnorError, dict[str, Any]]:
    """Return the error to show for one that nobody has foreseen, and the traceback as a further field."""
    said = records.without_secrets(redacted(str(failure)))
    name = type(failure).__name__
    problem = GuvnorError(
        f"The command broke off, which is a fault of guvnor or of a revision: {name}: {said}",
        state="The database is in the state that `guvnor migrate status` shows.",
        next_step="guvnor migrate status",
    )
    trace = "".join(traceback.format_exception(failure))
    return problem, {"exception": records.without_secrets(redacted(trace))}


class ProgressBar:
    """Shows the progress of a long step: a bar on a terminal, else a log record every few seconds."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._task: Any = None
        self._last_record = 0.0

    def update(self, progress: Progress) -> None:
        """Show the progress of the step, or that it is over."""
        if progress.ended:
            self.close()
            return
        if records.on() or not sys.stderr.isatty() or "NO_PROGRESS" in os.environ:
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
        from rich.table import Column

        # What does not fit of the words is left out, so that the bar stays.
        words = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            TextColumn("{task.description}", table_column=words),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        # A record that is logged meanwhile stays one line, as a program reads it.
        console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(*columns, console=console, transient=True, expand=True)
        self._task = self._bar.add_task(what)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Console(Observer):
    """Shows what happens while a command runs, and asks.

    :ivar each_check: whether each pre-flight check has a line, as with ``-v``; else all that pass have one.
    :ivar record: what has happened so far, for programs.
    :ivar document: makes the JSON document that is shown instead; None where a person reads.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self.each_check = False
        self.record = Record()
        self.document: Callable[[int, GuvnorError | None], dict[str, Any]] | None = None
        self._started = False
        self._passed: list[str] = []
        self._bar = ProgressBar()
        self._redirected = contextlib.ExitStack()

    @contextlib.contextmanager
    def explaining(self, unless: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Show an error of the body and exit with its code.

        :param unless: errors that the caller shows.
        """
        problem: GuvnorError
        more: dict[str, Any] = {}
        try:
            with contextlib.closing(self._bar), self._redirected, postgres.explained():
                yield
            self._answer(ExitCode.DONE)
            return
        except SystemExit as leaving:
            self._answer(leaving.code if isinstance(leaving.code, int) else ExitCode.DONE)
            raise
        except GuvnorError as failure:
            problem = failure
        except Exception as failure:
            if (unreadable := loading.explained(failure)) is not None:
                problem = unreadable
            elif records.on() and not isinstance(failure, unless):
                problem, more = unexpected(failure)
            else:
                raise
        except KeyboardInterrupt:  # outside of a migration, which explains its own interruption
            state, next_step = "No revision was being run.", "guvnor migrate status"
            problem = RunInterrupted("Interrupted.", signal.SIGINT, state=state, next_step=next_step)
        if problem.next_step is not None:
            problem.next_step = typed.carried(problem.next_step)
        self._answer(problem.exit_code, problem)
        if (drift := getattr(problem, "report", None)) is not None:
            more["differences"] = [vars(finding) for finding in drift.findings]
            if not records.on():
                self.differences(drift)
        error(problem, **more)
        raise SystemExit(problem.exit_code)

    def answer_in_json(
        self, document: Callable[[int, GuvnorError | None], dict[str, Any]] | None = None
    ) -> None:
        """Show one JSON document at the end, and nothing else on standard output."""
        self.document = document or self.record.document
        self._redirected.enter_context(result_kept_clean())

    def _answer(self, code: int, problem: GuvnorError | None = None) -> None:
        if self.document is not None:
            # Among records, a document is one line, too.
            indent = None if records.on() else 2
            say(json.dumps(self.document(code, problem), indent=indent, ensure_ascii=False, default=str))

    def say(self, text: str, *, style: str = "", **fields: Any) -> None:
        """Show a line of the result to a person; among records, one with these fields."""
        if self.document is not None:
            return
        if records.on():
            records.say(*records.levelled(text), **fields)
        else:
            tell(text, style=style)

    def differences(self, report: DriftReport) -> None:
        """Show how a schema differs from what was expected."""
        from guvnor.reports import drift

        if records.on():
            self.say(
                f"⚠️  {drift.summary(report)}", differences=[vars(finding) for finding in report.findings]
            )
        elif self.document is None:
            tell_lines(drift.as_terminal(report))

    def checked(self, check: PreflightCheck) -> None:
        """Show a pre-flight check; the error of a failed check is shown separately."""
        self.record.checks.append(check)
        each = self.each_check or logging.getLogger().isEnabledFor(logging.DEBUG)
        if each and not self._started:
            self._started = True
            self.say("Running pre-flight checks")
        if check.error:
            if not on_one_terminal():  # there, the error that follows says the same
                self.say(f"❌ {check.text}", check=check.name)
        elif each:
            self.say(f"✅ {check.text}", check=check.name)
        for warning in check.warnings:
            self.say(f"⚠️  WARNING: {warning}", style="yellow", check=check.name)
        if check.brief:
            self._passed.append(check.brief)
        if check.name == "state" and not check.error:
            self.say("✅ Pre-flight checks passed" + ("" if each else f": {', '.join(self._passed)}"))

    def choices(self, found: State, choices: Sequence[Choice], known: Sequence[str]) -> None:
        """Show what is known of a dirty state and the ways out of it."""
        self.record.choose(choices, known)
        if records.on():
            self.say(f"⚠️  {dirty_error(found).message}", **self.record.found)
            return
        self.say(f"⚠️  WARNING: {dirty_error(found).message}", style="yellow")
        for line in known:
            self.say(line)
        for choice in choices:
            command = f"   {typed.environment()}guvnor migrate repair --{choice.name:<8} "
            if typed.environment():  # too long to stand beside what it means
                self.say(command.rstrip())
                command = " " * 6
            self.say(terminal.hung(command, choice.meaning, terminal.columns(sys.stdout)))

    def undecided(self, found: State) -> None:
        """Say, among records, that a dirty state stays as it is until a way out of it is taken."""
        if records.on():
            problem = dirty_error(found)
            problem.next_step = "\n".join(way["command"] for way in self.record.found["choices"])
            error(problem)

    def ask(self, risk: Risk) -> bool | None:
        """Show what is at stake and read ``yes`` from the terminal; None without a terminal."""
        if records.on():
            _ask_in_json(risk)
            return sys.stdin.buffer.readline().strip() == b"yes" if sys.stdin.isatty() else None
        database = risk.database
        loss = " This may result in data loss." if risk.may_lose_data else ""
        for line in (
            f"⚠️  You are about to {risk.action} in production.{loss}",
            f"   Database:  {database.database} on {database.host}, port {database.port}",
            f"   Role:      {database.role}",
            f"   Because:   {risk.why}",
            *(
                (f"   Version:   {risk.current or 'none'} → {risk.target or 'none'}",)
                if risk.current != risk.target
                else ()
            ),
            *(f"   Step:      {revision}" for revision in risk.revisions),
            *(f"   Lost:      {lost}" for lost in risk.losses),
            *(f"   Lost:      {lost}" for lost in risk.accepted),
            *(f"   Waits:     {wait}" for wait in risk.waits),
            *((f"   Backup:    {risk.backup}",) if risk.backup else ()),
            f"   Plan hash: {risk.hash}",
        ):
            tell(line, sys.stderr)
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

    def settled(self) -> None:
        """Remove the progress bar: the result follows."""
        self._bar.close()

    def outcome(self, outcome: Outcome) -> None:
        """Show what a command that moves the version has done.

        :raises DriftError: when the schema differs from what was expected (exit code 6).
        """
        self._bar.close()
        self.record.outcome = outcome
        if outcome.backup is not None:
            self.say(f"✅ Backup taken: {outcome.backup.path or outcome.backup.what}")
        for applied in outcome.applied:
            step = applied.step
            what = {"up": "Applied", "down": "Rolled back", "stamp": "Stamped"}[step.direction]
            waited = f", waited {applied.lock_wait:.1f} s for locks" if applied.lock_wait >= 0.05 else ""
            tries = f", {applied.tries} tries" if applied.tries > 1 else ""
            self.say(
                f"✅ {what} {step.revision} {step.description} ({applied.duration:.2f} s{waited}{tries})",
                **as_fields(applied),
            )
        if outcome.marked:
            self.say(
                "⚠️  The database is marked as production now, since GUVNOR_ENV says so: it is guarded from "
                "here on, whatever GUVNOR_ENV says. `guvnor db mark --not-production` takes the mark away."
            )
        version = f"version {outcome.version}" if outcome.version else "no migrations applied"
        if outcome.ahead:
            newest = f"(newest: {outcome.newest:03d})"
            self.say(
                f"⚠️  WARNING: the database is at {version}, ahead of the migration files {newest}. "
                "Nothing was done.",
                style="yellow",
                version=outcome.version,
                newest=outcome.newest,
            )
        elif outcome.applied:
            self.say(f"✅ Migration completed: {version}", version=outcome.version)
        else:
            self.say(f"✅ No change: {version}", version=outcome.version)
        if outcome.drift and not outcome.drift.clean:
            from guvnor.schema.drift import DriftError

            raise DriftError(
                "The migration is applied, but the schema now differs from its revision.",
                outcome.drift,
                state=f"The database is at {version}, as the migration files left it.",
                next_step="Reconcile what is listed above, then: guvnor schema check",
            )


def _ask_in_json(risk: Risk) -> None:
    """Say in a record what is at stake; where somebody can answer, say what to type."""
    database = risk.database
    records.say(
        "WARN",
        f"You are about to {risk.action} in production."
        + (" This may result in data loss." if risk.may_lose_data else ""),
        sys.stderr,
        host=database.host,
        port=database.port,
        database=database.database,
        role=database.role,
        because=risk.why,
        current=risk.current,
        target=risk.target,
        steps=risk.revisions,
        lost=[*risk.losses, *risk.accepted],
        waits=risk.waits,
        backup=risk.backup,
        plan_hash=risk.hash,
    )
    if sys.stdin.isatty():
        records.say("WARN", "Type 'yes' to continue:", sys.stderr)
