"""The tables and columns of a schema that hold data, by their OIDs and numbers, and what a statement changes.

A name may come back: a table that is dropped and created again is another one, whatever it is called, and one
that is renamed is the same. A view holds no data, nor does a generated column: the server can compute them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from guvnor.postgres import Connection, rows

How = Literal[
    "drop", "truncate", "delete", "update", "insert", "cast", "attribute", "rewrite", "retype", "unseen"
]
"""What happens to data. ``cast``: a column's type changes; ``attribute``: its composite type loses one;
``rewrite``: the rows are written anew from an expression (``ALTER COLUMN ... TYPE ... USING``); ``retype``:
they may be; ``unseen``: somebody switched off the triggers that watch a table."""

Key = tuple[int, int]
"""A table's OID and a column's number; 0 for the table itself."""


class Part(NamedTuple):
    """What stands at one place in a type.

    :ivar path: from the type itself: ``[]`` for elements of an array, ``~`` of a range, ``.2`` for the second
        attribute; empty for the type itself.
    :ivar type: as the server prints it; None for an enum of the schema.
    :ivar labels: of an enum of the schema; None for any other type.
    """

    path: str
    type: str | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class ColumnType:
    """The type of a column.

    :ivar oid: in ``pg_type``.
    :ivar modifier: such as its length, as ``pg_attribute`` has it.
    :ivar name: as the server prints it, with its length: ``character varying(255)``.
    :ivar base: the same where a domain is replaced by the type under it.
    :ivar parts: what it is made of down to types that are not the schema's own; two types of which one may
        not hold a value of the other differ in it. An enum, a domain or a type of the server is one part.
    """

    oid: int
    modifier: int
    name: str
    base: str
    parts: tuple[Part, ...]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of an enum; None for any other type."""
        return None if self.is_nested else self.parts[0].labels

    @property
    def is_nested(self) -> bool:
        """Whether it is an array, a range or a composite of the schema's own types.

        Its name alone does not say what it can hold: the parts may be others under the same names.
        """
        return any(part.path for part in self.parts)


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
    :ivar parents: the OIDs of the tables that it is a partition of, or inherits from.
    :ivar columns: by number.
    """

    name: str
    file: int | None
    parents: tuple[int, ...]
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
    :ivar along: whether it goes along with a table that has these rows, too: the parent of a partition, or a
        table that it inherits from; or with another column, as a trigger may write it.
    """

    how: How
    key: Key
    type: ColumnType | None = None
    where: str | None = None
    harmless: bool = False
    kept: bool = False
    along: bool = False


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
               ), (
                   SELECT string_agg(concat(a.ctid, a.xmin), ' ' ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute AS a
                   WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0
               )), ' ' ORDER BY t.oid) AS mark
        FROM pg_catalog.pg_type AS t
        WHERE t.typnamespace = %(schema)s::regnamespace AND t.typcategory <> 'A'
          -- every table has a type; few of those are the type of a column
          AND (t.typrelid = 0 OR EXISTS (
              SELECT FROM pg_catalog.pg_depend AS d
              WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray)
                AND d.deptype = 'n'))
    ) AS types
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p')
"""
_TABLES = """
    SELECT c.oid::bigint, quote_ident(c.relname), pg_relation_filenode(c.oid)::bigint,
           ARRAY(SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid)
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
           CASE WHEN t.typnamespace = %(schema)s::regnamespace THEN (
               WITH RECURSIVE part AS (
                   SELECT '' AS path, t.oid, a.atttypmod AS modifier
                   UNION ALL
                   SELECT part.path || inner_one.path, inner_one.oid, inner_one.modifier
                   FROM part
                   JOIN pg_catalog.pg_type AS p
                     ON p.oid = part.oid AND p.typnamespace = %(schema)s::regnamespace
                   CROSS JOIN LATERAL (
                       SELECT '' AS path, p.typbasetype AS oid, p.typtypmod AS modifier
                       WHERE p.typtype = 'd'
                       UNION ALL
                       SELECT '[]', p.typelem, part.modifier WHERE p.typtype = 'b' AND p.typcategory = 'A'
                       UNION ALL
                       SELECT '~', r.rngsubtype, -1
                       FROM pg_catalog.pg_range AS r WHERE p.oid IN (r.rngtypid, r.rngmultitypid)
                       UNION ALL
                       SELECT '.' || i.attnum, i.atttypid, i.atttypmod
                       FROM pg_catalog.pg_attribute AS i
                       WHERE p.typtype = 'c' AND i.attrelid = p.typrelid
                         AND i.attnum > 0 AND NOT i.attisdropped
                   ) AS inner_one
               )
               SELECT jsonb_agg(jsonb_build_array(
                   part.path,
                   CASE WHEN NOT (is_own AND p.typtype = 'e') THEN format_type(part.oid, part.modifier) END,
                   CASE WHEN is_own AND p.typtype = 'e' THEN ARRAY(
                       SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e
                       WHERE e.enumtypid = p.oid ORDER BY e.enumsortorder
                   ) END
               ) ORDER BY part.path)
               FROM part
               JOIN pg_catalog.pg_type AS p ON p.oid = part.oid
               CROSS JOIN LATERAL (SELECT p.typnamespace = %(schema)s::regnamespace AS is_own) AS own
               WHERE NOT is_own OR p.typtype = 'e' OR (p.typtype = 'b' AND p.typcategory <> 'A')
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
        fresh = _read(self._connection, self._schema, stale) if stale else {}
        self._ledger = {oid: fresh[oid] if oid in fresh else self._ledger[oid] for oid in marks}
        self._types, self._marks = types, marks
        return self._ledger


def _read(connection: Connection, schema: str, tables: list[int]) -> Ledger:
    columns: dict[int, dict[int, StoredColumn]] = {}
    wanted = {"tables": tables, "schema": schema}
    found = rows(connection, _COLUMNS, wanted)
    for oid, number, name, version, visible, type_, modifier, printed, base, made_of in found:
        parts = tuple(
            Part(path, part, None if labels is None else tuple(labels))
            for path, part, labels in made_of or [["", base, None]]
        )
        kind = ColumnType(type_, modifier, printed, base, parts)
        columns.setdefault(oid, {})[number] = StoredColumn(name, kind, version, visible)
    return {
        oid: StoredTable(name, file, tuple(parents), columns.get(oid, {}))
        for oid, name, file, parents in rows(connection, _TABLES, wanted)
    }


def compare(before: Ledger, after: Ledger) -> Iterator[Touch]:
    """Find what was dropped, and the columns whose values a statement may have changed.

    ALTER COLUMN ... TYPE leaves a new row in ``pg_attribute`` and new files, even if the type stays the same.
    """
    for oid, old in before.items():
        if (new := after.get(oid)) is None:
            yield Touch("drop", (oid, 0))
            continue
        if new is old:
            continue
        for number, was in old.columns.items():
            key = oid, number
            if (now := new.columns.get(number)) is None:
                yield Touch("drop", key)
                continue
            # ALTER TYPE renames types, adds labels to an enum and renames them; of these, it takes none away.
            same = (was.type.oid, was.type.modifier) == (now.type.oid, now.type.modifier)
            if not same and was.type.parts != now.type.parts:
                yield Touch("cast", key, now.type)
            elif same and {part.path for part in was.type.parts} - {part.path for part in now.type.parts}:
                yield Touch("attribute", key)
            elif was.version != now.version and (new.file is None or old.file != new.file):
                # In a partitioned table, or with another attribute, it may be the attribute alone, and
                # another column may be the reason for new files.
                alone = _versions(old, number) == _versions(new, number)
                sure = new.file is not None and same and was.visible == now.visible and alone
                yield Touch("rewrite" if sure else "retype", key)


def _versions(table: StoredTable, but: int) -> dict[int, str]:
    return {number: column.version for number, column in table.columns.items() if number != but}


def with_parents(before: Ledger, touches: Sequence[Touch]) -> list[Touch]:
    """Mark what a statement does to a table along with one that has its rows, too.

    :param before: the tables before the statement.
    """
    names = {(touch.how, touch.key[0], _column(before, touch.key)) for touch in touches}
    return [
        replace(touch, along=any((touch.how, p, _column(before, touch.key)) in names for p in table.parents))
        if (table := before.get(touch.key[0])) and not touch.along
        else touch
        for touch in touches
    ]


def _column(ledger: Ledger, key: Key) -> str | None:
    """Return the name of a column; None for rows."""
    table = ledger.get(key[0])
    return table.columns[key[1]].name if table and key[1] in table.columns else None
