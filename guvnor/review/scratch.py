"""A scratch database for a review, which drops it at the end; if it is killed, the next review does."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator

import psycopg2
from psycopg2 import extensions

from guvnor.errors import GuvnorError, PreflightError
from guvnor.postgres import Connection, closing, connect, primary_message, quote_ident

log = logging.getLogger(__name__)

# A hexadecimal number follows; the review that uses the database holds an advisory lock on it.
_PREFIX = "guvnor_review_"


@contextlib.contextmanager
def database(dsn: str) -> Iterator[str]:
    """Create an empty database, and drop it at the end.

    :param dsn: the connection string of any database of the server, with a role that may create databases.
    :returns: the connection string of the new database.
    :raises PreflightError: when the role may not create databases.
    """
    token = secrets.token_hex(8)
    name = f"{_PREFIX}{token}"
    with closing(connect(dsn, purpose="review")) as admin:
        _drop_abandoned(admin)
        try:
            with admin.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(('x' || %s)::bit(64)::bigint)", (token,))
                cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        except psycopg2.errors.InsufficientPrivilege:
            role = quote_ident(admin, admin.info.user)
            raise PreflightError(
                f"Role {role} may not create a scratch database on the server of GUVNOR_SHADOW_DSN.",
                next_step=f"ALTER ROLE {role} CREATEDB;   -- or unset GUVNOR_SHADOW_DSN: local server",
            ) from None
        try:
            yield extensions.make_dsn(dsn, dbname=name)
        finally:
            try:
                # A new connection, because the first one may have been lost meanwhile.
                with closing(connect(dsn, purpose="review")) as other:
                    drop(other, name)
            except (psycopg2.Error, GuvnorError) as error:  # not the verdict of any check
                _warn(name, error)


def drop(connection: Connection, name: str) -> None:
    """Drop a scratch database.

    A plain DROP DATABASE ends autovacuum workers by itself, and waits up to 5 s for other sessions to leave.
    WITH (FORCE), which ends those, refuses to where one of them is an autovacuum worker, unless the role is a
    superuser. So it comes second, and once more the plain one last.

    :param connection: in autocommit mode, to another database of the server.
    :raises psycopg2.Error: when the database could not be dropped.
    """
    with connection.cursor() as cursor:
        with contextlib.suppress(psycopg2.errors.ObjectInUse):
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
            return
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ObjectInUse):
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            return
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")


def _warn(name: str, error: Exception) -> None:
    reason = primary_message(error)
    log.warning(f"The scratch database {name} was not dropped; the next review tries again. {reason}")


def _drop_abandoned(connection: Connection) -> None:
    """Drop the databases of reviews whose session has ended and thereby released its lock.

    The lock is looked up instead of tried, because an advisory lock belongs to one database, and that session
    may be connected to another one. PostgreSQL's documentation of pg_locks says how it shows a key.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT datname FROM pg_catalog.pg_database
            WHERE datname ~ %s AND pg_has_role(datdba, 'USAGE')
              AND NOT EXISTS (
                  SELECT FROM pg_catalog.pg_locks
                  WHERE locktype = 'advisory' AND objsubid = 1
                    AND (classid::bigint << 32 | objid::bigint) = ('x' || right(datname, 16))::bit(64)::bigint
              )
            """,
            (f"^{_PREFIX}[0-9a-f]{{16}}$",),
        )
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        try:
            drop(connection, name)
        except psycopg2.Error as error:
            _warn(name, error)
