"""The session that revisions run on."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import sqlalchemy

from guvnor import postgres


class RevisionSession:
    """SQLAlchemy's connection for Alembic, the driver's connection below it, and the pid of its backend."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        """Take a new connection, outside of a transaction."""
        self.connection = connection
        pid, self._role = connection.exec_driver_sql("SELECT pg_backend_pid(), current_setting('role')").one()
        self.pid = int(pid)
        connection.rollback()

    @property
    def driver(self) -> Any:
        """The driver's connection."""
        return self.connection.connection.dbapi_connection

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return bool(self.connection.closed or self.connection.invalidated or self.driver.closed)

    @property
    def outside(self) -> bool:
        """Whether statements are committed at once: the revision has left its transaction."""
        return bool(self.driver.autocommit)

    def reset(self) -> None:
        """Reset the session's settings: an earlier revision or try may have changed them."""
        driver = self.driver
        driver.rollback()
        driver.autocommit = True
        with driver.cursor() as cursor:
            # DateStyle is the driver's own choice, made when it connected.
            cursor.execute(
                "RESET ALL; SET DateStyle TO ISO; SELECT set_config('role', %s, false)", (self._role,)
            )
        postgres.prepare(driver)
        driver.autocommit = False

    def roll_back(self) -> None:
        """Roll back whatever is open; nothing happens on a lost connection."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, psycopg2.Error):
            self.connection.rollback()
            if not self.connection.invalidated:
                self.driver.rollback()  # SQLAlchemy does not know a transaction whose begin event failed
                # Otherwise SQLAlchemy would believe that one is still beginning, and announce no other.
                self.connection.begin().rollback()
