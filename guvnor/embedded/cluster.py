"""The data directory of the local server: create it, check it, kill what a dead server left running."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from guvnor.embedded import programs
from guvnor.errors import LocalServerError, last_lines

SUPERUSER = "postgres"


def data_version(data: Path) -> str | None:
    """Read the major version of PostgreSQL that made a data directory.

    :param data: the data directory.
    :returns: such as ``18``; None when there is no data directory.
    """
    file = data / "PG_VERSION"
    return file.read_text().strip() if file.exists() else None


def make_or_check(data: Path, account: programs.Account) -> None:
    """Create the data directory, or check that an existing one fits the programs and the account.

    :param data: the data directory.
    :param account: the account that the server runs under.
    :raises LocalServerError: when it cannot be created, or was made by another major version.
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
        programs.run_program(["chown", "-R", "-h", str(account.uid), str(data)])


def _make(data: Path, directory: Path, major: int, account: programs.Account) -> None:
    if data.exists() and any(data.iterdir()):
        raise LocalServerError(
            f"{data} is not empty, and not a data directory of PostgreSQL.",
            state=programs.NOTHING_STARTED,
            next_step=f"ls {data}   # move it away, then: guvnor db start",
        )
    # Created next to its final place and then moved there, so that a killed initdb leaves no incomplete data
    # directory. The name is new each time: the initdb of a killed command may still be writing.
    for abandoned in data.parent.glob("initdb-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # PostgreSQL 17 has a built-in C.UTF-8; older versions need the operating system's.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    temporary = tempfile.TemporaryDirectory(prefix="initdb-", dir=data.parent, ignore_cleanup_errors=True)
    with temporary as making:
        initdb = programs.run_program(
            [
                *account.prefix,
                str(directory / "initdb"),
                f"--pgdata={making}/data",
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
        if initdb.returncode != 0:
            raise LocalServerError(
                f"initdb could not make {data}:\n{last_lines(initdb.stdout + initdb.stderr)}",
                state="No server was started, and no data was made.",
                next_step="guvnor db start   # after fixing the cause",
            )
        Path(making, "data").replace(data)


def kill_orphans(data: Path) -> None:
    """Kill the processes that outlived their server: no other server starts while they use its shared memory.

    They are found in Linux's ``/proc``: all processes of a server have its data directory as their working
    directory. On other systems, and in a container where root may not inspect other users' processes, none
    are found; they exit on their own as soon as they wait for a client or a lock.

    :param data: the data directory of a server that is not running.
    """
    for _ in range(500):  # 10 s: a killed process takes a moment to exit
        killed = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has exited, or is a zombie or another user's
                if (process / "comm").read_text() == "postgres\n" and (process / "cwd").samefile(data):
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
        if not killed:
            break
        time.sleep(0.02)
