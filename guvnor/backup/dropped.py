"""The data that a rollback loses, written as a script that puts it back; see :mod:`guvnor.backup.script`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import psycopg2

from guvnor.backup.file import BackupError
from guvnor.backup.script import HEAD, PART, BackupPart
from guvnor.postgres import Connection, rows
from guvnor.postgres.quoting import constant
from guvnor.schema.snapshot import Object

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# The text of a value depends on these, so they are the same when it is read and when it is put back.
_SETTINGS = """\
SET LOCAL search_path = public;
SET LOCAL row_security = off;  -- an error instead of rows that a policy hides
SET LOCAL datestyle = 'ISO';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 3;
SET LOCAL xmloption = 'content';
"""

# A restore must not fire triggers, such as one that stamps the time of the last change.
_HEAD = (
    HEAD
    + r"""
-- First make the tables and columns again with `guvnor migrate up`, then: guvnor restore FILE
-- Without guvnor, psql runs this, while the application is stopped: one transaction, which has succeeded
-- when psql prints COMMIT. Values that were written since are replaced then.
\set ON_ERROR_STOP on
\encoding UTF8
BEGIN;
SET LOCAL lock_timeout = '2s';  -- the application must not queue behind this: run it again
{settings}SET CONSTRAINTS ALL DEFERRED;
CREATE TEMPORARY TABLE silenced ON COMMIT DROP AS
SELECT tgrelid::regclass AS "table", tgname AS name
FROM pg_trigger WHERE tgrelid IN ({tables}) AND NOT tgisinternal AND tgenabled = 'O';
SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', "table", name) FROM silenced \gexec

"""
)

_TAIL = r"""
SET CONSTRAINTS ALL IMMEDIATE;
SELECT format('ALTER TABLE %s ENABLE TRIGGER %I', "table", name) FROM silenced \gexec
COMMIT;
"""

# Names are as SQL writes them, those of relations with their schema.
_RELATIONS = """
WITH wanted AS (
    SELECT c.oid FROM unnest(%s::text[]) AS name JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(name)
)
SELECT
    c.oid::bigint,
    format('%%I.%%I', n.nspname, c.relname),
    c.relkind,
    ARRAY(SELECT quote_ident(attname) FROM pg_catalog.pg_attribute
          WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
          ORDER BY attnum),
    ARRAY(SELECT quote_ident(a.attname)
          FROM pg_catalog.pg_index AS i
          CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
          WHERE i.indrelid = c.oid AND i.indisprimary
          ORDER BY k.place),
    ARRAY(SELECT confrelid::bigint FROM pg_catalog.pg_constraint
          WHERE contype = 'f' AND conrelid = c.oid AND confrelid <> c.oid),
    c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (c.oid IN (TABLE wanted)
       AND NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) AS ancestor
                       WHERE ancestor <> c.oid AND ancestor IN (TABLE wanted)))
   OR (c.relkind = 'S'
       AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                   WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                     AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN (TABLE wanted)))
