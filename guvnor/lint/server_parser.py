"""A server that reads SQL which lint's own parser does not know yet; nothing of it is run."""

from __future__ import annotations

import contextlib

import psycopg2

from guvnor.errors import GuvnorError
from guvnor.postgres import Connection, connect, primary_message

_TAG = "$guvnor_lint$"


class ServerParser:
    """The parser of a server, such as the scratch server of a review.

    It connects when it is asked for the first time.
    """

    def __init__(self, dsn: str) -> None:
        """Take the connection string of any database of the server; nothing is changed in it."""
        self._dsn = dsn
        self._connection: Connection | None = None
        self._unreachable = False

    @property
    def major(self) -> int | None:
        """The server's major version; None when it cannot be reached."""
        connection = self._connected()
        return connection.server_version // 10_000 if connection else None

    def complaint(self, sql: str) -> str | None:
        """Return what the server says of a text that it does not understand; None when it understands it.

        A DO block is parsed as a whole before it runs, and this one runs nothing (PostgreSQL documentation,
        "PL/pgSQL under the Hood").
        """
        connection = self._connected()
        if connection is None:
            return "the server cannot be reached"
        if _TAG in sql:
            return f"it contains {_TAG}"
        with connection.cursor() as cursor:
            try:
                cursor.execute(
                    f"DO {_TAG} BEGIN IF false THEN {sql.rstrip().rstrip(';')}\n; END IF; END {_TAG}"
                )
            except psycopg2.Error as error:
                return primary_message(error)
        return None

    def close(self) -> None:
        """Leave the server."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> Connection | None:
        if self._connection is None and not self._unreachable:
            self._unreachable = True
            with contextlib.suppress(psycopg2.Error, GuvnorError):
                self._connection = connect(self._dsn, purpose="lint")
                self._unreachable = False
        return self._connection
