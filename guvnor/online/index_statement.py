"""What a statement for an index is about: which table, and what the server makes of its definition.

Nothing is parsed: the server runs the statement on empty copies of the tables that it may mean, in temporary
tables that come first on the search path and are rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass

from guvnor.online.execute import OnlineStepError
from guvnor.online.partitions import refusal
from guvnor.postgres import Connection, row, rows
from guvnor.postgres.quoting import quoted

# What stands in the definition of index `i`, a relation `x` of table `c` in schema `n`, after the table: how
# it is built. pg_get_indexdef() names the table with its schema (PostgreSQL documentation, "System Catalog
# Information Functions").
DEFINITION = """
    regexp_replace(substr(pg_get_indexdef(i.indexrelid), 1 + length(format(
        'CREATE %%sINDEX %%I ON %%s%%s.%%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, x.relname,
        CASE WHEN c.relkind = 'p' THEN 'ONLY ' END,
        CASE WHEN pg_get_indexdef(i.indexrelid) LIKE '%% ON pg_temp.%%' THEN 'pg_temp'
             ELSE quote_ident(n.nspname) END, c.relname))), '^ ', '')
"""
_INDEX = """
    pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

# A name that does not occur in the statement is not that of its table; one in quotes may hold a quote.
_CANDIDATES = """
    SELECT c.relname, c.oid::regclass::text, c.relpersistence = 't',
           c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(c.oid)
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND strpos(lower(%s), lower(replace(c.relname, '"', '""'))) > 0
"""


@dataclass(frozen=True)
class IndexTarget:
    """What an index is to be built on.

    :ivar table: without quotes.
    :ivar name: as SQL writes it.
    :ivar unique: whether the index is unique.
    :ivar definition: what follows the table in the statement.
    """

    table: str
    name: str
    unique: bool
    definition: str

    def on_table_alone(self, index: str) -> str:
        """Return the statement for the index of a partitioned table without its partitions."""
        unique = "UNIQUE " if self.unique else ""
        return f"CREATE {unique}INDEX {quoted(index)} ON ONLY {self.name} {self.definition}"


def target(connection: Connection, index: str, sql: str) -> IndexTarget | None:
    """Find the table of an index that is to be built, unless it is an ordinary one.

    :param connection: in the revision's transaction, to which nothing happens.
    :param index: without quotes.
    :param sql: the statement for the index without CONCURRENTLY.
    :returns: None for an ordinary table, and where that is not known.
    """
    candidates = rows(connection, _CANDIDATES, (sql,))
    if connection.autocommit or all(ordinary for *_, ordinary in candidates):
        return None
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT guvnor_target; SET LOCAL temp_tablespaces = ''")
        for name, shown, is_temporary, _ in candidates:
            if not is_temporary:
                cursor.execute(f"CREATE TEMPORARY TABLE {quoted(name)} (LIKE {shown})")
        cursor.execute(sql)
        found = row(
            connection,
            f"SELECT c.relname, i.indisunique, {DEFINITION}, x.reltablespace <> 0 FROM {_INDEX} "
            "WHERE c.relnamespace = pg_my_temp_schema() AND x.relname = %s",
            (index,),
        )
        cursor.execute("ROLLBACK TO SAVEPOINT guvnor_target; RELEASE SAVEPOINT guvnor_target")
    if found is None:
        raise OnlineStepError(f"The statement for index {index} makes no index of that name.")
    table, unique, definition, has_tablespace = found
    shown, _, ordinary = next(found[1:] for found in candidates if found[0] == table)
    if has_tablespace and not ordinary:
        raise refusal(
            f"Index {index} of a partitioned table cannot be given a tablespace while it is built.",
            "Leave TABLESPACE out, and move the indexes later: ALTER INDEX ... SET TABLESPACE.",
        )
    return None if ordinary else IndexTarget(table, shown, unique, definition)
