"""Whether a connection is encrypted, and whether it leaves this machine.

What counts is the address at the other end of the socket, not the name in the connection string: a Unix
socket and a loopback address are local.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from psycopg2.extensions import connection as Connection  # noqa: N812 - its name everywhere else

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
