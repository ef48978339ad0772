"""Start, stop and find the local server of a project."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import connection, encrypt_password

from guvnor.embedded import programs
from guvnor.embedded.home import DATABASE, LOCALHOST, ROLE, Home, PidFile, make_private
from guvnor.errors import LocalServerError, last_lines

PATIENCE = 60.0  # seconds for a server to start, recovery included, or to shut down


@dataclass(frozen=True)
class LocalServerStatus:
    """The state of the local server.

    :ivar pid: the ID of its main process; None when it is not running.
    :ivar version: the version of the running server, such as ``18.6``, or else of the data, such as ``18``;
        None when there is no data yet, or when the running server does not answer.
    :ivar socket_directory: the directory of its Unix socket, even while it is not running.
    :ivar port: its port, which is also part of the socket's name.
    :ivar tcp: whether it also listens on 127.0.0.1.
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
        """Set the paths to the project's folder ``.guvnor/``; nothing is created or started."""
        self._home = Home(home)

    def start(self, *, tcp: bool = False) -> LocalServerStatus:
        """Start the server, or leave it alone if it already runs as asked.

        It keeps running when this process, its terminal and its session end. A server that runs with another
        choice of TCP, or was started before the project was moved, is restarted. After a kill, PostgreSQL
        recovers the data. The role and the database ``guvnor`` are created if they are missing.

        :param tcp: whether it listens on 127.0.0.1, with a password, in addition to its Unix socket.
        :returns: the status of the server, which now accepts connections.
        :raises LocalServerError: when it cannot be started.
        """
        sockets = self._home.socket_directory  # differs from the server's after the project was moved
        with self._home.locked():
            running = self._await_ready()  # it may still be starting, if a killed command started it
            if running and (running.tcp != tcp or running.socket_directory != str(sockets)):
                self._stop(running)
                running = None
            if running is None:
                self._launch(tcp)
            self._prepare(tcp)
            return self.status()

    def stop(self) -> bool:
        """Shut the server down: connections are closed, transactions are rolled back (a "fast shutdown").

        :returns: False when it was not running.
        :raises LocalServerError: when it does not stop.
        """
        home = self._home
        with home.file_errors_explained():
            if not home.directory.exists():
                return False
        with home.locked():
            running = self._running()
            if running is not None:
                self._stop(running)
            else:
                programs.kill_orphans(home.data)
            if home.socket_directory.parent != home.directory:
                shutil.rmtree(home.socket_directory, ignore_errors=True)
            return running is not None

    def reset(self) -> None:
        """Drop the database ``guvnor`` of the running server, whoever uses it, and make it again, empty.

        :raises LocalServerError: when that fails; :meth:`start` makes a database that is missing.
        """
        with self._home.locked():
            try:
                with contextlib.closing(self._connect()) as admin, admin.cursor() as cursor:
                    cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            except psycopg2.Error as error:
                raise LocalServerError(
                    f"The database could not be dropped: {str(error).strip()}",
                    state="The database is as it was, or gone.",
                    next_step="guvnor db reset",
                ) from error
            self._prepare(tcp=False)

    def status(self) -> LocalServerStatus:
        """Return the server's state; nothing is changed.

        :raises LocalServerError: when its files cannot be read.
        """
        home = self._home
        with home.file_errors_explained():
            running = self._running()
            return LocalServerStatus(
                running=running is not None,
                pid=running.pid if running else None,
                version=self._version() if running else programs.data_version(home.data),
                data=home.data,
                socket_directory=home.socket_directory,
                port=running.port if running else home.port(),
                tcp=running.tcp if running else False,
                log=home.log,
            )

    def url(self) -> str:
        """Return a libpq URI to connect with; instead of a password it names a password file.

        :raises LocalServerError: when the server is not running.
        """
        variables = self.environment()
        host, port = quote(variables["PGHOST"], safe=""), variables["PGPORT"]
        if "PGPASSFILE" in variables:
            passfile = quote(variables["PGPASSFILE"], safe="")
            return f"postgresql://{ROLE}@{host}:{port}/{DATABASE}?passfile={passfile}"
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={port}"

    def environment(self) -> dict[str, str]:
        """Return libpq's environment variables to connect with, for programs such as psql.

        :raises LocalServerError: when the server is not running.
        """
        with self._home.file_errors_explained():
            running = self._running()
        if running is None:
            raise LocalServerError(
                "The local server is not running.",
                state="Its data is unchanged.",
                next_step="guvnor db start",
            )
        variables = {"PGPORT": str(running.port), "PGUSER": ROLE, "PGDATABASE": DATABASE}
        if running.tcp:
            return {"PGHOST": LOCALHOST, **variables, "PGPASSFILE": str(self._home.passfile)}
        return {"PGHOST": str(self._home.socket_directory), **variables}

    def _running(self) -> PidFile | None:
        """Read the pid file; None if there is none, or if a killed server left it behind."""
        found = self._home.pid_file()
        return found if found and self._home.listener(found) is not None else None

    def _await_ready(self) -> PidFile | None:
        """Wait until the running server accepts connections; None if no server runs."""
        _wait_until(lambda: (found := self._running()) is None or found.ready, PATIENCE)
        running = self._running()
        if running is not None and not running.ready:
            raise LocalServerError(
                f"The server (process {running.pid}) is still starting after {PATIENCE:.0f} s.",
                state="It was left running; it may be recovering its data.",
                next_step=f"tail {self._home.log}\nguvnor db start   # waits for it again",
            )
        return running

    def _connect(self) -> connection:
        running = self._home.pid_file()
        admin = psycopg2.connect(
            host=str(self._home.socket_directory),
            port=running.port if running else self._home.port(),
            user=programs.SUPERUSER,
            dbname="postgres",
            connect_timeout=5,
            application_name="guvnor db",
            options="",
        )
        admin.autocommit = True
        return admin

    def _version(self) -> str | None:
        try:
            with contextlib.closing(self._connect()) as admin:
                version = admin.info.parameter_status("server_version")
                return version.split()[0] if version else None  # distributors add words of their own
        except psycopg2.Error:
            return None

    def _launch(self, tcp: bool) -> None:
        """Start the server and wait until it accepts connections."""
        home = self._home
        account = programs.server_account()
        programs.make_or_check(home.data, account)
        self._clean_up()
        port = home.free_port() if tcp else home.port()
        quoted_directory = str(home.socket_directory).replace('"', '""')
        settings = {
            "port": str(port),
            "listen_addresses": LOCALHOST if tcp else "",
            "unix_socket_directories": f'"{quoted_directory}"',
            "unix_socket_permissions": "0700",
            # Not POSIX shared memory: systemd removes it at the user's logout (RemoveIPC), which the server
            # outlives, and a container limits it to 64 MB, which is too little for an index build.
            "dynamic_shared_memory_type": "mmap",
            # The schema comparison builds all tables, even 1,000, in one transaction.
            "max_locks_per_transaction": "256",
        }
        options = shlex.join(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        home.log.touch(mode=0o600)
        log_start = home.log.stat().st_size
        # Relative paths, since pg_ctl does not quote them for the shell in which it starts the server.
        command = [*account.prefix, str(programs.binaries() / "pg_ctl"), "start", "--pgdata=data"]
        command += ["--log=server.log", f"--options={options}", "--timeout=10"]
        started = programs.run_program(command, cwd=home.directory)
        if self._await_ready() is not None:
            return
        if tcp and home.free_port() != port:  # another program has taken the port in the meantime
            self._launch(tcp)
            return
        said = home.log.read_bytes()[log_start:].decode(errors="replace") or started.stderr
        raise LocalServerError(
            f"The server did not start. The end of {home.log}:\n{last_lines(said)}",
            state="The server is not running; its data is unchanged.",
            next_step="guvnor db start   # after fixing the cause",
        )

    def _clean_up(self) -> None:
        """Remove a killed server's lock files: PostgreSQL respects them while any process has their ID."""
        home = self._home
        if (home.data / "postmaster.pid").exists():
            programs.kill_orphans(home.data)
            (home.data / "postmaster.pid").unlink(missing_ok=True)
        make_private(home.socket_directory)
        for file in home.socket_directory.glob(".s.PGSQL.*"):
            file.unlink()

    def _prepare(self, tcp: bool) -> None:
        """Create the role and the database if they are missing, and set the TCP password."""
        try:
            with contextlib.closing(self._connect()) as admin, admin.cursor() as cursor:
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
                # A run sees who waits for it as soon as somebody does, not only at its looks.
                cursor.execute("SELECT pg_has_role(%s, 'pg_read_all_stats', 'USAGE')", [ROLE])
                if cursor.fetchone() == (False,):
                    cursor.execute(f"GRANT pg_read_all_stats TO {ROLE}")
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
                if tcp:
                    # Encrypted here, so that the server logs no statement with the password in it.
                    secret = encrypt_password(self._home.password(), ROLE, admin, "scram-sha-256")
                    cursor.execute(f"ALTER ROLE {ROLE} PASSWORD %s", [secret])
        except psycopg2.Error as error:
            raise LocalServerError(
                f"The server runs, but its database could not be set up: {str(error).strip()}",
                state=f"The role or the database {DATABASE} may be missing.",
                next_step=f"tail {self._home.log}\nguvnor db start",
            ) from error

    def _stop(self, running: PidFile) -> None:
        home = self._home
        if home.listener(running) != running.pid:
            raise LocalServerError(
                f"The server runs where its process {running.pid} cannot be seen, as in another container.",
                state="The server is running.",
                next_step="guvnor db stop   # there",
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGINT)
        if not _wait_until(lambda: home.listener(running) is None, PATIENCE):
            raise LocalServerError(
                f"The server (process {running.pid}) did not stop within {PATIENCE:.0f} s.",
                state="The server is shutting down.",
                next_step=f"tail {home.log}\nguvnor db stop",
            )
        # The server removes its pid file a moment after its socket, unless it was killed.
        _wait_until(lambda: home.pid_file() is None, 2.0)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, checked 50 times a second; return whether it held in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
