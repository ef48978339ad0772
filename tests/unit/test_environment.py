"""Do the scripts make their environment whole, wherever an earlier one was interrupted?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import CHECKOUT

# Stands for pip, which would need the network.
PIP = """
import os, pathlib, sys, time
at = pathlib.Path(os.environ["STATE"])
if "install" in sys.argv and "--editable" in sys.argv:
    with at.joinpath("installs").open("a") as log:
        log.write(sys.prefix + "\\n")
    if at.joinpath("slow").exists():
        at.joinpath("begun").touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            sys.exit(1)  # as pip does
    sys.exit(1 if at.joinpath("offline").exists() else 0)
"""
# An interpreter whose environments get that pip, or are interrupted before they get one.
PYTHON = """#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec {python} "$@"; fi
{python} -m venv --without-pip "$3" "$4" || exit 1
if [ -e "$STATE/no-pip" ]; then rm .venv/bin/activate; touch "$STATE/begun"; exec sleep 60; fi
for place in .venv/lib/python*/site-packages; do
    mkdir -p "$place/pip"
    cp "$STATE/pip.py" "$place/pip/__main__.py"
done
"""


class Checkout:
    """A project with nothing but the scripts."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory / "checkout", directory / "state"
        (self.directory / "scripts").mkdir(parents=True)
        self.state.mkdir()
        shutil.copy(CHECKOUT / "scripts" / "environment", self.directory / "scripts")
        (self.directory / "pyproject.toml").write_text("")
        script = self.directory / "scripts" / "run"
        script.write_text(
            '#!/usr/bin/env bash\nsource "${BASH_SOURCE%/*}/environment" dev\ncommand -v python\n'
        )
        (self.state / "pip.py").write_text(PIP)
        self.python = self.state / "python"
        self.python.write_text(PYTHON.format(python=sys.executable))
        for path in (script, self.python):
            path.chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.Popen(
            [self.directory / "scripts" / "run"],
            env={**env, "PYTHON": str(self.python), "STATE": str(self.state)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background, SIGINT may be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self) -> tuple[int, str, str]:
        process = self.start()
        out, err = process.communicate(timeout=120)
        return process.returncode, out.strip(), err

    def interrupt(self, way: str, number: int) -> int:
        """Run until something has begun, and end the whole group of processes there."""
        self.mark(way)
        process = self.start()
        deadline = time.monotonic() + 100
        while not (self.state / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
        for name in (way, "begun"):
            (self.state / name).unlink()
        return process.returncode

    def mark(self, name: str) -> None:
        (self.state / name).touch()

    @property
    def installs(self) -> int:
        log = self.state / "installs"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def is_whole(self) -> None:
        """Expect that the next script makes it, and the one after that finds it made."""
        python = str(self.directory / ".venv" / "bin" / "python")
        assert self.run()[:2] == (0, python)
        before = self.installs
        assert self.run() == (0, python, "")
        assert self.installs == before
        assert sorted(path.name for path in self.directory.iterdir()) == [
            ".venv",
            "pyproject.toml",
            "scripts",
        ]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("way", ["no-pip", "slow"])
def test_an_interrupted_environment_is_made_anew(checkout: Checkout, way: str, number: int) -> None:
    assert checkout.interrupt(way, number) in (128 + number, -number)
    code, _, err = checkout.run()
    assert (code, err.count("since it was not finished")) == (0, 1)
    checkout.is_whole()


def test_what_an_older_script_left_is_made_anew(checkout: Checkout) -> None:
    (checkout.directory / ".venv" / "bin").mkdir(parents=True)
    (checkout.directory / ".venv" / "bin" / "python").symlink_to(sys.executable)
    checkout.is_whole()


def test_an_environment_of_ones_own_stays_as_it_is(checkout: Checkout) -> None:
    """It may hold other packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout.directory / ".venv"], check=True)
    mine = checkout.directory / ".venv" / "mine"
    mine.touch()
    (site,) = (checkout.directory / ".venv" / "lib").glob("python*/site-packages")
    (site / "pip").mkdir()
    shutil.copy(checkout.state / "pip.py", site / "pip" / "__main__.py")
    checkout.is_whole()
    assert mine.exists()


def test_an_install_that_fails_leaves_the_environment(checkout: Checkout) -> None:
    checkout.is_whole()
    mine = checkout.directory / ".venv" / "mine"
    mine.touch()
    (checkout.directory / "pyproject.toml").write_text("# of a newer commit")
    checkout.mark("offline")
    assert checkout.run()[0] == 1
    (checkout.state / "offline").unlink()
    checkout.is_whole()
    assert mine.exists()
