"""The files of the local server, below the project's ``.guvnor/``.

::

    data/        the data directory
    socket/      the Unix socket; its mode 0700 is what protects it: whoever gets there needs no password
    server.log   what the server says
    port         the TCP port, chosen when first asked for
    passfile     the password for TCP, in libpq's format
    lock         held by the command that starts or stops the server
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guvnor.embedded.programs import NOTHING_STARTED
from guvnor.errors import LocalServerError, last_lines

ROLE = DATABASE = "guvnor"
LOCALHOST = "127.0.0.1"
DEFAULT_PORT = 5432

# sockaddr_un.sun_path has 108 bytes on Linux and 104 elsewhere, the closing zero included.
_SOCKET_PATH_LIMIT = 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.65535"


@dataclass(frozen=True)
class PidFile:
    """``postmaster.pid``: what a server says of itself (src/include/utils/pidfile.h).

    :ivar pid: its main process.
    :ivar port: its port, also a part of its socket's name.
    :ivar socket_directory: where its socket is; empty while it is starting.
    :ivar tcp: whether it listens on TCP.
    :ivar ready: whether it takes connections.
    """

    pid: int
    port: int
    socket_directory: str
    tcp: bool
    ready: bool


class Home:
    """The folder ``.guvnor/`` of one project."""

    def __init__(self, directory: Path) -> None:
        """Name the files; nothing is made.

        :param directory: the folder.
        """
        self.directory = directory.absolute().resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.passfile = self.directory / "passfile"
        self.socket_directory = self.directory / "socket"
        longest = os.fsencode(self.socket_directory / _LONGEST_SOCKET_NAME)
        if len(longest) > _SOCKET_PATH_LIMIT or b"," in longest:  # libpq takes a comma for two hosts
            # Not XDG_RUNTIME_DIR, which goes away at logout, and not TMPDIR, which differs between shells.
            key = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
            self.socket_directory = Path(f"/tmp/guvnor-{os.geteuid()}-{key}")  # noqa: S108 (see make_private)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time start or stop the server; the lock ends with the process holding it."""
        make_private(self.directory)
        descriptor = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what goes wrong with the files into an error that says what to do."""
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise LocalServerError(
                f"The local server's files cannot be used: {error.strerror or error}{where}.",
                state="Its data is as it was.",
                next_step=f"ls -ld {self.directory}\ndf -h {self.directory.parent}",
            ) from error

    def pid_file(self) -> PidFile | None:
        """Read what a server wrote about itself; it may be gone by now."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        lines += [""] * (8 - len(lines))  # a server that is starting has not written all of it
        pid, _, _, port, directory, address, _, state = (line.strip() for line in lines[:8])
        if not pid.lstrip("-").isdigit():
            return None
        number = int(port) if port.isdigit() else self.port()
        return PidFile(abs(int(pid)), number, directory, address != "", state == "ready")

    def listens(self, port: int) -> bool:
        """Whether a server listens on our Unix socket.

        :param port: the port in the socket's name.
        """
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            try:
                client.connect(str(self.socket_directory / f".s.PGSQL.{port}"))
            except OSError:
                return False
            return True

    def log_since(self, position: int) -> str:
        """Read the last lines of the server's log.

        :param position: where to begin, in bytes; what stands before is of an earlier run.
        """
        with self.log.open("rb") as log:
            log.seek(position)
            return last_lines(log.read().decode(errors="replace"))

    def password(self) -> str:
        """Read the password for TCP, or make it."""
        with contextlib.suppress(FileNotFoundError, IndexError):
            return self.passfile.read_text().split(":")[4].strip()
        password = secrets.token_urlsafe(24)
        new = self.passfile.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(f"{LOCALHOST}:*:*:{ROLE}:{password}\n")
        new.replace(self.passfile)
        return password

    def port(self) -> int:
        """Read the port: that of TCP once it was chosen, else PostgreSQL's default for the socket's name."""
        try:
            return int((self.directory / "port").read_text())
        except (OSError, ValueError):
            return DEFAULT_PORT

    def free_port(self) -> int:
        """Choose the port for TCP: that of before when it is free, else another."""
        port = self.port()
        if not (self.directory / "port").exists() or not is_free(port):
            with socket.socket() as probe:
                probe.bind((LOCALHOST, 0))
                port = probe.getsockname()[1]
            (self.directory / "port").write_text(f"{port}\n")
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on a TCP port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


def make_private(directory: Path) -> None:
    """Make a directory that only this user can enter, or make sure that it is one.

    :param directory: the directory, which in ``/tmp`` anyone else might have made first.
    :raises LocalServerError: when it is someone else's, or no directory.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalServerError(
            f"{directory} is not a directory of this user.",
            state=NOTHING_STARTED,
            next_step=f"ls -ld {directory}   # move it away, or run this as its owner",
        )
    directory.chmod(0o700)
