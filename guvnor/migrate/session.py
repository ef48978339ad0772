"""The session that revisions run on."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import sqlalchemy

from guvnor import postgres
from guvnor.migrate import locks


class RevisionSession:
    """SQLAlchemy's connection for Alembic, the driver's connection below it, and the pid of its backend.

    :ivar control_pid: of the backend of the run's other session.
    :ivar max_idle: seconds for which its transaction may be idle.
    """

    def __init__(
        self, connection: sqlalchemy.Connection, control_pid: int, keep: tuple[str, ...] = ()
    ) -> None:
        """Take a new connection, outside of a transaction.

        :param control_pid: of the backend of the run's other session.
        :param keep: names of settings that stay as the server has them.
        """
        self.connection = connection
        self.max_idle = 0.0
        self.control_pid = control_pid
        self._keep = keep
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
        """Make the session as new: nothing of an earlier revision or try is left in it.

        That is settings, temporary tables, prepared statements, cursors, LISTEN and advisory locks
        (PostgreSQL documentation, DISCARD). The locks of the run are on another connection.
        """
        driver = self.driver
        driver.rollback()
        driver.autocommit = True
        with driver.cursor() as cursor:
            cursor.execute("DISCARD ALL")
            # The driver reads no other style, whatever is kept.
            cursor.execute("SET DateStyle TO ISO")
            self.prepare()  # as the role that has logged in, which may set more
            cursor.execute("SELECT set_config('role', %s, false)", (self._role,))
            locks.mark_revision_session(cursor, self.control_pid)
        driver.autocommit = False

    def prepare(self) -> None:
        """Give the session the settings that a revision needs; see :mod:`guvnor.postgres.settings`.

        A runner that is frozen between two statements would hold its locks without limit.
        """
        postgres.prepare(self.driver, self._keep)
        with self.driver.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{round(self.max_idle * 1000)}ms'")

    def roll_back(self) -> None:
        """Roll back whatever is open; nothing happens on a lost connection."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, psycopg2.Error):
            self.connection.rollback()
            if not self.connection.invalidated:
                self.driver.rollback()  # SQLAlchemy does not know a transaction whose begin event failed
                # Otherwise SQLAlchemy would believe that one is still beginning, and announce no other.
                self.connection.begin().rollback()
