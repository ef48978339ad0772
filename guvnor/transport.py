"""Is a connection encrypted, and is the server at its end the one that was meant?

In production a connection without TLS to another machine is refused. What counts is the address at the other
end of the socket, not the name in the connection string: a Unix socket and a loopback address are local.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import socket
from typing import TYPE_CHECKING

import psycopg2

from guvnor.config import Settings
from guvnor.errors import PreflightError

if TYPE_CHECKING:
    from guvnor.postgres import Connection

log = logging.getLogger(__name__)

NOTE = "connection without TLS"  # in the history


class PlaintextError(PreflightError):
    """Refused: a connection to a production database is not encrypted."""

    state = "Nothing was changed."


def is_local(address: str) -> bool:
    """Tell whether an address is this machine's own.

    :param address: an IP address; empty, or a path, for a Unix socket.
    """
    if not address or address.startswith(("/", "@")):
        return True
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(number, "ipv4_mapped", None)
        return (mapped or number).is_loopback
    return False


def peer(connection: Connection) -> str:
    """Return the address at the other end of a connection; empty for a Unix socket.

    Where the socket cannot be asked, it is the host as libpq knows it.
    """
    try:
        with socket.socket(fileno=os.dup(connection.info.socket)) as copy:
            return "" if copy.family not in (socket.AF_INET, socket.AF_INET6) else str(copy.getpeername()[0])
    except OSError:
        return connection.info.host or ""


def is_plaintext(connection: Connection) -> bool:
    """Tell whether others on the network can read along: neither TLS nor GSSAPI, and not this machine."""
    if connection.info.ssl_in_use or is_local(peer(connection)):
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_backend_pid()")
        return cursor.fetchone() != (True,)


def note(connection: Connection) -> str | None:
    """Return what the history notes of a connection; None where there is nothing to note."""
    return f"{NOTE} to {connection.info.host}" if is_plaintext(connection) else None


def check(connection: Connection, settings: Settings) -> None:
    """Refuse a connection to a production database that others can read along, unless that is allowed.

    :raises PlaintextError: when it is refused (exit code 3).
    """
    if not is_plaintext(connection):
        return
    host = connection.info.host
    if settings.allow_plaintext:
        _put_on_record(host)
        return
    why = _production(connection, settings)
    if why is not None:
        raise PlaintextError(
            f"Refused: the connection to {host} is not encrypted, and this is production ({why}).",
            next_step="Add sslmode=verify-full (and sslrootcert=FILE) to the connection string.\n"
            "Or repeat the command with --allow-plaintext (GUVNOR_ALLOW_PLAINTEXT=yes, plain alembic: "
            "-x allow_plaintext=yes), which is put on record.",
        )


def warnings(connection: Connection, settings: Settings) -> tuple[str, ...]:
    """Return what is worth knowing of a connection that was let through."""
    host = connection.info.host
    if is_plaintext(connection):
        return (
            f"the connection to {host} is not encrypted: add sslmode=verify-full to the connection string",
        )
    mode = connection.info.dsn_parameters.get("sslmode")
    unverified = connection.info.ssl_in_use and mode != "verify-full"
    if settings.production and unverified and not is_local(peer(connection)):
        why = f"with sslmode={mode} it is not verified that the server is {host}"
        return (f"the connection is encrypted, but {why}: use sslmode=verify-full",)
    return ()


def _production(connection: Connection, settings: Settings) -> str | None:
    """Say why this is production, as the settings or the database's own mark say it."""
    from guvnor.migrate import history  # it stands on connections itself

    if settings.production:
        return f"GUVNOR_ENV is {settings.environment}"
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
        if history.exists(connection) and (mark := history.production_mark(connection)):
            return f"the database was marked as production {mark.at:%Y-%m-%d} by {mark.who}"
    return None


@functools.cache  # a run has several connections
def _put_on_record(host: str) -> None:
    log.warning(f"{NOTE}, let through by allow_plaintext", extra={"host": host})
