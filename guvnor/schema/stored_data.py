"""The tables and columns of a schema that hold data, by their OIDs and numbers, and what a statement changes.

A name may come back: a table that is dropped and created again is another one, whatever it is called, and one
that is renamed is the same. A view holds no data, nor does a generated column: the server can compute them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from guvnor.postgres import Connection, rows

How = Literal["drop", "truncate", "delete", "update", "insert", "cast", "rewrite", "retype", "unseen"]
"""What happens to data. ``cast``: a column's type changes; ``rewrite``: the rows are written anew from an
expression (``ALTER COLUMN ... TYPE ... USING``); ``retype``: they may be; ``unseen``: somebody switched off
the triggers that watch a table."""

Key = tuple[int, int]
"""A table's OID and a column's number; 0 for the table itself."""


@dataclass(frozen=True)
class ColumnType:
    """The type of a column.

    :ivar oid: in ``pg_type``.
    :ivar modifier: such as its length, as ``pg_attribute`` has it.
    :ivar name: as the server prints it, with its length: ``character varying(255)``.
    :ivar base: the same where a domain is replaced by the type under it.
    :ivar labels: of an enum; None for any other type.
    """

    oid: int
    modifier: int
    name: str
    base: str
    labels: tuple[str, ...] | None

    @property
    def told_apart_by(self) -> object:
        """What differs between two types of which one may not hold a value of the other."""
        return self.labels if self.labels is not None else self.base


@dataclass(frozen=True)
class StoredColumn:
    """A column that holds data.

    :ivar name: as SQL writes it.
    :ivar version: the place of its row in ``pg_attribute``, which each change moves.
    :ivar visible: all else of that row that a statement can set.
    """

    name: str
    type: ColumnType
    version: str
    visible: str


@dataclass(frozen=True)
class StoredTable:
    """A table that holds data.

    :ivar name: as SQL writes it.
    :ivar file: of its rows; another one when they are written anew. None for a partitioned table.
    :ivar parent: the OID of the table that it is a partition of; None for no partition.
    :ivar columns: by number.
    """

    name: str
    file: int | None
    parent: int | None
    columns: Mapping[int, StoredColumn]


Ledger = Mapping[int, StoredTable]
"""The tables of a schema, by OID."""


@dataclass(frozen=True)
class Touch:
    """What a statement does to the data of a table or column.

    :ivar key: the table, and the column or 0 for rows.
    :ivar type: the new type of a column.
    :ivar where: which rows, as ``op.backfill`` says it, which goes in batches; None for any other statement.
    :ivar harmless: whether no value is lost, as far as that can be told without rows.
    :ivar kept: whether the statement keeps what was there, or brings it back, in batches.
    """

    how: How
    key: Key
    type: ColumnType | None = None
    where: str | None = None
    harmless: bool = False
    kept: bool = False


# Each change of a row of a catalog leaves another one, with another place or another (sub)transaction. Nearly
# all of the time goes into printing types and defaults, so only what has changed is printed again.
_MARKS = """
    SELECT c.oid::bigint,
           concat_ws(' ', c.ctid, c.xmin, (
               SELECT hashtextextended(string_agg(concat(a.ctid, a.xmin), ' ' ORDER BY a.attnum), 0)
               FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0
           )),
           types.mark
    FROM pg_catalog.pg_class AS c
    CROSS JOIN (
        SELECT string_agg(concat(t.oid, t.ctid, t.xmin, (
                   SELECT string_agg(concat(e.ctid, e.xmin), ' ' ORDER BY e.enumsortorder)
                   FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid
               )), ' ' ORDER BY t.oid) AS mark
        FROM pg_catalog.pg_type AS t
        WHERE t.typnamespace = %(schema)s::regnamespace AND t.typcategory <> 'A'
          AND (t.typrelid = 0 OR EXISTS (
              SELECT FROM pg_catalog.pg_class AS k WHERE k.oid = t.typrelid AND k.relkind = 'c'))
    ) AS types
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p')
"""
_TABLES = """
    SELECT c.oid::bigint, quote_ident(c.relname), pg_relation_filenode(c.oid)::bigint,
           (SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i
            WHERE i.inhrelid = c.oid AND c.relispartition)
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = ANY (%(tables)s::oid[])
    ORDER BY c.oid
