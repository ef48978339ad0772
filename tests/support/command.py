"""The command line, run as a user or a job runs it: as a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.server import Target

CHECKOUT = Path(__file__).resolve().parents[2]
"""The project itself, with its real revisions and models, however many they are."""

FROZEN = CHECKOUT / "tests" / "frozen"
"""The project that everything else uses: revisions 001 and 002 with their models, the same for ever."""

OF_THE_CALLER = re.compile(
    r"GUVNOR_|ALEMBIC_|PG|PYTHONIOENCODING|NO_COLOR$|FORCE_COLOR$|COLUMNS$|LINES$|TERM$|CI$"
)


@dataclass(frozen=True)
class Result:
    """How a command ended.

    :ivar code: its exit code; negative is the signal that ended it.
    :ivar out: standard output; on a terminal, all that was shown.
    :ivar err: standard error; on a terminal, nothing.
    """

    code: int
    out: str
    err: str

    @property
    def plain(self) -> str:
        """Output without colors and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.out)


class Command:
    """``guvnor`` or ``alembic``; call it with its arguments."""

    def __init__(self, module: str, directory: Path) -> None:
        """Prepare a command.

        :param module: what ``python -m`` runs.
        :param directory: an empty directory, where it is run unless told otherwise.
        """
        self.module = module
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def __call__(
        self,
        *arguments: str | Path,
        database: Target | str | None = None,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 (as in subprocess)
        cwd: Path | None = None,
        real: bool = False,
        timeout: float = 60,
    ) -> Result:
        """Run it to its end.

        :param database: the database, or a DSN, to name in GUVNOR_STORAGE_DSN.
        :param env: more environment variables; None takes one away.
        :param input: its standard input, empty when left out.
        :param cwd: where it runs; a project's directory makes it use that project's revisions. Elsewhere it
            uses those of :data:`FROZEN`.
        :param real: whether it uses the real revisions and models instead, those of :data:`CHECKOUT`. It is
            not run there: a developer's ``.env`` would name another database.
        :param timeout: seconds; a command that takes longer fails the test.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.start(*arguments, database=database, env=env, cwd=cwd, real=real, stdin=stdin)
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            out, err = process.communicate()
            raise AssertionError(f"{arguments} took longer than {timeout} s\n{out}\n{err}") from None
        return Result(process.returncode, out, err)

    def start(
        self,
        *arguments: str | Path,
        database: Target | str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        real: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start it, for tests that interrupt or kill it. It leads a process group of its own."""
        with sigint_in_children(signal.default_int_handler):
            process = subprocess.Popen(
                self._words(arguments, cwd, real),
                cwd=cwd or self.directory,
                env=self._environment(database, env, cwd or self.directory, real),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def terminal(
        self,
        *arguments: str | Path,
        answers: Sequence[tuple[str, str | Callable[[], str]]] = (),
        database: Target | str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
        columns: int = 120,
        sigint: Any = signal.default_int_handler,
    ) -> Result:
        r"""Run it to its end on a terminal.

        :param answers: what to wait for in its output, and what to type then, such as ``("yes", "no\n")``;
            ``"\x03"`` is Ctrl-C. A function is called while the question stands, and returns the answer.
        :param sigint: ``signal.SIG_IGN`` starts it with SIGINT ignored, as ``nohup`` and ``&`` do.
        """
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        with sigint_in_children(sigint):
            process = subprocess.Popen(
                self._words(arguments, cwd),
                cwd=cwd or self.directory,
                env=self._environment(
                    database, {"TERM": "xterm-256color", **(env or {})}, cwd or self.directory
                ),
                stdin=its,
                stdout=its,
                stderr=its,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
            )
        os.close(its)
        try:
            shown = converse(ours, list(answers), timeout)
            code = process.wait(10)
        finally:
            os.close(ours)
            kill(process)
        return Result(code, shown.replace("\r\n", "\n"), "")

    def close(self) -> None:
        """Kill what a test left running."""
        while self._started:
            process = self._started.pop()
            kill(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()

    def _words(self, arguments: Sequence[str | Path], cwd: Path | None, real: bool = False) -> list[str]:
        # guvnor finds its revisions by itself.
        elsewhere = self.module == "alembic" and not (cwd and (cwd / "alembic.ini").exists())
        configuration = ["-c", str((CHECKOUT if real else FROZEN) / "alembic.ini")] if elsewhere else []
        return [sys.executable, "-m", self.module, *configuration, *map(str, arguments)]

    def _environment(
        self,
        database: Target | str | None,
        env: Mapping[str, str | None] | None,
        cwd: Path | None = None,
        real: bool = False,
    ) -> dict[str, str]:
        """The caller's environment without what would steer the command, such as ~/.pgpass."""
        kept = {name: value for name, value in os.environ.items() if not OF_THE_CALLER.match(name)}
        if os.environ.get("GUVNOR_PG_BIN"):
            kept["GUVNOR_PG_BIN"] = os.environ["GUVNOR_PG_BIN"]
        kept |= {"HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        if real or (cwd is not None and not in_a_project(cwd)):
            kept["ALEMBIC_CONFIG"] = str((CHECKOUT if real else FROZEN) / "alembic.ini")
        if real:
            kept["PYTHONPATH"] = kept["PYTHONPATH"].removeprefix(f"{FROZEN}{os.pathsep}")
        if database is not None:
            kept["GUVNOR_STORAGE_DSN"] = database if isinstance(database, str) else database.dsn
        for name, value in (env or {}).items():
            kept.pop(name, None)
            if value is not None:
                kept[name] = value
        return kept


def in_a_project(directory: Path) -> bool:
    """Whether a command that is run in a directory finds a project there, or above."""
    return any((folder / "alembic.ini").exists() for folder in (directory, *directory.parents))


@contextlib.contextmanager
def sigint_in_children(handler: Any) -> Iterator[None]:
    """Set what a process that is started meanwhile does on SIGINT, whatever the caller of the suite ignores.

    :param handler: ``signal.SIG_IGN`` is inherited; a function is not, so that SIGINT has its default there.
    """
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def kill(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process and its group at once; once it is reaped, its number may be another one's."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def converse(terminal: int, answers: list[tuple[str, str | Callable[[], str]]], timeout: float) -> str:
    """Read a terminal to its end, typing each answer once its question is shown."""
    shown, seen, deadline = b"", 0, time.monotonic() + timeout
    while True:
        if answers and (found := shown.find(answers[0][0].encode(), seen)) >= 0:
            question, answer = answers.pop(0)
            seen = found + len(question.encode())
            os.write(terminal, (answer() if callable(answer) else answer).encode(errors="surrogateescape"))
            continue
        readable, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        text = shown.decode(errors="replace")
        if not readable:
            raise AssertionError(f"nothing more within {timeout} s, still waiting for {answers}:\n{text}")
        try:
            read = os.read(terminal, 65536)
        except OSError:  # EIO: the last one who had it open has ended
            read = b""
        if not read:
            assert not answers, f"ended without asking {answers}:\n{text}"
            return text
        shown += read
