"""The tables whose rows one change keeps: the one that it names, and those that inherit from it.

Each has rows of its own, columns of its own and a key of its own, so each keeps its rows in a table of its
own beside. A partition is a part of its table, and has none.
"""

from __future__ import annotations

from guvnor.online.kept_names import PREFIX, kept_name
from guvnor.postgres import Connection, rows
from guvnor.postgres.quoting import LONGEST_NAME, constant, quoted

# The name of a table beside is made as :func:`kept_name` makes it. The named table comes first, whether it is
# there or not; who inherits from it may be in another schema.
_TREE = """
    WITH RECURSIVE tree AS (
        SELECT c.oid FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass({source}) AND c.relkind = 'r'
        UNION
        SELECT c.oid
        FROM tree
        JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
        JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relkind = 'r' AND c.relpersistence <> 't'
    )
    SELECT source, name, kept
    FROM (
        SELECT 0 AS nth, {source}::text AS source, {table}::text AS name, {kept}::text AS kept
        UNION ALL
        SELECT 1, format('%I.%I', n.nspname, c.relname), c.relname::text,
               CASE WHEN octet_length(made.name) <= {longest} THEN made.name
                    ELSE concat((SELECT left(made.name, length)
                                 FROM generate_series(1, {longest}) AS length
                                 WHERE octet_length(left(made.name, length)) <= {longest} - 9
                                 ORDER BY length DESC LIMIT 1),
                                '_', left(encode(sha256(convert_to(made.name, 'UTF8')), 'hex'), 8)) END
        FROM tree
        JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (SELECT concat({prefix}::text, c.relname)) AS made (name)
        WHERE c.oid <> to_regclass({source})
    ) AS found
    ORDER BY nth, source
"""


def query(table: str, revision: str) -> str:
    """Return the query for the tables: each as SQL writes it, its name, and the name of the one beside."""
    return _TREE.format(
        source=constant(quoted(table)),
        table=constant(table),
        kept=constant(kept_name(table, revision)),
        prefix=constant(f"{PREFIX}{revision}_"),
        longest=LONGEST_NAME,
    )


def read(connection: Connection, table: str, revision: str) -> list[tuple[str, str, str]]:
    """Return what :func:`query` asks for, each as a constant of SQL."""
    found = rows(connection, query(table, revision))
    return [(constant(source), constant(name), constant(kept)) for source, name, kept in found]
