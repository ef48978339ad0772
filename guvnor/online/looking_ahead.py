"""Looking ahead: a table that an online operation cannot work on is found before anything is committed.

A later operation of a revision would find it when those before it are done, and leave the revision half done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psycopg2

from guvnor.online import index_statement, partitions
from guvnor.online.kept_statement import Kept
from guvnor.online.plain_forms import Backfill, Index, TableConstraint
from guvnor.postgres import Connection

_NO_INDEX, _NO_KEY = "No index can be built on it.", "No key can be added to it."


def check(connection: Connection, statements: Iterable[str]) -> None:
    """Check the tables of a revision's operations that are there already.

    :param connection: in the revision's transaction, to which nothing happens.
    :param statements: of the revision, with the plain forms of its operations.
    :raises OnlineStepError: that names a table on which an operation cannot work.
    """
    for statement in statements:
        if isinstance(statement, Backfill | Kept):
            if partitions.members(connection, statement.table):
                partitions.with_rows(connection, statement.table)
        elif isinstance(statement, TableConstraint):
            if partitions.members(connection, statement.table):
                partitions.with_partitions(connection, statement.table, _NO_KEY)
        elif isinstance(statement, Index):
            with connection.cursor() as cursor:
                cursor.execute("SAVEPOINT guvnor_ahead")
                target = None
                with contextlib.suppress(psycopg2.Error):  # what it names may be made only by then
                    target = index_statement.target(connection, statement.name, statement)
                cursor.execute("ROLLBACK TO SAVEPOINT guvnor_ahead; RELEASE SAVEPOINT guvnor_ahead")
            if target is not None:
                partitions.with_partitions(connection, target.table, _NO_INDEX)
