"""The tables of a database as a generator of rows needs them, read from the catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guvnor.bookkeeping.tables import BOOKKEEPING_TABLES
from guvnor.postgres import Connection
from guvnor.review.candidates import Type


@dataclass(frozen=True)
class Column:
    """A column that takes values.

    :ivar name: as SQL writes it.
    :ivar plain: as it is.
    :ivar has_default: whether a row may leave it to the server.
    :ivar in_key: whether it is a part of the primary key.
    :ivar always_identity: whether it may be left to the server only.
    """

    number: int
    name: str
    plain: str
    type: Type
    nullable: bool
    has_default: bool
    in_key: bool
    always_identity: bool


@dataclass(frozen=True)
class Reference:
    """A foreign key: numbers of the columns, and what they have to be found in."""

    columns: tuple[int, ...]
    table: str
    their_columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    :ivar name: as SQL writes it.
    :ivar columns: without generated ones.
    :ivar blamed: numbers of the columns of each constraint and unique index, by its name.
    :ivar checks: definitions of the checks, with the numbers of their columns; those of domains, too.
    """

    name: str
    columns: tuple[Column, ...]
    references: tuple[Reference, ...]
    blamed: Mapping[str, tuple[int, ...]]
    checks: tuple[tuple[tuple[int, ...], str], ...]


_TABLES = """
    SELECT c.oid::bigint, quote_ident(c.relname)
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT (c.relname = ANY (%s))
    ORDER BY c.relname
"""

_COLUMNS = """
    SELECT a.attnum::integer, quote_ident(a.attname), a.attname::text,
           format_type(a.atttypid, a.atttypmod), stored.typcategory::text,
           COALESCE(element.typname, stored.typname)::text,
           ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e
                 WHERE e.enumtypid = COALESCE(element.oid, stored.oid) ORDER BY e.enumsortorder),
           NOT (a.attnotnull OR declared.typnotnull), a.atthasdef OR a.attidentity <> '',
           a.attnum = ANY (COALESCE((SELECT i.indkey::smallint[] FROM pg_catalog.pg_index AS i
                                     WHERE i.indrelid = a.attrelid AND i.indisprimary), '{}')),
           a.attidentity = 'a'
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS declared ON declared.oid = a.atttypid
    CROSS JOIN LATERAL (
        WITH RECURSIVE below AS (
            SELECT t.oid, t.typtype, t.typbasetype FROM pg_catalog.pg_type AS t WHERE t.oid = a.atttypid
            UNION ALL
            SELECT t.oid, t.typtype, t.typbasetype
            FROM below JOIN pg_catalog.pg_type AS t ON t.oid = below.typbasetype
            WHERE below.typtype = 'd'
        )
        SELECT oid FROM below WHERE typtype <> 'd'
    ) AS base
    JOIN pg_catalog.pg_type AS stored ON stored.oid = base.oid
    LEFT JOIN pg_catalog.pg_type AS element ON element.oid = stored.typelem AND stored.typcategory = 'A'
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attnum
"""

_REFERENCES = """
    SELECT c.conkey::integer[], c.confrelid::regclass::text,
           ARRAY(SELECT quote_ident(a.attname) FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number
                 ORDER BY k.place)
    FROM pg_catalog.pg_constraint AS c
    WHERE c.conrelid = %s AND c.contype = 'f'
    ORDER BY c.conname
"""

_BLAMED = """
    SELECT conname::text, conkey::integer[] FROM pg_catalog.pg_constraint
    WHERE conrelid = %(table)s AND conkey IS NOT NULL
    UNION ALL
    SELECT i.indexrelid::regclass::text, i.indkey::integer[] FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = %(table)s AND i.indisunique
    UNION ALL
    -- What the error about a value of a domain names.
    SELECT c.conname::text, array_agg(a.attnum::integer)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_constraint AS c ON c.contypid = a.atttypid
    WHERE a.attrelid = %(table)s AND NOT a.attisdropped
    GROUP BY c.conname
"""

_CHECKS = """
    SELECT conkey::integer[], pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
    WHERE conrelid = %(table)s AND contype = 'c' AND conkey IS NOT NULL
    UNION ALL
    SELECT ARRAY[a.attnum::integer], pg_get_constraintdef(c.oid)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_constraint AS c ON c.contypid = a.atttypid
    WHERE a.attrelid = %(table)s AND NOT a.attisdropped
    ORDER BY 2
"""


def read(connection: Connection) -> tuple[Table, ...]:
    """Read the tables of ``public``, without our own bookkeeping and without partitions."""
    with connection.cursor() as cursor:
        cursor.execute(_TABLES, (list(BOOKKEEPING_TABLES),))
        return tuple(_table(connection, oid, name) for oid, name in cursor.fetchall())


def _table(connection: Connection, oid: int, name: str) -> Table:
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, (oid,))
        columns = tuple(
            Column(number, quoted, plain, Type(sql, category, base, tuple(labels)), *flags)
            for number, quoted, plain, sql, category, base, labels, *flags in cursor.fetchall()
        )
        cursor.execute(_REFERENCES, (oid,))
        references = tuple(
            Reference(tuple(key), table, tuple(their)) for key, table, their in cursor.fetchall()
        )
        cursor.execute(_BLAMED, {"table": oid})
        blamed = {constraint: tuple(key) for constraint, key in cursor.fetchall()}
        cursor.execute(_CHECKS, {"table": oid})
        checks = tuple((tuple(key), definition) for key, definition in cursor.fetchall())
    return Table(name, columns, references, blamed, checks)
