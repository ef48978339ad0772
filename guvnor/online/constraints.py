"""What the online operations on constraints do on the server, table by table in a tree of them."""

from __future__ import annotations

import contextlib
import logging
import time

import psycopg2

from guvnor.online import backoff, remedies
from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.postgres import Connection, rows, scalar, transaction
from guvnor.postgres.quoting import quoted, unquoted

log = logging.getLogger(__name__)

_DROP_PATIENCE = 8.0  # seconds
_KNOCK = 0.02  # seconds between two tries that do not wait
_WAIT_EVERY = 25  # tries, of which one waits: a table may never be free, since transactions overlap on it

# The constraints that belong to one of a table, and are those of the tables below it. A check has the name of
# its parent's, a NOT NULL its column, and a foreign key points to it (PostgreSQL documentation,
# "pg_constraint"). The server reads no rows for one that is valid. A foreign table has no rows to read.
_BELOW = """
    WITH RECURSIVE root AS (
        SELECT k.oid, k.conrelid, k.conname, k.contype,
               (SELECT attname FROM pg_catalog.pg_attribute
                WHERE attrelid = k.conrelid AND attnum = k.conkey[1] AND k.contype = 'n') AS column
        FROM pg_catalog.pg_constraint AS k
        WHERE k.conrelid = to_regclass(%s) AND k.conname = %s
    ), tree AS (
        SELECT conrelid AS oid, 0 AS level FROM root
        UNION
        SELECT h.inhrelid, tree.level + 1
        FROM tree JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    ), keys AS (
        SELECT oid FROM root WHERE contype = 'f'
        UNION
        SELECT k.oid FROM keys JOIN pg_catalog.pg_constraint AS k ON k.conparentid = keys.oid
    )
    SELECT c.oid::regclass::text, quote_ident(k.conname)
    FROM (SELECT oid, max(level) AS level FROM tree GROUP BY oid) AS tree
    CROSS JOIN root
    JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid AND c.relkind = 'r'
        AND NOT pg_is_other_temp_schema(c.relnamespace)
    JOIN pg_catalog.pg_constraint AS k ON k.conrelid = c.oid AND k.contype = root.contype
        AND NOT k.convalidated
    WHERE tree.level > 0 AND CASE root.contype
        WHEN 'f' THEN k.oid IN (SELECT oid FROM keys)
        WHEN 'n' THEN EXISTS (SELECT FROM pg_catalog.pg_attribute
                              WHERE attrelid = k.conrelid AND attnum = k.conkey[1] AND attname = root.column)
        ELSE k.conname = root.conname END
    ORDER BY tree.level DESC, c.relname, c.oid
"""


def validate_constraint(step: OnlineStep, table: str, name: str) -> None:
    """Validate a constraint when it is not valid yet: that of each table below first, one by one.

    The server would hold its locks on all of them until it has read the last one.

    :param table: as SQL writes it.
    :raises OnlineStepError: when there is no such constraint.
    """
    valid = constraint_is_valid(step.connection, table, name)
    if valid is None:
        raise OnlineStepError(f"Table {unquoted(table)} has no constraint {name} to validate.")
    if valid:
        return
    try:
        for below, constraint in rows(step.connection, _BELOW, (table, name)):
            with contextlib.suppress(psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedObject):
                step.execute(f"ALTER TABLE {below} VALIDATE CONSTRAINT {constraint}")
        step.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(name)}")
    except psycopg2.Error as error:
        remedies.note_constraint(step.connection, table, name, error)
        raise


def check_not_null(step: OnlineStep, table: str, name: str) -> None:
    """Validate the check that a column holds no NULL; drop it when that fails, since it would refuse rows.

    :param table: as SQL writes it.
    """
    try:
        validate_constraint(step, table, name)
    except psycopg2.errors.CheckViolation:
        drop_constraint(step, table, name)
        raise


def drop_constraint(step: OnlineStep, table: str, name: str) -> None:
    """Drop a constraint that could not be validated, so that it refuses no row from now on.

    The statement takes ACCESS EXCLUSIVE, so most tries do not wait for it, and nobody queues behind them; if
    all fail, the next run drops the constraint.

    :param table: as SQL writes it.
    """
    deadline, tries = time.monotonic() + _DROP_PATIENCE, 0
    while time.monotonic() < deadline:
        wait = tries % _WAIT_EVERY == _WAIT_EVERY - 1
        try:
            with transaction(step.connection) as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{backoff.SHORTEST * 1000:.0f}ms'")
                nowait = "" if wait else " NOWAIT"
                cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE{nowait}")
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quoted(name)}")
            return
        except psycopg2.errors.LockNotAvailable:
            tries += 1
            time.sleep(_KNOCK)
    log.warning("a constraint that was not validated remains", extra={"table": table, "constraint": name})


def is_not_null(connection: Connection, table: str, column: str) -> bool:
    """Tell whether a column is NOT NULL.

    :param table: as SQL writes it.
    """
    sql = "SELECT attnotnull FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s"
    return bool(scalar(connection, sql, (table, column)))


def partitions_not_null(connection: Connection, table: str, column: str) -> list[str]:
    """Return the partitions, at any depth, in which a column is NOT NULL and no part of a primary key.

    :param table: as SQL writes it.
    """
    sql = """
        SELECT c.oid::regclass::text
        FROM pg_partition_tree(to_regclass(%s)) AS tree
        JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid AND tree.level > 0
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = %s AND a.attnotnull
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i
                          WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey))
        ORDER BY tree.level, c.relname
    """
    return [name for (name,) in rows(connection, sql, (table, column))]


def constraint_is_valid(connection: Connection, table: str, name: str) -> bool | None:
    """Tell whether a table's constraint is valid; None when there is none.

    :param table: as SQL writes it.
    """
    valid: bool | None = scalar(
        connection,
        "SELECT convalidated FROM pg_catalog.pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
        (table, name),
    )
    return valid
