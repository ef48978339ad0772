"""PostgreSQL as a client sees it: connections, their settings, and queries."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import closing as closing
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errorcodes, extensions

from guvnor import __version__
from guvnor.config import MASK
from guvnor.errors import ConfigurationError, ExitCode, GuvnorError
from guvnor.postgres.errors import connection_failed
from guvnor.postgres.settings import READ_ONLY, SCHEMA as SCHEMA, prepare as prepare
from guvnor.postgres.transient import SERVER_GONE

Connection = extensions.connection

# The scheme of a URL; what stands before a password has an @ behind it.
_SCHEME = re.compile(r"((?:jdbc:)?[a-z][a-z0-9+.-]{1,30})://", re.IGNORECASE)
_LONGEST_TIMEOUT = 2**31 - 1  # ms

APPLICATION_NAME = f"guvnor {__version__}"
# For a server that does not answer (PostgreSQL documentation, "Parameter Key Words").
_KEEPALIVES = {
    "keepalives_idle": 10,  # s
    "keepalives_interval": 5,  # s
    "keepalives_count": 4,
    "tcp_user_timeout": 30000,  # ms
}


class DatabaseError(GuvnorError):
    """The database can no longer be used."""

    state = "No revision was being run at that moment; finished revisions stay applied."
    next_step = "guvnor migrate status"


class LockedOutError(DatabaseError):
    """A table that this command needs is locked by another session, and was not free in time."""

    exit_code = ExitCode.LOCKED
    next_step = (
        "SELECT pid, relation::regclass, mode FROM pg_locks\n"
        "WHERE granted AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid();   -- who has locked what"
    )


@dataclass(frozen=True)
class Identity:
    """Which database a connection reaches, for people and for the plan's hash.

    :ivar oid: the OID of the database.
    :ivar system_identifier: the identifier of the cluster; None where the role may not read it.
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
    def place(self) -> dict[str, str | int]:
        """Where the database is, and as whom it is used: fields for a record."""
        return {"host": self.host, "port": self.port, "database": self.database, "role": self.role}

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.server_version // 10000


def parse(dsn: str) -> dict[str, str]:
    """Let libpq take a connection string apart.

    When a password in a URL has unescaped special characters, libpq may read a part of it as another field,
    and quotes that field in its messages. So a string with an impossible field is refused here.

    :raises ConfigurationError: when the string is empty or malformed; the message quotes none of it.
    """
    if not dsn.strip():
        raise ConfigurationError(
            "The database's connection string (DSN) is empty.",
            next_step="export GUVNOR_STORAGE_DSN='postgres://USER:PASSWORD@HOST:5432/DATABASE'\n"
            "export GUVNOR_STORAGE_TYPE=embedded   # or use the local development server",
        )
    if (other := _SCHEME.match(dsn.strip())) and other[1].lower() not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"The database's connection string (DSN) begins with {other[1]}://, and only databases of "
            "PostgreSQL can be migrated.",
            next_step="Write it as postgres://USER:PASSWORD@HOST:5432/DATABASE.",
        )
    try:
        fields: dict[str, str] = extensions.parse_dsn(dsn)
    except (psycopg2.Error, UnicodeError, ValueError):
        fields = {"host": "@"}
    names = fields.get("host", "") + fields.get("dbname", "")
    if "@" in names or not re.fullmatch(r"[\d,]*", fields.get("port", "")):
        raise ConfigurationError(
            "The database's connection string (DSN) is malformed. It is not shown, since it may hold a "
            "password.",
            next_step="Write it as postgres://USER:PASSWORD@HOST:5432/DATABASE. In the password, encode "
            "everything but letters, digits and -._~ (@ is %40, / is %2F, : is %3A).",
        )
    return fields


def masked(dsn: str) -> str:
    """Return a connection string as keywords, with its passwords masked."""
    fields = parse(dsn)
    for name in ("password", "sslpassword", "oauth_client_secret"):
        if name in fields:
            fields[name] = MASK
    text: str = extensions.make_dsn(**fields)
    return text


