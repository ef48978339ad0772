"""Connections to PostgreSQL: how they are made, what they are set to, and why one could not be made."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import errorcodes, extensions

from guvnor import __version__, connection_errors, transport
from guvnor.config import MASK, Settings
from guvnor.connection_errors import ConnectionFailedError
from guvnor.errors import ConfigurationError, GuvnorError, PreflightError

Connection = extensions.connection

APPLICATION_NAME = f"guvnor {__version__}"
SCHEMA = "public"
# libpq waits for ever by default, and a connect that waits cannot be interrupted.
CONNECT_TIMEOUT = "10"

# What a role or the server may set and what would end a migration halfway or change its meaning. Timeouts of
# statements are set by each transaction for itself (PostgreSQL documentation, "Client Connection Defaults").
_SESSION = (
    ("search_path", SCHEMA),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),  # since PostgreSQL 17
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("client_connection_check_interval", "500"),  # ms: a killed client's statement ends soon
    ("check_function_bodies", "on"),
    ("standard_conforming_strings", "on"),
    ("client_min_messages", "notice"),
    ("jit", "off"),  # to compile a query of the catalogs takes longer than to run it
)


class DatabaseError(GuvnorError):
    """The database could not be used any more."""

    state = "No revision was being run at that moment; what was finished before stays as it is."
    next_step = "guvnor migrate status"


class RoleError(PreflightError):
    """The role of storage.role cannot be acted as."""


class ConnectionString(str):
    """The configured database's connection string, with the settings that its sessions follow."""

    settings: Settings

    def __new__(cls, dsn: str, settings: Settings) -> ConnectionString:
        """Take libpq's connection string, as the user wrote it."""
        self = super().__new__(cls, dsn)
        self.settings = settings
        return self


@dataclass(frozen=True)
class Identity:
    """Which database a connection reaches, for people and for the plan's hash.

    :ivar system_identifier: of the cluster, None where the role may not read it.
    :ivar oid: of the database.
    """

    host: str
    port: int
    database: str
    role: str
    server_version: int
    version_text: str
    oid: int
    system_identifier: str | None
    in_recovery: bool
    read_only: bool

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.server_version // 10000


def parse(dsn: str) -> dict[str, str]:
    """Let libpq take a connection string apart.

    libpq reads some passwords with characters that a URL needs escaped as part of another field, and quotes
    that field in its messages. So a string whose fields cannot be is refused here, without quoting any of it.

    :raises ConfigurationError: when it is empty or malformed; its text never shows any of the string.
    """
    if not dsn.strip():
        raise ConfigurationError(
            "The database's connection string (DSN) is empty.",
            next_step="export GUVNOR_STORAGE_DSN='postgres://USER:PASSWORD@HOST:5432/DATABASE'\n"
            "GUVNOR_STORAGE_TYPE=embedded guvnor migrate up   # or use the local development server",
        )
    try:
        fields: dict[str, str] = extensions.parse_dsn(dsn)
    except (psycopg2.Error, UnicodeError, ValueError):
        fields = {"host": "@"}
    if (
        "@" in fields.get("host", "")
        or "@" in fields.get("dbname", "")
        or not re.fullmatch(r"[\d,]*", fields.get("port", ""))
    ):
        raise ConfigurationError(
            "The database's connection string (DSN) is malformed. It is not shown, since it may hold a "
            "password.",
            next_step="Write it as postgres://USER:PASSWORD@HOST:5432/DATABASE. In the password, encode "
            "what is no letter, no digit and none of -._~ (@ is %40, / is %2F, : is %3A).",
        )
    return fields


def masked(dsn: str) -> str:
    """Return a connection string that may be shown: as keywords, its passwords masked."""
    fields = parse(dsn)
    for name in ("password", "sslpassword", "oauth_client_secret"):
        if name in fields:
            fields[name] = MASK
    text: str = extensions.make_dsn(**fields)
    return text


def connection_string(settings: Settings) -> ConnectionString:
    """Return the connection string of the configured database; the local server is started when it is meant.

    :raises ConfigurationError: when none is configured or it is malformed.
    :raises LocalServerError: when the local server does not start.
    """
    if settings.storage_type == "embedded":
        return ConnectionString(local_server(), settings)
    parse(settings.dsn)
    return ConnectionString(settings.dsn, settings)


def local_server() -> str:
    """Return the connection string of the local server, started when it is not running.

    :raises LocalServerError: when it does not start.
    """
    from guvnor.embedded import LocalServer

    server = LocalServer(local_server_home())
    if not server.status().running:
        server.start(tcp=server.status().tcp)  # one that listens otherwise would be restarted
    return server.url()


def local_server_home() -> Path:
    """Return the folder in which the local server of the current directory lives."""
    return Path.cwd() / ".guvnor"


