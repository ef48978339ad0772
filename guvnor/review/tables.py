"""The tables of a database, read from the catalogs for the generator of rows."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor.bookkeeping.tables import BOOKKEEPING_TABLES
from guvnor.online.kept_names import PREFIX
from guvnor.postgres import Connection
from guvnor.review.candidates import Type


@dataclass(frozen=True)
class Column:
    """A column whose values are not generated.

    :ivar name: the name, quoted for SQL where necessary.
    :ivar plain: the name without quotes.
    :ivar has_default: whether the server supplies a value when none is given.
    :ivar in_key: whether the column is a part of the primary key.
    :ivar always_identity: whether only the server may supply the value.
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
class Constraint:
    """A constraint or unique index of a table, or a constraint of a domain in it.

    :ivar name: the name in error messages.
    :ivar columns: the numbers of its columns; 0 for an expression.
    :ivar check: the definition of a check; None for other constraints.
    :ivar table: the table that a foreign key refers to; None for other constraints.
    :ivar their_columns: the columns that a foreign key refers to.
    """

    name: str
    columns: tuple[int, ...]
    check: str | None
    table: str | None
    their_columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    :ivar name: the name, quoted for SQL where necessary.
    :ivar columns: its columns except generated ones.
    """

    name: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]


_TABLES = """
    SELECT c.oid::bigint, quote_ident(c.relname)
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT (c.relname = ANY (%s)) AND NOT starts_with(c.relname, %s)
    ORDER BY c.relname
"""

_COLUMNS = """
    SELECT a.attnum::integer, quote_ident(a.attname), a.attname::text,
           format_type(a.atttypid, a.atttypmod), stored.typcategory = 'A',
           COALESCE(element.typcategory, stored.typcategory)::text,
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

_CONSTRAINTS = """
    SELECT c.conname::text, c.conkey::integer[], CASE c.contype WHEN 'c' THEN pg_get_constraintdef(c.oid) END,
           NULLIF(c.confrelid, 0)::regclass::text,
           ARRAY(SELECT quote_ident(a.attname) FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number
                 ORDER BY k.place)
    FROM pg_catalog.pg_constraint AS c
    WHERE c.conrelid = %(table)s AND c.conkey IS NOT NULL
    UNION ALL
    SELECT i.indexrelid::regclass::text, i.indkey::integer[], NULL, NULL, '{}'
    FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = %(table)s AND i.indisunique
    UNION ALL
    SELECT c.conname::text, array_agg(a.attnum::integer), pg_get_constraintdef(c.oid), NULL, '{}'
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_constraint AS c ON c.contypid = a.atttypid
    WHERE a.attrelid = %(table)s AND NOT a.attisdropped
    GROUP BY c.oid, c.conname
    ORDER BY 1
"""


def read(connection: Connection, schema: str = "public") -> tuple[Table, ...]:
    """Read the tables of a schema, except our own (bookkeeping, kept rows) and partitions.

    :param schema: the first one in the search path.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TABLES, (schema, list(BOOKKEEPING_TABLES), PREFIX))
        return tuple(_table(connection, oid, name) for oid, name in cursor.fetchall())


def _table(connection: Connection, oid: int, name: str) -> Table:
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, (oid,))
        columns = tuple(
            Column(number, quoted, plain, Type(sql, is_array, category, base, tuple(labels)), *flags)
            for number, quoted, plain, sql, is_array, category, base, labels, *flags in cursor.fetchall()
        )
        cursor.execute(_CONSTRAINTS, {"table": oid})
        constraints = tuple(
            Constraint(constraint, tuple(key), check, other, tuple(their))
            for constraint, key, check, other, their in cursor.fetchall()
        )
    return Table(name, columns, constraints)
