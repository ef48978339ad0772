"""The files of the local server, below the project's ``.guvnor/``.

::

    data/        the data directory
    socket/      the Unix socket, which needs no password: the directory's mode 0700 protects it
    server.log   the server's log
    port         the TCP port, chosen at the first start with TCP
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
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guvnor.embedded.programs import NOTHING_STARTED
from guvnor.errors import LocalServerError

ROLE = DATABASE = "guvnor"
LOCALHOST = "127.0.0.1"

# sockaddr_un.sun_path has 108 bytes on Linux and 104 elsewhere, including the terminating zero.
_SOCKET_PATH_LIMIT = 103


@dataclass(frozen=True)
class PidFile:
    """``postmaster.pid``, in which a server describes itself (src/include/utils/pidfile.h).

    :ivar pid: the ID of its main process.
    :ivar port: its port, which is also part of its socket's name.
    :ivar socket_directory: the directory of its socket; empty while it is starting.
    :ivar tcp: whether it listens on TCP.
    :ivar ready: whether it accepts connections.
    """

    pid: int
    port: int
    socket_directory: str
    tcp: bool
    ready: bool


class Home:
    """The folder ``.guvnor/`` of one project."""

    def __init__(self, directory: Path) -> None:
        """Set the paths; no file is created."""
        self.directory = directory.absolute().resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.passfile = self.directory / "passfile"
        self.socket_directory = self.directory / "socket"
        longest = os.fsencode(self.socket_directory / ".s.PGSQL.65535")
        if len(longest) > _SOCKET_PATH_LIMIT or b"," in longest:  # libpq splits a host at its commas
            # Not XDG_RUNTIME_DIR, which goes away at logout, and not TMPDIR, which differs between shells.
            key = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
            self.socket_directory = Path(f"/tmp/guvnor-{os.geteuid()}-{key}")  # noqa: S108 (see make_private)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time start or stop the server; the lock is released when its process ends."""
        with self.file_errors_explained():
            make_private(self.directory)
            with (self.directory / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @contextlib.contextmanager
    def file_errors_explained(self) -> Iterator[None]:
        """Turn an operating system error into one that says what to do."""
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise LocalServerError(
                f"The local server's files cannot be used: {error.strerror or error}{where}.",
                state="Its data is unchanged.",
                next_step=f"ls -ld {self.directory}\ndf -h {self.directory.parent}",
            ) from error

    def pid_file(self) -> PidFile | None:
        """Read ``postmaster.pid``; None if there is none. The server may have been killed since."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        lines += [""] * (8 - len(lines))  # a server that is starting has not yet written all of them
        pid, _, _, port, directory, address, _, state = (line.strip() for line in lines[:8])
        if not port:
            return None
        return PidFile(int(pid), int(port), directory, address != "", state == "ready")

    def listener(self, server: PidFile) -> int | None:
        """Find the process that listens on a server's Unix socket: only a live server does.

        The pid file alone proves nothing: after a kill, the number in it may belong to a zombie or to another
        program.

        :returns: the process ID; 0 if the process cannot be seen from here, as in another container; None if
            no process listens.
        """
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            try:
                client.connect(str(self.socket_directory / f".s.PGSQL.{server.port}"))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            if not hasattr(socket, "SO_PEERCRED"):  # only Linux has it
                return server.pid
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("iII", credentials)[0])

    def password(self) -> str:
        """Read the password for TCP, or generate it if there is none."""
        with contextlib.suppress(FileNotFoundError, IndexError):
            return self.passfile.read_text().split(":")[4].strip()
        password = secrets.token_urlsafe(24)
        self.passfile.touch(mode=0o600)
        self.passfile.write_text(f"{LOCALHOST}:*:*:{ROLE}:{password}\n")
        return password

    def port(self) -> int:
        """Read the port chosen for TCP, else PostgreSQL's default, which then only names the socket."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.directory / "port").read_text())
        return 5432

    def free_port(self) -> int:
        """Choose the port for TCP: the same as last time if it is free, otherwise another."""
        chosen = self.port() if (self.directory / "port").exists() else 0
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                probe.bind((LOCALHOST, chosen))
            except OSError:
                probe.bind((LOCALHOST, 0))
            port: int = probe.getsockname()[1]
        (self.directory / "port").write_text(f"{port}\n")
        return port


def make_private(directory: Path) -> None:
    """Create a directory that only this user can enter, or restrict an existing one to this user.

    :param directory: the directory; in ``/tmp``, another user may have created it first.
    :raises LocalServerError: when it belongs to another user, or is not a directory.
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
