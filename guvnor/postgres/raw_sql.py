"""Alembic's PostgreSQL, with text run as it is written.

Alembic's own ``op.execute(str)`` passes text through SQLAlchemy's ``text()``, which takes ``:noon`` for a
parameter, and offline it turns tabs into blanks, within literals, too. Importing this module registers the
class in its place (Alembic documentation, "DDL Internals": ``__dialect__``). ``op.execute(text(...))`` still
takes parameters, and the other operations are Alembic's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import Executable
from sqlalchemy.schema import DDLElement

from guvnor.postgres.escaped_colons import unescaped


class RawPostgresqlImpl(PostgresqlImpl):
    """Alembic's PostgreSQL, which hands text to the driver, or to the script, byte for byte."""

    __dialect__ = "postgresql"

    def execute(self, sql: Executable | str, execution_options: dict[str, Any] | None = None) -> None:
        """Run text as it stands, except for the escaped colons of an old revision; the rest is Alembic's.

        See :mod:`guvnor.postgres.escaped_colons`. Into a script, a construct is written with its tabs, too.
        """
        if isinstance(sql, str):
            self.execute_text(unescaped(sql), execution_options)
        elif self.as_sql:
            construct: Any = sql
            literal = self.literal_binds and not isinstance(sql, DDLElement)
            options = {"compile_kwargs": {"literal_binds": True}} if literal else {}
            self.execute_text(str(construct.compile(dialect=self.dialect, **options)))
        else:
            super().execute(sql, execution_options)

    def execute_text(self, sql: str, execution_options: Mapping[str, Any] | None = None) -> None:
        """Run text as it stands."""
        if self.as_sql:
            self.static_output(terminated(sql, self.command_terminator))
            return
        assert self.connection is not None
        # Without parameters, the driver leaves percent signs alone.
        options = {**(execution_options or {}), "no_parameters": True}
        self.connection.exec_driver_sql(sql, execution_options=options)


def terminated(sql: str, terminator: str = ";") -> str:
    """Return a statement with its terminator, on a line of its own where a comment could swallow it."""
    last = sql[sql.rfind("\n") + 1 :]
    return f"{sql}\n{terminator}" if "--" in last else f"{sql}{terminator}"


def sent(statement: str, context: Any) -> str:
    """Return a statement of SQLAlchemy as the server gets it: the driver takes ``%%`` for a percent sign.

    :param context: SQLAlchemy's execution context.
    """
    return statement if context.no_parameters else statement.replace("%%", "%")