def connect(
    dsn: str, *, purpose: str = "", max_wait: float | None = None, keep: tuple[str, ...] = ()
) -> Connection:
    """Open a connection in autocommit mode whose session has the settings that a migration needs.

    A query applies the settings, since connection poolers refuse them as connection options.

    :param dsn: libpq's connection string, passed on unchanged.
    :param purpose: a word for the application name, by which others recognize the connection.
    :param max_wait: seconds that a statement waits for a lock at most; None for no limit.
    :param keep: names of settings that stay as the server, the database and the role have them.
    :raises ConfigurationError: when the connection string is empty or malformed (exit code 2).
    :raises ConnectionFailedError: with the reason in plain words (exit code 3).
    """
    fields = parse(dsn)
    # libpq waits for ever by default, and a connect that waits cannot be interrupted.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    # An application name that the user has set wins over the fallback.
    name = f"{APPLICATION_NAME} {purpose}".strip()
    keepalives: dict[str, Any] = {key: value for key, value in _KEEPALIVES.items() if key not in fields}
    try:
        connection: Connection = psycopg2.connect(
            dsn, fallback_application_name=name, client_encoding="UTF8", **keepalives
        )
    except psycopg2.Error as error:
        raise connection_failed(str(error), fields) from None
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            # Where serializable is the default, a standby refuses every query (PostgreSQL documentation, "Hot
            # Standby"), that of `prepare` as well; SET is no query.
            cursor.execute("SET default_transaction_isolation = 'read committed'")
        prepare(connection, (*keep, READ_ONLY))  # pre-flight refuses one that is read-only
        if max_wait is not None:
            set_lock_timeout(connection, max_wait)
    except BaseException:
        connection.close()
        raise
    return connection


def primary_message(error: BaseException) -> str:
    """Return what the server says of an error, without its details; of any other error, what it says."""
    said = getattr(getattr(error, "diag", None), "message_primary", None)
    return str(said or error).strip()


def set_lock_timeout(connection: Connection, seconds: float) -> None:
    """Limit how long each statement of a session waits for a lock; less than a millisecond counts as one."""
    milliseconds = max(1, min(round(seconds * 1000), _LONGEST_TIMEOUT))
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {milliseconds}")


def identify(connection: Connection) -> Identity:
    """Read which server, database and role a connection reaches."""
    sql = """
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
    (found,) = rows(connection, sql)
    return Identity(connection.info.host or "", connection.info.port, *found)


@contextlib.contextmanager
def snapshot(connection: Connection, lock_timeout: str = "") -> Iterator[extensions.cursor]:
    """Let all queries of the body see the database at the same moment, and write nothing.

    :param connection: in autocommit mode.
    :param lock_timeout: in PostgreSQL's notation; that of the session when left out.
    """
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    with connection.cursor() as cursor:
        cursor.execute(f"{begin}; SET LOCAL lock_timeout = '{lock_timeout}'" if lock_timeout else begin)
        try:
            yield cursor
        finally:
            if not connection.closed:
                with contextlib.suppress(psycopg2.Error):
                    cursor.execute("ROLLBACK")


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[extensions.cursor]:
    """Run the body in one transaction, on a connection in autocommit mode."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("BEGIN")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg2.Error):
                cursor.execute("ROLLBACK")
            raise


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
        if code is None or code in SERVER_GONE:
            raise DatabaseError("The connection to the database was lost.") from error
        if code == errorcodes.LOCK_NOT_AVAILABLE:
            raise LockedOutError from error
        rights = code in (errorcodes.INSUFFICIENT_PRIVILEGE, errorcodes.READ_ONLY_SQL_TRANSACTION)
        raise DatabaseError(
            f"The server refused: {cause.diag.message_primary} (SQLSTATE {code})",
            next_step="guvnor migrate preflight   # names what is missing" if rights else None,
        ) from error


def scalar(connection: Connection, sql: str, parameters: Any = None) -> Any:
    """Run a query that returns one value; None when it returns no row."""
    found = row(connection, sql, parameters)
    return found[0] if found else None


def row(connection: Connection, sql: str, parameters: Any = None) -> tuple[Any, ...] | None:
    """Run a query and return its first row; None when there is none."""
    found = rows(connection, sql, parameters)
    return found[0] if found else None


def rows(connection: Connection, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Run a query and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def quote_ident(connection: Connection, name: str) -> str:
    """Return a name as SQL takes it, in quotes where the server finds them necessary."""
    return str(scalar(connection, "SELECT quote_ident(%s)", (name,)))