ORDER BY c.oid
"""


class NotSeparableError(BackupError):
    """What is dropped cannot be backed up by itself."""

    state = "The database is unchanged."
    next_step = "Take a backup of the whole database instead."


@dataclass(frozen=True)
class _Relation:
    """A relation of the live database.

    :ivar kind: as pg_class has it.
    :ivar columns: those that are stored; generated columns are not.
    :ivar key: the columns of the primary key.
    :ivar parents: the tables that its foreign keys refer to.
    :ivar inherited: whether other tables, which are no partitions, inherit from it.
    """

    oid: int
    name: str
    kind: str
    columns: list[str]
    key: list[str]
    parents: list[int]
    inherited: bool


@dataclass(frozen=True)
class DroppedData:
    """The rows of a table, the values of a column of a table that remains, or the state of a sequence.

    :ivar name: as SQL writes it, with its schema.
    :ivar table: the table that it is put back into; None for a sequence or a materialized view.
    :ivar part: what ``guvnor restore`` is told of it.
    :ivar source: what it is selected from.
    :ivar statement: puts the data back from the temporary table ``saved``; empty for the rows of a table that
        is gone.
    """

    name: str
    table: str | None
    part: BackupPart
    source: str = ""
    statement: str = ""

    @property
    def columns(self) -> str:
        """What is saved; empty for a materialized view, which is refreshed instead."""
        return ", ".join(self.part.columns)


def find_dropped(connection: Connection, objects: Sequence[Object]) -> list[DroppedData]:
    """Find the data that is lost with some objects; objects that the live database lacks are skipped.

    :param objects: see :func:`guvnor.backup.losses.objects`.

    :returns: tables first, in an order in which foreign keys hold.
    :raises NotSeparableError: when a column's table has no primary key that remains, when the rows that were
        deleted cannot be told from those that were not, or when tables refer to each other in a circle.
    """
    stored = ("table", "materialized view", "sequence")
    gone = [f"public.{item.identity}" for item in objects if item.kind in stored]
    emptied = {f"public.{item.identity}": how for item in objects if (how := item.attributes.get("emptied"))}
    dropped: dict[str, list[str]] = {}
    for item in objects:
        table = f"public.{item.parents[0].partition(':')[2]}" if item.kind == "column" else ""
        # Of a table that is emptied some rows may remain, and they lose the values of the column.
        if table and (table not in gone or table in emptied):
            dropped.setdefault(table, []).append(item.name)
    said = {f"public.{item.identity}": item.attributes for item in objects}
    relations = _read_relations(connection, gone)
    found = []
    for relation in _sorted([relation for relation in relations if relation.kind in ("r", "p")]):
        # The rows of partitions are the table's own, those of tables that inherit from it are not.
        source = relation.name if relation.kind == "p" else f"ONLY {relation.name}"
        columns = ", ".join(relation.columns)
        put_back = ""
        if how := emptied.get(relation.name):  # the table is still there, and may hold some of the rows
            _check_separable(relation, how)
            put_back = (
                f"INSERT INTO {relation.name} ({columns}) OVERRIDING SYSTEM VALUE "
                f"SELECT {columns} FROM saved ON CONFLICT DO NOTHING"
            )
        name, made_by = relation.name, tuple(said[relation.name].get("revisions", ()))
        part = BackupPart("rows", name, name, tuple(relation.columns), tuple(relation.key), made_by)
        found.append(DroppedData(name, name, part, source, put_back))
    for relation in _read_relations(connection, list(dropped)):
        if relation.kind in ("r", "p"):
            found += _values(relation, dropped[relation.name], said)
    for relation in relations:
        name = relation.name
        if relation.kind == "S":
            part = BackupPart("sequence", name, name, ("last_value", "is_called"))
            found.append(DroppedData(name, None, part, name, setval(name)))
        if relation.kind == "m":
            part = BackupPart("view", name, name)
            found.append(DroppedData(name, None, part, statement=f"REFRESH MATERIALIZED VIEW {name}"))
    return found


def write_script(connection: Connection, dropped: Sequence[DroppedData], file: SupportsWrite[bytes]) -> None:
    """Write the script that puts the data back.

    The data is in COPY's text format: each row is one line, whatever it contains. The number of rows follows.

    :param connection: in a transaction that reads one snapshot.
    :raises BackupError: when the data cannot be read.
    """
    tables = dict.fromkeys(f"{constant(data.table)}::regclass" for data in dropped if data.table)
    file.write(_HEAD.format(settings=_SETTINGS, tables=", ".join(tables) or "0").encode())
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS)
    for data in dropped:
        file.write(f"{PART}{json.dumps(data.part.as_json())}\n".encode())
        if data.columns:
            _write_data(connection, data, file)
        if data.statement:
            file.write(f"{data.statement};\nDROP TABLE IF EXISTS saved;\n".encode())
    file.write(_TAIL.encode())


def _write_data(connection: Connection, data: DroppedData, file: SupportsWrite[bytes]) -> None:
    """Write a COPY statement with its data, and the number of rows."""
    query = f"SELECT {data.columns} FROM {data.source}"
    if data.statement:
        file.write(f"CREATE TEMPORARY TABLE saved AS {query} WITH NO DATA;\n".encode())
    target = "saved" if data.statement else data.table
    file.write(f"COPY {target} ({data.columns}) FROM stdin;\n".encode())
    with connection.cursor() as cursor:
        try:
            cursor.copy_expert(f"COPY ({query}) TO STDOUT WITH (ENCODING 'UTF8')", file)
        except psycopg2.Error as error:
            if error.pgcode is None:
                raise
            raise BackupError(
                f"The data of {data.name} could not be read: {error.diag.message_primary} "
                f"(SQLSTATE {error.pgcode})."
            ) from None
        file.write(f"\\.\n-- Rows: {cursor.rowcount}\n".encode())


def _values(
    table: _Relation, lost: Sequence[str], said: Mapping[str, Mapping[str, Any]]
) -> Iterator[DroppedData]:
    """Describe the columns whose values are lost: each that is dropped, and all that are overwritten at once.

    :param said: what :func:`guvnor.backup.losses.objects` says of each column, by its name with its table.
    :raises NotSeparableError: when the table has no primary key that remains.
    """
    of = {name: said[f"{table.name}.{name}"] for name in lost if name in table.columns}
    # A trigger that changes the key of a row is not thought of.
    of = {name: told for name, told in of.items() if not (told.get("along") and name in table.key)}
    gone = [name for name, told in of.items() if told.get("how", "drop") == "drop"]
    overwritten = [name for name in of if name not in gone]
    for columns in [*([name] for name in gone), *([overwritten] if overwritten else [])]:
        name = f"{table.name}.{columns[0]}" if len(columns) == 1 else table.name
        if not table.key or set(table.key) & set(of):
            raise NotSeparableError(
                f"The values of {table.name}.{columns[0]} cannot be saved by key: the table has no primary "
                "key that remains."
            )
        same = " AND ".join(f"t.{part} = s.{part}" for part in table.key)
        assigned = ", ".join(f"{column} = s.{column}" for column in columns)
        made_by = dict.fromkeys(item for column in columns for item in of[column].get("revisions", ()))
        yield DroppedData(
            name,
            table.name,
            BackupPart(
                "values",
                name,
                table.name,
                (*table.key, *columns),
                tuple(table.key),
                tuple(made_by),
                gone=columns[0] in gone,
            ),
            f"{table.name} WHERE {' OR '.join(f'{column} IS NOT NULL' for column in columns)}",
            f"UPDATE {table.name} AS t SET {assigned} FROM saved AS s WHERE {same}",
        )


def _check_separable(table: _Relation, how: str) -> None:
    """Make sure that rows can be put back into a table that still holds some.

    :param how: what empties it; TRUNCATE names each table that inherits from it, and leaves no row.
    :raises NotSeparableError: when they cannot.
    """
    if how == "truncate":
        return
    if not table.key:
        raise NotSeparableError(
            f"The rows of {table.name} cannot be told from those that remain: the table has no primary key."
        )
    if table.inherited:
        raise NotSeparableError(
            f"What is deleted from {table.name} may be rows of tables that inherit from it."
        )


def setval(name: str) -> str:
    """Return the query that puts a sequence forward, never back: numbers may have been handed out since."""
    ascends = f"(SELECT seqincrement > 0 FROM pg_sequence WHERE seqrelid = {constant(name)}::regclass)"
    return (
        f"SELECT setval({constant(name)}, saved.last_value, saved.is_called) FROM saved, {name} AS now "
        f"WHERE CASE WHEN saved.last_value = now.last_value THEN saved.is_called "
        f"ELSE (saved.last_value > now.last_value) = {ascends} END"
    )


def _read_relations(connection: Connection, names: Sequence[str]) -> list[_Relation]:
    """Read those relations that exist, and the sequences that they own; the oldest come first.

    A partition is left out when its parent is among them.
    """
    return [_Relation(*values) for values in rows(connection, _RELATIONS, (list(names),))]


def _sorted(tables: Sequence[_Relation]) -> list[_Relation]:
    """Sort tables so that each one comes after those that its foreign keys refer to.

    :raises NotSeparableError: when they refer to each other in a circle.
    """
    known = {table.oid: table for table in tables}
    order = TopologicalSorter({table.oid: known.keys() & set(table.parents) for table in tables})
    try:
        return [known[oid] for oid in order.static_order()]
    except CycleError as error:
        names = ", ".join(sorted({known[oid].name for oid in error.args[1]}))
        raise NotSeparableError(f"The tables {names} refer to each other in a circle.") from None
