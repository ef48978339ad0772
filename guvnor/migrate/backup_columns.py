"""The values of columns that a step drops from tables which remain: how they are saved and put back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guvnor.migrate.backup_file import BackupError
from guvnor.postgres import Connection
from guvnor.schema.snapshot import Object


class NoKeyError(BackupError):
    """The values of a column cannot be saved by key."""

    state = "The database is unchanged."
    next_step = "Take a backup of the whole database instead."


@dataclass(frozen=True)
class Column:
    """A column whose values are saved.

    :ivar table: with its schema, as SQL writes it.
    :ivar name: as SQL writes it.
    :ivar key: the columns of the table's primary key, as SQL writes them.
    :ivar file: the name of the file that holds its values.
    """

    table: str
    name: str
    key: tuple[str, ...]
    file: str

    @property
    def copy(self) -> str:
        """The statement that writes key and values, without rows where there is no value.

        In COPY's text format a line is a row, whatever is in it. In CSV a psql before release 18 takes a line
        ``\\.`` within a value for the end of the file.
        """
        columns = ", ".join((*self.key, self.name))
        return (
            f"COPY (SELECT {columns} FROM {self.table} WHERE {self.name} IS NOT NULL) "
            "TO STDOUT WITH (ENCODING 'UTF8')"
        )


def find(connection: Connection, dropped: Iterable[Object], tables: Sequence[str]) -> list[Column]:
    """Return the columns that go while their tables remain, with how their rows are found again.

    Computed columns are left out: they hold nothing of their own.

    :param dropped: the objects that are gone afterwards.
    :param tables: the tables among them, with their schema.
    :raises NoKeyError: when a table has no primary key that remains.
    """
    names: dict[str, list[str]] = {}
    for item in dropped:
        if item.kind == "column":
            table = f"public.{item.parents[0].partition(':')[2]}"
            if table not in tables:
                names.setdefault(table, []).append(item.name)
    found: list[Column] = []
    for table, columns in names.items():
        stored, key = _columns(connection, table)
        for name in columns:
            if name not in stored:
                continue
            if not key or set(key) & set(columns):
                raise NoKeyError(
                    f"The values of {table}.{name} cannot be saved by key: the table has no primary key that "
                    "remains."
                )
            word = re.sub(r"[^\w.]+", "_", f"{table}.{name}".removeprefix("public."))
            found.append(Column(table, name, key, f"{len(found) + 1}-{word}.txt"))
    return found


def _columns(connection: Connection, table: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the stored columns of a table and those of its primary key; nothing where it is no table."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT
                quote_ident(a.attname),
                a.attgenerated = '',
                (SELECT array_position(i.indkey::int2[], a.attnum)
                 FROM pg_catalog.pg_index AS i
                 WHERE i.indrelid = c.oid AND i.indisprimary) AS place
            FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY place
            """,
            (table,),
        )
        rows = cursor.fetchall()
    return (
        frozenset(name for name, stored, _ in rows if stored),
        tuple(name for name, _, place in rows if place is not None),
    )


_HEAD = r"""-- Puts back the values of dropped columns, by primary key.
-- First bring back the columns, and restore the data of the tables.
-- Run it with psql, in the directory of this file:
--     psql --file=restore.sql "dbname=..."
-- It is one transaction. Rows that are gone by now are passed over; a value written since is replaced.
\set ON_ERROR_STOP on
BEGIN;
-- The application shall not queue behind this. When a table is busy, run it again.
SET LOCAL lock_timeout = '2s';
SET CONSTRAINTS ALL IMMEDIATE;
"""

# A trigger such as the one that stamps the time of the last change is not meant: nobody changes the row.
_COLUMN = r"""
CREATE TEMPORARY TABLE saved ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA;
\copy saved FROM '{file}' WITH (ENCODING 'UTF8')
CREATE TEMPORARY TABLE silenced ON COMMIT DROP AS
SELECT format('%s TRIGGER %I', 'DISABLE', tgname) AS off, format('%s TRIGGER %I', 'ENABLE', tgname) AS "on"
FROM pg_trigger
WHERE tgrelid = {literal}::regclass AND NOT tgisinternal AND tgenabled = 'O';
SELECT 'ALTER TABLE {escaped} ' || off FROM silenced \gexec
UPDATE {table} AS t SET {name} = s.{name} FROM saved AS s WHERE {same};
SELECT 'ALTER TABLE {escaped} ' || "on" FROM silenced \gexec
DROP TABLE saved, silenced;
"""


def restore_script(columns: Sequence[Column]) -> str:
    """Return a script for psql that puts the values back."""
    parts = [_HEAD]
    for column in columns:
        escaped = column.table.replace("'", "''")
        parts.append(
            _COLUMN.format(
                columns=", ".join((*column.key, column.name)),
                table=column.table,
                file=column.file,
                literal=f"'{escaped}'",
                escaped=escaped,
                name=column.name,
                same=" AND ".join(f"t.{key} = s.{key}" for key in column.key),
            )
        )
    return "".join([*parts, "\nCOMMIT;\n"])
