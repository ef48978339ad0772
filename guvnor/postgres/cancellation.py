"""Cancelling a statement, without waiting for a server that does not answer; cutting a connection.

psycopg2 holds Python's global lock while libpq sends a cancellation on a connection of its own: a server that
cannot be reached would stop every thread. So the server is asked first whether it answers, with a time limit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - as it is called elsewhere

_TIMEOUT = 1.0  # seconds
# Every server answers it with one byte (PostgreSQL documentation, "Message Formats", SSLRequest).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def cancel(connection: Connection) -> None:
    """Cancel the statement that runs on a connection; nothing happens where none does, or nobody answers."""
    with contextlib.suppress(psycopg2.Error, OSError):
        if _server_answers(connection):
            connection.cancel()


def cut(connection: Connection) -> None:
    """Cut a connection, so that nothing waits for its server any more, and the server rolls back."""
    with (
        contextlib.suppress(psycopg2.Error, OSError),
        socket.socket(fileno=os.dup(connection.info.socket)) as copy,
    ):
        copy.shutdown(socket.SHUT_RDWR)


def _server_answers(connection: Connection) -> bool:
    with socket.socket(fileno=os.dup(connection.info.socket)) as opened:
        family, address = opened.family, opened.getpeername()
    with socket.socket(family) as question:
        question.settimeout(_TIMEOUT)
        question.connect(address)
        question.sendall(_SSL_REQUEST)
        return bool(question.recv(1))
