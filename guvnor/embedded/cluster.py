"""The data directory of the local server: it is made, checked, and freed of a killed server's processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from guvnor.embedded import programs
from guvnor.embedded.programs import NOTHING_STARTED, Account, last_lines
from guvnor.errors import LocalServerError

SUPERUSER = "postgres"


def data_version(data: Path) -> str | None:
    """Read the major version of PostgreSQL that made a data directory.

    :param data: the data directory.
    :returns: such as ``18``; None when there is no data directory.
    """
    try:
        return (data / "PG_VERSION").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_or_check(data: Path, account: Account) -> None:
    """Make the data directory if it is missing; otherwise check that it fits the programs, and who owns it.

    :param data: the data directory.
    :param account: the account that the server runs under.
    :raises LocalServerError: when it cannot be made, or another major version made it.
    """
    directory = programs.binaries()
    major = programs.major_version(directory)
    made_by = data_version(data)
    if made_by is None:
        _make(data, directory, major, account)
    elif made_by != str(major):
        raise LocalServerError(
            f"{data} was made by PostgreSQL {made_by}, and {directory} holds PostgreSQL {major}.",
            state="No server was started; the data is untouched.",
            next_step=f"GUVNOR_PG_BIN=DIRECTORY guvnor db start   # programs of PostgreSQL {made_by}\n"
            f"rm -r {data}   # or begin with an empty server: this deletes its databases",
        )
    elif data.stat().st_uid != account.uid:  # namespaces have been denied, or allowed, since it was made
        programs.run(["chown", "-R", "-h", str(account.uid), str(data)])


def _make(data: Path, directory: Path, major: int, account: Account) -> None:
    if data.exists() and any(data.iterdir()):
        raise LocalServerError(
            f"{data} is not empty, and not a data directory of PostgreSQL.",
            state=NOTHING_STARTED,
            next_step=f"ls {data}   # move it away, then: guvnor db start",
        )
    # Made next to its final place and then moved there, so that a killed initdb leaves no half-made data
    # directory. Each time under a new name: the initdb of a killed command may still be writing.
    for abandoned in data.parent.glob("initdb-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
    # PostgreSQL 17 introduced a C.UTF-8 of its own; before, the operating system had to have one.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    initdb = programs.run(
        [
            *account.prefix,
            str(directory / "initdb"),
            f"--pgdata={making / 'data'}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            *(builtin if major >= 17 else ["--locale=C.UTF-8"]),
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


def kill_orphans(data: Path) -> None:
    """Kill what a killed server left running: its shared memory stays in use, and no other server starts.

    They are found in Linux's ``/proc``: all processes of a server have its data directory as their working
    directory. On other systems, and where a container's root may not look into other users' processes, none
    are found; then they end by themselves as soon as they wait for a client or a lock.

    :param data: the data directory, whose server does not run.
    """
    for _ in range(500):  # 10 s: a process that is killed takes a moment to end
        killed = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is a zombie, or another user's
                if (process / "comm").read_text() == "postgres\n" and (process / "cwd").samefile(data):
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
        if not killed:
            break
        time.sleep(0.02)
