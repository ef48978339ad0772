"""Queries of the catalogs that print the query for the rows that break a constraint or a unique index.

Each is for ``FROM (...) AS printed``, in a statement with parameters, and gives ``oid`` and ``query``.
"""

# PostgreSQL documentation, "Constraints": NULL satisfies a check.
CHECKS = """
    SELECT oid, conrelid, conname,
           format('SELECT * FROM %%s WHERE NOT (%%s)', conrelid::regclass, pg_get_expr(conbin, conrelid))
               AS query
    FROM pg_catalog.pg_constraint
    WHERE contype = 'c' AND conrelid <> 0
"""

# With MATCH FULL, a key of which only a part is NULL breaks it, too.
FOREIGN_KEYS = """
    SELECT c.oid, c.conrelid, c.conname,
           format('SELECT * FROM %%s AS t WHERE %%s AND NOT EXISTS (SELECT FROM %%s AS r WHERE %%s)',
                  c.conrelid::regclass, '(' || keys.set || ')', c.confrelid::regclass, keys.same) AS query
    FROM pg_catalog.pg_constraint AS c
    CROSS JOIN LATERAL (
        SELECT string_agg(format('t.%%I IS NOT NULL', a.attname),
                          CASE c.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY place) AS set,
               string_agg(format('r.%%I = t.%%I', r.attname, a.attname), ' AND ' ORDER BY place) AS same
        FROM unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (own, referenced, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.own
        JOIN pg_catalog.pg_attribute AS r ON r.attrelid = c.confrelid AND r.attnum = k.referenced
    ) AS keys
    WHERE c.contype = 'f'
"""

# An index finds no duplicate among rows with a NULL in the key, unless it says NULLS NOT DISTINCT
# (PostgreSQL 15 and later).
UNIQUE_INDEXES = """
    SELECT i.indexrelid AS oid,
           format('SELECT %%s, count(*) FROM %%s%%s GROUP BY %%s HAVING count(*) > 1',
                  keys.list, i.indrelid::regclass, ' WHERE ' || condition.text, keys.list) AS query
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
    WHERE i.indisunique
"""


def shown(query: str) -> str:
    """Return such a query as a line to type, for a message."""
    return f"{query};   -- shows them"
