"""What a half-done revision has left that refuses or slows down writes of the application."""

from __future__ import annotations

from guvnor.postgres import Connection, rows, violations

# An older constraint or index was there before the revision: the version was written after it. A constraint
# that is not valid refuses what violates it all the same (PostgreSQL documentation, ALTER TABLE, "NOT
# VALID"), and an index that is ready is maintained, and unique, before it is valid ("Building Indexes
# Concurrently"). A partition has the constraint of its parent.
_VERSION_AGE = "(SELECT COALESCE(min(age(xmin)), 2147483647) FROM public.alembic_version)"
_UNVALIDATED = f"""
    c.connamespace = 'public'::regnamespace AND c.conrelid <> 0 AND NOT c.convalidated
    AND c.coninhcount = 0 AND c.conparentid = 0 AND to_jsonb(c) ->> 'conenforced' IS DISTINCT FROM 'false'
    AND age(c.xmin) < {_VERSION_AGE}
"""
_LEFT = f"""
    SELECT format('constraint %I of table %s, which is not validated yet, refuses rows that violate it, '
                  'also when an older row is updated', c.conname, c.conrelid::regclass)
    FROM pg_catalog.pg_constraint AS c
    WHERE {_UNVALIDATED}
    UNION ALL
    SELECT format(CASE WHEN i.indisunique
                       THEN 'the half-built unique index %s of table %s refuses rows that repeat a key'
                       ELSE 'the half-built index %s of table %s makes its writes slower' END,
                  i.indexrelid::regclass, i.indrelid::regclass)
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS r ON r.oid = i.indexrelid AND r.relkind = 'i'
    WHERE r.relnamespace = 'public'::regnamespace AND i.indisready AND NOT i.indisvalid
      AND age(i.xmin) < {_VERSION_AGE}
    ORDER BY 1
"""
_QUERIES = f"""
    SELECT p.query
    FROM pg_catalog.pg_constraint AS c
    JOIN (SELECT oid, query FROM ({violations.CHECKS}) AS checks
          UNION ALL
          SELECT oid, query FROM ({violations.FOREIGN_KEYS}) AS keys) AS p ON p.oid = c.oid
    WHERE {_UNVALIDATED}
    ORDER BY c.conrelid::regclass::text, c.conname
"""


def queries(connection: Connection) -> tuple[str, ...]:
    """Return the queries that show the rows which violate what a half-done revision has not validated yet.

    :param connection: as for :func:`read`.
    """
    return tuple(violations.shown(query) for (query,) in rows(connection, _QUERIES, ()))


def read(connection: Connection) -> tuple[str, ...]:
    """Say which writes are refused or slower because of a half-done revision, a clause each.

    :param connection: in autocommit mode, to a database with Alembic's version table.
    """
    return tuple(text for (text,) in rows(connection, _LEFT))
