"""The data that a plan would lose: rows of the tables, and values of the columns, that it drops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes

from guvnor.postgres import Connection, scalar, snapshot
from guvnor.schema.snapshot import Object

_PATIENCE = "3s"  # for counting one table; after that the estimate is taken


@dataclass(frozen=True)
class Loss:
    """Data that a plan drops.

    :ivar kind: ``table`` or ``column``.
    :ivar name: as SQL writes it, with its table before a column.
    :ivar count: rows of a table, values that are not NULL of a column; None where they could not be counted
        and the planner has no estimate: row security hides them, or counting takes too long.
    :ivar exact: whether it was counted; otherwise it is the planner's estimate.
    """

    kind: str
    name: str
    count: int | None
    exact: bool

    def __str__(self) -> str:
        """Describe the loss in one phrase."""
        if self.count is None:
            return f"{self.kind} {self.name}, which could not be counted"
        unit = ("row" if self.kind == "table" else "value") + ("" if self.count == 1 else "s")
        return f"{self.kind} {self.name} with {'' if self.exact else 'about '}{self.count:,} {unit}"


def read(connection: Connection, dropped: Sequence[Object]) -> tuple[Loss, ...]:
    """Count what is in the tables and columns that a plan drops and that the live database has.

    :param connection: in autocommit mode.
    :param dropped: the objects that are gone after the plan.
    """
    tables = [item.identity for item in dropped if item.kind in ("table", "materialized view")]
    gone = {f"relation:{table}" for table in tables}
    columns = [item for item in dropped if item.kind == "column" and item.parents[0] not in gone]
    losses = [_count(connection, table) for table in tables]
    losses += [_count(connection, item.parents[0].partition(":")[2], item.name) for item in columns]
    return tuple(loss for loss in losses if loss is not None)


def _count(connection: Connection, table: str, column: str | None = None) -> Loss | None:
    """Count the rows of a table or the values of a column; use the planner's estimate if that takes too long.

    :returns: None when the table or column does not exist.
    """
    kind, name = ("column", f"{table}.{column}") if column else ("table", table)
    try:
        with snapshot(connection, "100ms") as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}'")
            # Identity and name come from the server, quoted where necessary.
            count = scalar(connection, f"SELECT count({column or '*'}) FROM public.{table}")
            return Loss(kind, name, count, exact=True)
    except psycopg2.Error as error:
        if error.pgcode in (errorcodes.UNDEFINED_TABLE, errorcodes.UNDEFINED_COLUMN):
            return None
    sql = """
        SELECT greatest(c.reltuples, 0)
               * (1 - COALESCE((SELECT s.null_frac FROM pg_catalog.pg_stats AS s
                                WHERE s.schemaname = 'public' AND s.tablename = c.relname
                                  AND quote_ident(s.attname) = %s), 0))
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = to_regclass(%s)
    """
    estimate = scalar(connection, sql, (column, f"public.{table}"))
    # The estimate for a table that was never analyzed is 0.
    return Loss(kind, name, round(estimate or 0) or None, exact=False)
