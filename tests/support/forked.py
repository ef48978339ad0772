"""The command line without the half second that Python needs to import it: forked from a process that has.

It is a process of its own all the same, with the same code from ``main`` on, and can be killed like another.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import guvnor
from tests.support.command import FROZEN, Command
from tests.support.server import Target

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "tests.support.preload", __name__])


class Fork:
    """A forked process, with what tests use of ``subprocess.Popen``."""

    stdin = stdout = None

    def __init__(self, process: ForkServerProcess, out: Path, err: Path) -> None:
        self._process = process
        self._out, self._err = out, err
        self.stderr = Lines(err, self)
        process.start()
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def communicate(self, _: None = None, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Lines:
    """The lines that a process writes to a file, while it writes them."""

    def __init__(self, path: Path, process: Fork) -> None:
        self._path = path
        self._process = process

    def read(self) -> str:
        """What it has written so far."""
        return self._path.read_text()

    def __iter__(self) -> Iterator[str]:
        line = ""
        with self._path.open() as file:
            while True:
                ended = self._process.poll() is not None
                line += file.readline()
                if line.endswith("\n"):
                    yield line
                    line = ""
                elif ended:
                    return
                else:
                    time.sleep(0.01)


class ForkedCommand(Command):
    """``guvnor`` or ``alembic``; see :class:`Command`. Its standard input is empty.

    :ivar process: the same as a new Python process, for what depends on how Python starts, on the words in
        the process list, or on standard input and output while it runs.
    """

    def __init__(self, module: str, directory: Path) -> None:
        super().__init__(module, directory)
        self.process = Command(module, directory)
        self._forks: list[Fork] = []

    def start(  # type: ignore[override]
        self,
        *arguments: str | Path,
        database: Target | str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        real: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> Fork:
        assert stdin == subprocess.DEVNULL, "a fork has no standard input: use `.process`"
        words = self._words(arguments, cwd, real)[3:]
        streams = []
        for _ in range(2):
            descriptor, name = tempfile.mkstemp(dir=self.directory)
            os.close(descriptor)
            streams.append(Path(name))
        process = CONTEXT.Process(
            target=run,
            args=(
                self.module,
                words,
                self._environment(database, env, cwd or self.directory, real),
                cwd or self.directory,
                *streams,
                real,
            ),
        )
        fork = Fork(process, *streams)
        self._forks.append(fork)
        return fork

    def close(self) -> None:
        super().close()
        self.process.close()
        while self._forks:
            fork = self._forks.pop()
            if fork.poll() is None:
                os.killpg(fork.pid, signal.SIGKILL)
            fork.wait()


def run(
    module: str,
    words: list[str],
    environment: dict[str, str],
    directory: Path,
    out: Path,
    err: Path,
    real: bool,
) -> Any:
    """Become ``python -m module``."""
    gc.freeze()  # what is already there is garbage in no command
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    assert "guvnor.models" not in sys.modules, "a module that imports the models belongs to preload.NOT_YET"
    if real:
        guvnor.__path__.remove(str(FROZEN / "guvnor"))
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
