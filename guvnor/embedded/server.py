"""Start, stop and find the local server of a project."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from guvnor.embedded import programs
from guvnor.embedded.cluster import SUPERUSER, data_version, make_or_check
from guvnor.embedded.home import DATABASE, LOCALHOST, ROLE, Home, PidFile, is_free, make_private
from guvnor.embedded.processes import exists, is_server, kill_left_over, wait_until
from guvnor.errors import LocalServerError

if TYPE_CHECKING:
    from psycopg2.extensions import connection

PATIENCE = 60.0
"""Seconds for a server to come up (it may have to recover first) or to shut down."""

LAUNCH = '"$@" </dev/null >>server.log 2>&1 & echo $!'
"""Run by a shell that leaves at once, so that the server is nobody's child: a killed one is reaped by the
system, and one that runs holds no descriptor of this process."""


@dataclass(frozen=True)
class Status:
    """What there is to say about the local server.

    :ivar running: whether it runs.
    :ivar pid: its main process.
    :ivar version: the version of the running server, such as ``18.6``; else of the data, such as ``18``; None
        when there is no data yet, or when the server runs and does not answer.
    :ivar data: its data directory.
    :ivar socket_directory: where its Unix socket is, or would be.
    :ivar port: its port, which is also part of the socket's name.
    :ivar tcp: whether it listens on 127.0.0.1, too.
    :ivar log: the file that holds what it says.
    """

    running: bool
    pid: int | None
    version: str | None
    data: Path
    socket_directory: Path
    port: int
    tcp: bool
    log: Path


class LocalServer:
    """The local server of one project."""

    def __init__(self, home: Path) -> None:
        """Name the server; nothing is made or started.

        :param home: the project's ``.guvnor/`` folder.
        """
        self._home = Home(home)

    def start(self, *, tcp: bool = False) -> Status:
        """Start the server, or leave it as it is when it runs as asked.

        It runs on when this process, its terminal and its session end. When it runs, but listens otherwise
        than asked, it is restarted. One that was killed is recovered. Database and role ``guvnor`` are made.

        :param tcp: whether it listens on 127.0.0.1, with a password, besides its Unix socket.
        :returns: its status; it accepts connections.
        :raises LocalServerError: when it cannot be started.
        """
        home = self._home
        with home.explained(), home.locked():
            running = self._running()
            if running is not None and not running.ready:
                running = self._await_ready(running)
            if running is not None and not self._is_as_asked(running, tcp):
                self._stop(running)
                running = None
            if running is None:
                runner = programs.runner()
                make_or_check(home.data, runner)
                self._clear()
                self._launch(runner.prefix, tcp)
            self._prepare(tcp)
            return self.status()

    def stop(self) -> bool:
        """Shut the server down: connections are closed, transactions are rolled back (a "fast shutdown").

        :returns: False when it was not running.
        :raises LocalServerError: when it does not stop.
        """
        home = self._home
        with home.explained():
            if not home.directory.exists():
                return False
        with home.explained(), home.locked():
            running = self._running()
            if running is not None:
                self._stop(running)
            if home.socket_directory.parent != home.directory:
                shutil.rmtree(home.socket_directory, ignore_errors=True)
            return running is not None

    def status(self) -> Status:
        """Look at the server; nothing is changed.

        :raises LocalServerError: when its files cannot be read.
        """
        home = self._home
        with home.explained():
            running = self._running()
            return Status(
                running=running is not None,
                pid=running.pid if running else None,
                version=self._version() if running else data_version(home.data),
                data=home.data,
                socket_directory=home.socket_directory,
                port=running.port if running else home.port(),
                tcp=running.tcp if running else False,
                log=home.log,
            )

    def url(self) -> str:
        """Say how to connect, as a libpq URI without a password: over TCP it names a password file.

        :raises LocalServerError: when the server does not run.
        """
        target = self._target()
        host, port = quote(target["host"], safe=""), target["port"]
        if "passfile" in target:
            return (
                f"postgresql://{ROLE}@{host}:{port}/{DATABASE}?passfile={quote(target['passfile'], safe='')}"
            )
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={port}"

    def environment(self) -> dict[str, str]:
        """Say how to connect, as libpq's environment variables for a program such as psql.

        :raises LocalServerError: when the server does not run.
        """
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
        names["passfile"] = "PGPASSFILE"
        return {names[key]: value for key, value in self._target().items()}

    def _target(self) -> dict[str, str]:
        with self._home.explained():
            running = self._running()
        if running is None:
            raise LocalServerError(
                "The local server is not running.",
                state="Its data is as it was.",
                next_step="guvnor db start",
            )
        target = {"port": str(running.port), "user": ROLE, "dbname": DATABASE}
        if running.tcp:
            return {"host": LOCALHOST, **target, "passfile": str(self._home.passfile)}
        return {"host": str(self._home.socket_directory), **target}

    def _running(self) -> PidFile | None:
        """Read the pid file, unless it is what a killed server left behind."""
        found = self._home.pid_file()
        # The socket speaks for a process that cannot be seen: in another container, or without /proc.
        if found and (is_server(found.pid, self._home.data) or self._home.listens(found.port)):
            return found
        return None

    def _is_as_asked(self, running: PidFile, tcp: bool) -> bool:
        return (
            running.tcp == tcp
            # Otherwise the project was moved, or something cleaned up the socket.
            and running.socket_directory == str(self._home.socket_directory)
            and self._home.listens(running.port)
        )

    def _connect(self) -> connection:
        import psycopg2

        running = self._home.pid_file()
        admin = psycopg2.connect(
            host=str(self._home.socket_directory),
            port=running.port if running else self._home.port(),
            user=SUPERUSER,
            dbname="postgres",
            connect_timeout=5,
            application_name="guvnor db",
            options="",
        )
        admin.autocommit = True
        return admin

    def _version(self) -> str | None:
        import psycopg2

        try:
            with contextlib.closing(self._connect()) as admin:
                named = admin.info.parameter_status("server_version")
                return named.split()[0] if named else None  # distributors add words of their own
        except psycopg2.Error:
            return None

    def _await_ready(self, starting: PidFile) -> PidFile | None:
        """Wait for a server that is starting, whose starter was killed."""
        wait_until(lambda: (now := self._running()) is None or now.ready, PATIENCE)
        now = self._running()
        if now is not None and not now.ready:
            raise self._still_starting(starting.pid)
        return now

    def _clear(self) -> None:
        """Take away what a killed server left: its lock files name processes that are gone, or not it."""
        home = self._home
        if (home.data / "postmaster.pid").exists():
            kill_left_over(home.data)
            (home.data / "postmaster.pid").unlink()
        make_private(home.socket_directory)
        for left_over in home.socket_directory.glob(".s.PGSQL.*"):
            left_over.unlink()

    def _launch(self, prefix: tuple[str, ...], tcp: bool) -> None:
        """Start the server's main process and wait until it takes connections."""
        for attempt in range(1, 4):
            port = self._home.free_port() if tcp else self._home.port()
            try:
                return self._launch_on(port, prefix, tcp)
            except LocalServerError:
                # Another program may have taken the port since it was found to be free.
                if not tcp or attempt == 3 or is_free(port):
                    raise
        return None

    def _launch_on(self, port: int, prefix: tuple[str, ...], tcp: bool) -> None:
        home = self._home
        quoted_directory = str(home.socket_directory).replace('"', '""')
        settings = {
            "port": str(port),
            "listen_addresses": LOCALHOST if tcp else "",
            "unix_socket_directories": f'"{quoted_directory}"',
            "unix_socket_permissions": "0700",
            # POSIX shared memory goes away when systemd ends the session of the user (RemoveIPC), and is
            # 64 MB in a container; the server outlives the one and builds indexes in the other.
            "dynamic_shared_memory_type": "mmap",
            # A schema of 1,000 tables is built in one transaction when it is compared.
            "max_locks_per_transaction": "256",
        }
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        postgres = str(programs.binaries() / "postgres")
        home.log.touch(mode=0o600)
        log_start = home.log.stat().st_size
        launched = programs.run(
            ["/bin/sh", "-c", LAUNCH, "guvnor", *prefix, postgres, "-D", str(home.data), *options],
            cwd=home.directory,
        )
        pid = int(launched.stdout)

        def ready() -> bool:
            found = home.pid_file()
            return found is not None and found.pid == pid and found.ready

        wait_until(lambda: ready() or not exists(pid), PATIENCE)
        if not exists(pid):
            raise LocalServerError(
                f"The server did not start. The end of {home.log}:\n{home.log_since(log_start)}",
                state="The server is not running; its data is as it was.",
                next_step="guvnor db start   # when the cause is removed",
            )
        if not ready():
            raise self._still_starting(pid)

    def _still_starting(self, pid: int) -> LocalServerError:
        return LocalServerError(
            f"The server (process {pid}) is still starting after {PATIENCE:.0f} s.",
            state="It goes on starting; it may be recovering its data.",
            next_step=f"tail {self._home.log}\nguvnor db start   # waits for it again",
        )

    def _prepare(self, tcp: bool) -> None:
        """Make role and database, set the password for TCP. Finishes what a killed start began."""
        import psycopg2
        from psycopg2.extensions import encrypt_password

        try:
            with contextlib.closing(self._connect()) as admin, admin.cursor() as cursor:
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
                if tcp:
                    # Encrypted here, so that the server never has the password in a statement to log.
                    secret = encrypt_password(self._home.password(), ROLE, admin, "scram-sha-256")
                    cursor.execute(f"ALTER ROLE {ROLE} PASSWORD %s", [secret])
        except psycopg2.Error as error:
            raise LocalServerError(
                f"The server runs, but its database could not be set up: {str(error).strip()}",
                state=f"The role or the database {DATABASE} may be missing.",
                next_step=f"tail {self._home.log}\nguvnor db start",
            ) from error

    def _stop(self, running: PidFile) -> None:
        if Path("/proc/self").exists() and not is_server(running.pid, self._home.data):
            raise LocalServerError(
                f"The server runs where its process {running.pid} cannot be seen, as in another container.",
                state="The server is running.",
                next_step="guvnor db stop   # there",
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGINT)
        if not wait_until(lambda: not exists(running.pid), PATIENCE):
            raise LocalServerError(
                f"The server (process {running.pid}) did not stop within {PATIENCE:.0f} s.",
                state="The server is shutting down.",
                next_step=f"tail {self._home.log}\nguvnor db stop",
            )
