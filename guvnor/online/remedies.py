"""What a person needs when an online step fails for a reason that stays: the rows in the way, or another way.

It travels as notes on the server's error (PEP 678), since what it is read from, such as a half-built index,
is dropped before the error is reported.
"""

from __future__ import annotations

import contextlib

import psycopg2

from guvnor.postgres import Connection, row

_PARTITIONED = (
    "On a partitioned table, write instead: CREATE INDEX ... ON ONLY the table, op.create_index_concurrently "
    "for each partition, and ALTER INDEX ... ATTACH PARTITION for each of them."
)
_PARTITIONED_DROP = (
    'The index of a partitioned table is dropped in the transaction: op.execute("DROP INDEX ...").'
)


def notes(error: BaseException) -> tuple[str, ...]:
    """Return what an online step has noted on its error, a line each."""
    return tuple(getattr(error, "__notes__", ()))


def note_index(connection: Connection, name: str, error: psycopg2.Error) -> None:
    """Note on the error of an index build which rows are in the way, or how the index can be built instead.

    :param connection: in autocommit mode.
    :param name: of the index, quoted; what the build left of it is still there.
    """
    if isinstance(error, psycopg2.errors.FeatureNotSupported):
        error.add_note(_PARTITIONED)
    elif isinstance(error, psycopg2.errors.UniqueViolation):
        _note_rows(error, connection, _DUPLICATES, name)


def note_dropped_index(error: psycopg2.Error) -> None:
    """Note on the error of DROP INDEX CONCURRENTLY how else the index is dropped."""
    if isinstance(error, psycopg2.errors.FeatureNotSupported):
        error.add_note(_PARTITIONED_DROP)


def note_constraint(connection: Connection, table: str, name: str, error: psycopg2.Error) -> None:
    """Note on the error of a validation which rows violate the constraint.

    :param connection: in autocommit mode.
    :param table: quoted.
    :param name: of the constraint.
    """
    if isinstance(error, psycopg2.errors.CheckViolation):
        _note_rows(error, connection, _VIOLATE_CHECK, table, name)
    elif isinstance(error, psycopg2.errors.ForeignKeyViolation):
        _note_rows(error, connection, _VIOLATE_FOREIGN_KEY, table, name)


def _note_rows(error: psycopg2.Error, connection: Connection, sql: str, *names: str) -> None:
    with contextlib.suppress(psycopg2.Error):  # the error itself is what has to be told
        if found := row(connection, sql, names):
            error.add_note(f"{found[0]};   -- shows them")


# An index finds no duplicate among rows with a NULL in the key, unless it says NULLS NOT DISTINCT
# (PostgreSQL 15 and later).
_DUPLICATES = """
    SELECT format('SELECT %%s, count(*) FROM %%s%%s GROUP BY %%s HAVING count(*) > 1',
                  keys.list, i.indrelid::regclass, ' WHERE ' || condition.text, keys.list)
    FROM pg_catalog.pg_index AS i
    CROSS JOIN LATERAL (
        SELECT string_agg(key, ', ' ORDER BY place),
               string_agg(key || ' IS NOT NULL', ' AND ' ORDER BY place)
        FROM generate_series(1, i.indnkeyatts) AS place,
             LATERAL (SELECT pg_get_indexdef(i.indexrelid, place, true)) AS part (key)
    ) AS keys (list, set)
    CROSS JOIN LATERAL (
        SELECT NULLIF(concat_ws(
            ' AND ', '(' || pg_get_expr(i.indpred, i.indrelid) || ')',
            CASE WHEN to_jsonb(i) ->> 'indnullsnotdistinct' IS DISTINCT FROM 'true' THEN keys.set END), '')
    ) AS condition (text)
    WHERE i.indexrelid = to_regclass(%s)
"""

_VIOLATE_CHECK = """
    SELECT format('SELECT * FROM %%s WHERE NOT (%%s)', conrelid::regclass, pg_get_expr(conbin, conrelid))
    FROM pg_catalog.pg_constraint
    WHERE contype = 'c' AND conrelid = to_regclass(%s) AND conname = %s
"""

# With MATCH FULL, a key of which only a part is NULL is a violation, too.
_VIOLATE_FOREIGN_KEY = """
    SELECT format('SELECT * FROM %%s AS t WHERE %%s AND NOT EXISTS (SELECT FROM %%s AS r WHERE %%s)',
                  c.conrelid::regclass, '(' || keys.set || ')', c.confrelid::regclass, keys.same)
    FROM pg_catalog.pg_constraint AS c
    CROSS JOIN LATERAL (
        SELECT string_agg(format('t.%%I IS NOT NULL', a.attname),
                          CASE c.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY place) AS set,
               string_agg(format('r.%%I = t.%%I', r.attname, a.attname), ' AND ' ORDER BY place) AS same
        FROM unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (own, referenced, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.own
        JOIN pg_catalog.pg_attribute AS r ON r.attrelid = c.confrelid AND r.attnum = k.referenced
    ) AS keys
    WHERE c.contype = 'f' AND c.conrelid = to_regclass(%s) AND c.conname = %s
"""
