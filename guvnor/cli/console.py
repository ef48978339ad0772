"""What a person sees: the one renderer for ``guvnor`` and for plain ``alembic``."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from guvnor import postgres
from guvnor.bookkeeping.state import State, dirty_error
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate.observer import Observer

if TYPE_CHECKING:
    from guvnor.migrate.guard import Risk
    from guvnor.migrate.preflight import PreflightCheck
    from guvnor.migrate.repair import Choice
    from guvnor.migrate.request import Outcome
    from guvnor.online.progress import Progress

log = logging.getLogger(__name__)

_PLAIN = {"✅": "[ok]", "❌": "[failed]", "⚠️": "[warning]", "→": "->", "…": "...", "—": "-"}
_LOG_EVERY = 5.0  # seconds between two records of progress


def plain(text: str, encoding: str | None) -> str:
    """Replace signs that a terminal of this encoding cannot show."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        for sign, replacement in _PLAIN.items():
            text = text.replace(sign, replacement)
        return text.encode(encoding or "ascii", "replace").decode(encoding or "ascii")
    return text


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Write a line to standard output (or another stream), in signs that it can show."""
    stream = stream or sys.stdout
    try:
        print(plain(text, _encoding(stream)), file=stream, flush=True)
    except OSError as error:
        _give_up(stream, error)


def open_closed_streams() -> None:
    """Let the streams that the caller has closed (``>&-``) lead nowhere; Python has None in their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def _give_up(stream: TextIO, error: OSError) -> None:
    """Let a stream lead nowhere from now on, after a write to it has failed; the migration goes on.

    A reader that has seen enough (``| head -1``) is no news; a full disk is told on standard error.

    :param stream: one with a file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if error.errno != errno.EPIPE and stream is not sys.stderr:
        say(f"⚠️  WARNING: the output cannot be written and is lost: {error.strerror}.", sys.stderr)


def result_kept_clean() -> contextlib.AbstractContextManager[object]:
    """Send what revisions print to standard error: standard output is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


def _encoding(stream: TextIO) -> str:
    """Return what a stream can show. In the C locale Python writes UTF-8 all the same (PEP 540)."""
    if sys.flags.utf8_mode and not {"PYTHONUTF8", "PYTHONIOENCODING"} & set(os.environ):
        import locale

        return locale.getencoding()
    return stream.encoding


def show(renderable: Any) -> None:
    """Show what rich can draw; in a pipe or a file, which have no width, lines are not folded."""
    from rich.console import Console as RichConsole

    width = None if sys.stdout.isatty() else 200
    console = RichConsole(emoji=False, highlight=False, width=width, soft_wrap=width is not None)
    with console.capture() as shown:
        console.print(renderable)
    say(shown.get().removesuffix("\n"))


def show_table(table: Any) -> None:
    """Show a table of rich's; a pipe or a file has no width, so lines are not folded there."""
    from rich.console import Console as RichConsole

    console = RichConsole(markup=False, highlight=False, width=None if sys.stdout.isatty() else 1000)
    with console.capture() as shown:
        console.print(table)
    say("\n".join(line.rstrip() for line in shown.get().splitlines()))


def error(problem: GuvnorError) -> None:
    """Tell on standard error what happened, what state the database is in and what to type next."""
    say(f"❌ {problem.message}", sys.stderr)
    if problem.state:
        say(f"   State: {problem.state}", sys.stderr)
    if problem.next_step:
        first, *rest = problem.next_step.splitlines()
        say(f"   Next:  {first}", sys.stderr)
        for line in rest:
            say(f"          {line}", sys.stderr)


class Console(Observer):
    """Shows what happens while a command runs, and asks."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._started = False
        self._bar: Any = None
        self._task: Any = None
        self._last_record = 0.0

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Show an error of the body and leave with its exit code."""
        try:
            with postgres.explained():
                yield
        except GuvnorError as problem:
            self._end_bar()
            if (drift := getattr(problem, "report", None)) is not None:
                from guvnor.reports.drift import as_terminal

                show(as_terminal(drift))
            error(problem)
            raise SystemExit(problem.exit_code) from None
        except KeyboardInterrupt:  # outside of a migration, which has an explanation of its own
            self._end_bar()
            error(
                GuvnorError(
                    "Interrupted.", state="No revision was being run.", next_step="guvnor migrate status"
                )
            )
            raise SystemExit(ExitCode.INTERRUPTED) from None
        finally:
            self._end_bar()

    def checked(self, check: PreflightCheck) -> None:
        """Show a pre-flight check; the error of a failed one follows by itself."""
        if not self._started:
            self._started = True
            say("Running pre-flight checks")
        say(f"❌ {check.text}" if check.error else f"✅ {check.text}")
        for warning in check.warnings:
            say(f"⚠️  WARNING: {warning}")
        if check.name == "state" and not check.error:
            say("✅ Pre-flight checks passed")

    def configuration_failed(self, problem: GuvnorError) -> None:
        """Show that not even the settings could be read, as the first pre-flight check."""
        say("Running pre-flight checks")
        say(f"❌ {problem.message}")

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
        for line in (
            f"⚠️  You are about to {risk.action} in production. This may result in data loss.",
            f"   Database:  {database.database} on {database.host}, port {database.port}",
            f"   Role:      {database.role}",
            f"   Because:   {risk.why}",
            f"   Version:   {risk.current or 'none'} → {risk.target or 'none'}",
            *(f"   Step:      {revision}" for revision in risk.revisions),
            *(f"   Lost:      {loss}" for loss in risk.losses),
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
            if not answer.endswith(b"\n"):  # Ctrl-C or Ctrl-D: what follows begins a line of its own
                say(stream=sys.stderr)
        return answer.strip() == b"yes"

    def progressed(self, progress: Progress) -> None:
        """Show a bar on a terminal, else write a log record every few seconds."""
        if sys.stderr.isatty() and "NO_PROGRESS" not in os.environ:
            self._show_bar(progress)
            return
        now = time.monotonic()
        if now - self._last_record >= _LOG_EVERY:
            self._last_record = now
            log.info(
                progress.what, extra={"phase": progress.phase, "done": progress.done, "total": progress.total}
            )

    def _show_bar(self, progress: Progress) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=RichConsole(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(progress.what)
            self._bar.start()
        self._bar.update(
            self._task,
            description=f"{progress.what}: {progress.phase}",
            completed=progress.done or 0,
            total=progress.total,
        )

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def outcome(self, outcome: Outcome) -> None:
        """Show what a command that moves the version has done."""
        self._end_bar()
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
            say(
                f"⚠️  WARNING: the database is at {version}, ahead of the migration files (newest: "
                f"{outcome.newest:03d}). "
                "Nothing was done."
            )
        elif outcome.applied:
            say(f"✅ Migration completed: {version}")
        else:
            say(f"✅ No change: {version}")
        if outcome.drift and not outcome.drift.clean:
            from guvnor.schema.drift import DriftError

            raise DriftError(
                "The migration is applied, but the schema is not what its revision says. It was before.",
                outcome.drift,
                state=f"The database is at {version}, as the migration files left it.",
                next_step="Reconcile what is listed above, then: guvnor schema check",
            )
