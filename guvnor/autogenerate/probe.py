"""Asks the server what a change would cost, by trying it in the shadow and undoing it."""

from __future__ import annotations

from collections.abc import Collection

import psycopg2

from guvnor.schema import column_ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import table_of


class Probe:
    """Tries changes on the empty tables of a shadow."""

    def __init__(self, shadow: Shadow) -> None:
        """Take the shadow; nothing that is tried stays in it."""
        self._shadow = shadow

    def adding_rewrites(self, table: str, definition: str) -> bool:
        """Tell whether a new column rewrites the whole table; True where it cannot be tried.

        :param definition: of the column, without its name.
        """
        return self._touches_rows(table, [], f"ALTER TABLE {table} ADD COLUMN guvnor_probe {definition}")

    def retyping_touches_rows(self, before: Object, after: Object, without: Collection[str] = ()) -> bool:
        """Tell whether another type makes the server read or write all rows, or rebuild an index.

        A check on the column is verified again even where no row is written. True where it cannot be tried.

        :param without: constraints to leave out of it.
        """
        table = table_of(after)
        prepare = [f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}" for constraint in without]
        prepare.append(f"ALTER TABLE {table} ALTER COLUMN {after.name} DROP DEFAULT")
        prepare.append(column_ddl.retype(after, before.attributes))
        return self._touches_rows(table, prepare, column_ddl.retype(after, after.attributes, cast=False))

    def _touches_rows(self, table: str, prepare: list[str], sql: str) -> bool:
        """Tell whether a statement makes the server read or write a table's rows.

        :param prepare: statements to run before it.
        """
        try:
            with self._shadow.undone():
                for statement in prepare:
                    self._shadow.execute(statement)
                seen = self._look(table)
                self._shadow.execute(sql)
                return self._look(table) != seen
        except psycopg2.Error:
            return True

    def _look(self, table: str) -> tuple[object, ...]:
        """Return the files of a table and its indexes, and how often it was scanned in this transaction."""
        with self._shadow.driver.cursor() as cursor:
            cursor.execute(
                """
            SELECT pg_relation_filenode(c.oid),
                   ARRAY(SELECT pg_relation_filenode(i.indexrelid) FROM pg_catalog.pg_index AS i
                         WHERE i.indrelid = c.oid ORDER BY i.indexrelid::regclass::text),
                   (SELECT seq_scan FROM pg_catalog.pg_stat_xact_user_tables WHERE relid = c.oid)
            FROM pg_catalog.pg_class AS c WHERE c.oid = %(table)s::regclass
            """,
                {"table": table},
            )
            row = cursor.fetchone()
        assert row is not None
        return row
