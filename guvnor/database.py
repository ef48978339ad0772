"""The configured database: what the settings mean as one value, and how every command reaches it."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from guvnor import folder, postgres, typed
from guvnor.bookkeeping import history, production
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.config import Settings
from guvnor.errors import PreflightError
from guvnor.postgres import Connection, scalar, settings as settings_of_sessions, tls
from guvnor.postgres.errors import ConnectionFailedError
from guvnor.postgres.membership import instead_of_a_grant

log = logging.getLogger(__name__)

_HOME = ".guvnor"
_POLL = 0.25  # seconds between two tries to reach a server that is starting


@dataclass(frozen=True)
class Database:
    """A database and the rules for its sessions and its schema.

    :ivar dsn: libpq's connection string, as the user wrote it.
    :ivar role: the role that sessions act as; empty for the role that logs in.
    :ivar environment: the configured environment where that is production, else None.
    :ivar allow_plaintext: whether a connection without TLS may leave this machine in production.
    :ivar shadow_dsn: the connection string of a scratch database in which the expected schema is built; empty
        to build it in this one.
    :ivar grantees: glob patterns of roles that may hold privileges beyond the owner's.
    :ivar ignore: glob patterns of objects that belong to others.
    :ivar keep: names of settings that sessions keep as the server has them.
    :ivar max_wait: seconds that a statement waits for a lock at most, where a session sets no other limit.
    """

    dsn: str = field(repr=False)
    role: str = ""
    environment: str | None = None
    allow_plaintext: bool = False
    shadow_dsn: str = field(default="", repr=False)
    grantees: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    max_wait: float = 600.0
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """Return the configured database; if that is the local server, start it.

        :raises ConfigurationError: when no database is configured or the connection string is malformed.
        :raises LocalServerError: when the local server does not start.
        """
        dsn = local_server() if settings.storage_type == "embedded" else settings.storage_dsn
        postgres.parse(dsn)
        return cls(
            dsn,
            settings.storage_role,
            settings.production_environment,
            settings.allow_plaintext,
            settings.shadow_dsn,
            settings.schema_grantees,
            settings.schema_ignore,
            settings.max_wait,
            settings_of_sessions.known_names(settings.session_keep),
        )

    @property
    def shadow(self) -> Database:
        """The database in which the expected schema is built: a scratch database, or this one."""
        return Database(self.shadow_dsn, keep=self.keep) if self.shadow_dsn else self

    def connect(self, purpose: str = "") -> Connection:
        """Open a connection in autocommit mode that acts as the role and keeps the TLS policy.

        :param purpose: a word for the application name, by which others recognize the connection.
        :raises ConnectionFailedError: with the reason in plain words (exit code 3).
        :raises PreflightError: when the session may not act as the role, or lacks TLS (exit code 3).
        """
        connection = postgres.connect(self.dsn, purpose=purpose, max_wait=self.max_wait, keep=self.keep)
        try:
            self._act_as_role(connection)
            self._require_tls(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def wait_and_connect(self, patience: float, purpose: str = "") -> Connection:
        """Connect, trying again while the server is starting or cannot be reached.

        :param patience: seconds to go on trying.
        :raises ConnectionFailedError: with the last reason when the time is up; at once when waiting cannot
            help.
        """
        deadline, told = time.monotonic() + patience, False
        while True:
            try:
                return self.connect(purpose)
            except ConnectionFailedError as error:
                if not error.may_pass or time.monotonic() >= deadline:
                    raise
                if not told:
                    log.info("waiting for the server", extra={"patience": patience, "reason": error.message})
                told = True
            time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))

    def tls_warnings(self, connection: Connection) -> tuple[str, ...]:
        """Return warnings about the encryption of an open connection."""
        host = connection.info.host
        if tls.is_plaintext(connection):
            advice = "add sslmode=verify-full to the connection string"
            return (f"the connection to {host} is not encrypted: {advice}",)
        mode = connection.info.dsn_parameters.get("sslmode")
        unverified = connection.info.ssl_in_use and mode != "verify-full"
        if self.environment and unverified and not tls.is_local(tls.peer(connection)):
            why = f"sslmode={mode} does not verify that the server is {host}"
            return (f"the connection is encrypted, but {why}: use sslmode=verify-full",)
        return ()

    def _act_as_role(self, connection: Connection) -> None:
        """Act as the role for the rest of the session (PostgreSQL documentation, SET ROLE)."""
        if not self.role:
            return
        try:
            scalar(connection, "SELECT set_config('role', %s, false)", (self.role,))
        except psycopg2.errors.InvalidParameterValue:
            raise PreflightError(
                f"The role {self.role}, which storage.role names, does not exist.",
                next_step="guvnor migrate roles   # prints the SQL that creates it",
            ) from None
        except psycopg2.errors.InsufficientPrivilege:
            login = connection.info.user
            role, grantee = (postgres.quote_ident(connection, name) for name in (self.role, login))
            raise PreflightError(
                f"Role {login} may not act as {self.role}, which storage.role names.",
                next_step=instead_of_a_grant(connection, self.role) or f"GRANT {role} TO {grantee};",
            ) from None

    def _require_tls(self, connection: Connection) -> None:
        """Refuse an unencrypted connection to a production database, unless it is allowed."""
        if not tls.is_plaintext(connection):
            return
        host = connection.info.host
        if self.allow_plaintext:
            _put_on_record(host)
            return
        mark = None
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
            mark = wait_for_tables(
                connection,
                self.max_wait,
                lambda: production.read_mark(connection) if history.exists(connection) else None,
            )
        why = production.reason(self.environment, mark)
        if why is not None:
            raise PreflightError(
                f"Refused: the connection to {host} is not encrypted, and this is production ({why}).",
                state="Nothing was changed.",
                next_step="Add sslmode=verify-full (and sslrootcert=FILE) to the connection string.\n"
                + typed.again_allowing("allow_plaintext", when="or: without TLS, on record"),
            )


@functools.cache  # a run opens several connections, but is recorded once
def _put_on_record(host: str) -> None:
    log.warning(f"{tls.NOTE}, let through by allow_plaintext", extra={"host": host})


def local_server() -> str:
    """Return the connection string of the local server, and start it if it is not running.

    :raises LocalServerError: when it does not start.
    """
    from guvnor.embedded import LocalServer

    server = LocalServer(local_server_home())
    if not server.status().running:
        server.start(tcp=server.status().tcp)  # keep its listening mode
    return server.url()


def local_server_home() -> Path:
    """Return the folder in which the local server of the project lives.

    Without a project, it is the nearest one upwards that there is, else one of the current directory.
    """
    top = folder.project()
    return (top / _HOME) if top else (folder.find(_HOME) or Path.cwd() / _HOME)