"""
_COLUMNS = """
    SELECT c.oid::bigint, a.attnum, quote_ident(a.attname), a.ctid::text,
           concat_ws('|', a.attname, a.attnotnull, a.atthasdef, a.attidentity, a.attstattarget, a.attstorage,
                     a.attcompression, a.attacl, a.attoptions, a.attcollation, a.attinhcount, a.attislocal,
                     pg_get_expr(d.adbin, d.adrelid)),
           a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod),
           CASE WHEN t.typtype = 'd' THEN (
               WITH RECURSIVE under AS (
                   SELECT t.typbasetype AS oid, t.typtypmod AS modifier
                   UNION ALL
                   SELECT b.typbasetype, b.typtypmod
                   FROM under JOIN pg_catalog.pg_type AS b ON b.oid = under.oid AND b.typtype = 'd'
               )
               SELECT format_type(under.oid, under.modifier)
               FROM under JOIN pg_catalog.pg_type AS b ON b.oid = under.oid AND b.typtype <> 'd'
           ) ELSE format_type(a.atttypid, a.atttypmod) END,
           CASE WHEN t.typtype = 'e' THEN ARRAY(
               SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e
               WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder
           ) END
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.oid = ANY (%(tables)s::oid[])
      AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""


class Reader:
    """Reads the tables and columns of a schema again and again; what has not changed is read only once."""

    def __init__(self, connection: Connection, schema: str) -> None:
        """Read nothing yet.

        :param connection: in the transaction that changes the schema.
        """
        self._connection, self._schema = connection, schema
        self._types: str | None = None
        self._marks: dict[int, str] = {}
        self._ledger: dict[int, StoredTable] = {}

    def read(self) -> Ledger:
        """Read them as they are now; a table that is the same object as before has not changed."""
        found = rows(self._connection, _MARKS, {"schema": self._schema})
        marks = {oid: mark for oid, mark, _ in found}
        types = found[0][2] if found else None
        same = self._marks if types == self._types else {}
        stale = [oid for oid, mark in marks.items() if same.get(oid) != mark]
        fresh = _read(self._connection, stale) if stale else {}
        self._ledger = {oid: fresh[oid] if oid in fresh else self._ledger[oid] for oid in marks}
        self._types, self._marks = types, marks
        return self._ledger


def _read(connection: Connection, tables: list[int]) -> Ledger:
    columns: dict[int, dict[int, StoredColumn]] = {}
    wanted = {"tables": tables}
    found = rows(connection, _COLUMNS, wanted)
    for oid, number, name, version, visible, type_, modifier, printed, base, labels in found:
        kind = ColumnType(type_, modifier, printed, base, None if labels is None else tuple(labels))
        columns.setdefault(oid, {})[number] = StoredColumn(name, kind, version, visible)
    return {
        oid: StoredTable(name, file, parent, columns.get(oid, {}))
        for oid, name, file, parent in rows(connection, _TABLES, wanted)
    }


def compare(before: Ledger, after: Ledger) -> Iterator[Touch]:
    """Find what was dropped, and the columns whose values a statement may have changed.

    ALTER COLUMN ... TYPE leaves a new row in ``pg_attribute`` and new files, even if the type stays the same.
    """
    for oid, old in before.items():
        if (new := after.get(oid)) is None:
            if old.parent is None or old.parent in after or old.parent not in before:
                yield Touch("drop", (oid, 0))
            continue
        if new is old:
            continue
        for number, was in old.columns.items():
            key = oid, number
            if (now := new.columns.get(number)) is None:
                if not _by_parent(before, after, key):
                    yield Touch("drop", key)
                continue
            # ALTER TYPE renames types, adds labels to an enum and renames them; it takes none away.
            same = (was.type.oid, was.type.modifier) == (now.type.oid, now.type.modifier)
            if not same and was.type.told_apart_by != now.type.told_apart_by:
                yield Touch("cast", key, now.type)
            elif was.version != now.version and (new.file is None or old.file != new.file):
                # In a partitioned table, or with another attribute, it may be the attribute alone.
                sure = new.file is not None and same and was.visible == now.visible
                yield Touch("rewrite" if sure else "retype", key)


def _by_parent(before: Ledger, after: Ledger, key: Key) -> bool:
    """Tell whether a column of a partition goes with that of the partitioned table."""
    parent = before[key[0]].parent
    if parent is None or parent not in before or parent not in after:
        return False
    name = before[key[0]].columns[key[1]].name
    number = next((n for n, column in before[parent].columns.items() if column.name == name), None)
    return number is not None and number not in after[parent].columns
