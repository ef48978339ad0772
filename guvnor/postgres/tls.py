"""Whether a connection is encrypted, and whether it leaves this machine.

The address at the other end of the socket decides, not the name in the connection string: a Unix socket and
a loopback address are local.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from psycopg2.extensions import connection as Connection  # noqa: N812 - as it is called elsewhere

NOTE = "connection without TLS"  # in the history


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

    Where the socket's address cannot be read, it is the host as libpq knows it.
    """
    try:
        with socket.socket(fileno=os.dup(connection.info.socket)) as copy:
            return "" if copy.family not in (socket.AF_INET, socket.AF_INET6) else str(copy.getpeername()[0])
    except OSError:
        return connection.info.host or ""


def is_plaintext(connection: Connection) -> bool:
    """Tell whether a connection leaves this machine with neither TLS nor GSSAPI encryption."""
    if connection.info.ssl_in_use or is_local(peer(connection)):
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_backend_pid()")
        return cursor.fetchone() != (True,)


def note(connection: Connection) -> str | None:
    """Return the note for the history about an unencrypted connection; None for any other."""
    return f"{NOTE} to {connection.info.host}" if is_plaintext(connection) else None
