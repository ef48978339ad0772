"""Make the data directory of the local server, or check that the programs fit the one that is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from guvnor.embedded import programs
from guvnor.embedded.programs import NOTHING_STARTED, Runner
from guvnor.errors import LocalServerError, last_lines

SUPERUSER = "postgres"


def data_version(data: Path) -> str | None:
    """Read which major version of PostgreSQL made a data directory.

    :param data: the data directory.
    :returns: such as ``18``; None when there is none.
    """
    try:
        return (data / "PG_VERSION").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_or_check(data: Path, runner: Runner) -> None:
    """Make the data directory when it is missing; see that it fits the programs and the user who runs them.

    :param data: the data directory.
    :param runner: how the server is run.
    :raises LocalServerError: when it cannot be made, or another major version made it.
    """
    directory = programs.binaries()
    major = programs.major_version(directory)
    there = data_version(data)
    if there is None:
        _make(data, directory, major, runner)
    elif there != str(major):
        raise LocalServerError(
            f"{data} was made by PostgreSQL {there}, and {directory} holds PostgreSQL {major}.",
            state="No server was started; the data is untouched.",
            next_step=f"GUVNOR_PG_BIN=DIRECTORY guvnor db start   # programs of PostgreSQL {there}\n"
            f"rm -r {data}   # or begin with an empty server: this deletes its databases",
        )
    elif data.stat().st_uid != runner.uid:  # namespaces have been denied, or allowed, since it was made
        _give(data, runner.uid)


def _make(data: Path, directory: Path, major: int, runner: Runner) -> None:
    if data.exists() and any(data.iterdir()):
        raise LocalServerError(
            f"{data} is not empty, and not a data directory of PostgreSQL.",
            state=NOTHING_STARTED,
            next_step=f"ls {data}   # move it away, then: guvnor db start",
        )
    # Made beside its place and then moved there, so that a killed initdb leaves nothing that looks whole.
    # The name is new each time: the initdb of a killed command may still be writing.
    for left_over in data.parent.glob("initdb-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
    # PostgreSQL 17 brought a C.UTF-8 of its own; before, it is the operating system's.
    own = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    initdb = programs.run(
        [
            *runner.prefix,
            str(directory / "initdb"),
            f"--pgdata={making / 'data'}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            *(own if major >= 17 else ["--locale=C.UTF-8"]),
            "--data-checksums",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-instructions",
        ],
        cwd=data.parent,
    )
    if initdb.returncode == 0:
        (making / "data").replace(data)
    shutil.rmtree(making, ignore_errors=True)
    if initdb.returncode != 0:
        raise LocalServerError(
            f"initdb could not make {data}:\n{last_lines(initdb.stdout + initdb.stderr)}",
            state="No server was started, and no data was made.",
            next_step="guvnor db start   # when the cause is removed",
        )


def _give(directory: Path, uid: int) -> None:
    """Give a directory and all in it to a user."""
    for parent, folders, files in os.walk(directory):
        for name in (".", *folders, *files):
            os.chown(Path(parent) / name, uid, -1, follow_symlinks=False)