def connect(dsn: str, *, purpose: str = "") -> Connection:
    """Open a connection in autocommit mode whose session is set to what a migration needs.

    The settings are applied with ``SET``: connection poolers refuse them as connection options. A session of
    the configured database acts as its ``storage.role``, and leaves this machine in production over TLS only.

    :param dsn: libpq's connection string; it goes to libpq as it is.
    :param purpose: a word for the application name, by which others recognize the connection.
    :raises ConnectionFailedError: with the reason in plain words (exit code 3).
    :raises RoleError: when the session may not act as that role (exit code 3).
    :raises PlaintextError: when it is refused for the lack of TLS (exit code 3).
    """
    fields = parse(dsn)
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT)
    # A setting of the caller's wins over libpq's fallback.
    name = f"{APPLICATION_NAME} {purpose}".strip()
    try:
        connection: Connection = psycopg2.connect(dsn, fallback_application_name=name, client_encoding="UTF8")
    except psycopg2.Error as error:
        raise connection_errors.explained(str(error), fields) from None
    connection.autocommit = True
    try:
        prepare(connection)
        if isinstance(dsn, ConnectionString):
            _act_as(connection, dsn.settings.role)
            transport.check(connection, dsn.settings)
    except BaseException:
        connection.close()
        raise
    return connection


def _act_as(connection: Connection, role: str) -> None:
    """Act as another role for the rest of the session (PostgreSQL documentation, SET ROLE).

    :param role: its name; ``none`` or empty for the role that logged in.
    """
    if not role:
        return
    try:
        scalar(connection, "SELECT set_config('role', %s, false)", (role,))
    except psycopg2.errors.InvalidParameterValue:
        raise RoleError(
            f"The role {role}, which storage.role names, does not exist.",
            next_step="guvnor migrate roles   # prints the SQL that makes it",
        ) from None
    except psycopg2.errors.InsufficientPrivilege:
        login = connection.info.user
        raise RoleError(
            f"Role {login} may not act as {role}, which storage.role names.",
            next_step=f"GRANT {identifier(connection, role)} TO {identifier(connection, login)};",
        ) from None


def prepare(connection: Connection) -> None:
    """Set a session to what a migration needs; see ``_SESSION``."""
    with connection.cursor() as cursor:
        # Unknown settings (older servers) are passed over by the catalog, so that one statement sets all.
        cursor.execute(
            """
            SELECT set_config(wanted.name, wanted.value, false)
            FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
            JOIN pg_catalog.pg_settings AS known USING (name)
            WHERE known.setting IS DISTINCT FROM wanted.value
              AND (wanted.name <> 'client_connection_check_interval' OR version() !~ 'Visual C|mingw')
            """,
            ([name for name, _ in _SESSION], [value for _, value in _SESSION]),
        )


def identify(connection: Connection) -> Identity:
    """Read which server, database and role a connection reaches."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                current_database(),
                current_user,
                current_setting('server_version_num')::integer,
                current_setting('server_version'),
                (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::bigint,
                CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
                     THEN (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) END,
                pg_is_in_recovery(),
                current_setting('default_transaction_read_only')::boolean
            """
        )
        row = cursor.fetchone()
    assert row is not None
    info = connection.info
    return Identity(info.host or "", info.port, *row)


def pooled(connection: Connection) -> bool:
    """Tell whether a connection pooler stands between: it hands out a process number of its own."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone() or (None,)
    return bool(pid != connection.info.backend_pid)


@contextlib.contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    """Close a connection at the end, whatever state it is in."""
    try:
        yield connection
    finally:
        with contextlib.suppress(psycopg2.Error):
            connection.close()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn an error of the driver that nothing else has explained into one with a next step.

    :raises DatabaseError: instead of the driver's error, or of SQLAlchemy's around it.
    """
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", error)
        if not isinstance(cause, psycopg2.Error):
            raise
        code = cause.pgcode
        if code is None or code in ("57P01", "57P02", "57P03"):
            raise DatabaseError("The connection to the database was lost.") from error
        rights = code in (errorcodes.INSUFFICIENT_PRIVILEGE, errorcodes.READ_ONLY_SQL_TRANSACTION)
        raise DatabaseError(
            f"The server refused: {cause.diag.message_primary} (SQLSTATE {code})",
            next_step="guvnor migrate preflight   # names what is missing" if rights else None,
        ) from error


def wait_for_server(dsn: str, patience: float, *, purpose: str = "") -> Connection:
    """Connect, trying again while the server is starting or cannot be reached.

    :param patience: seconds to go on trying.
    :raises ConnectionFailedError: the last reason, when the time is over; at once when waiting cannot help.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return connect(dsn, purpose=purpose)
        except ConnectionFailedError as error:
            if not error.may_pass or time.monotonic() >= deadline:
                raise
        time.sleep(min(0.25, max(0.0, deadline - time.monotonic())))


def scalar(connection: Connection, sql: str, parameters: Any = None) -> Any:
    """Run a query that gives one value and return it; None when it gives no row."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    return row[0] if row else None


def identifier(connection: Connection, name: str) -> str:
    """Return a name as SQL takes it: in quotes only where it needs them."""
    return str(scalar(connection, "SELECT quote_ident(%s)", (name,)))
