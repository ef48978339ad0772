"""An index of a partitioned table: its own, one for each partition at any depth, each attached to that above.

The index of the table alone is invalid until each partition has its part, and a new partition gets one with
it (PostgreSQL documentation, "Table Partitioning"). So what is missing can be read from the catalogs at any
time. Only the leaves hold rows: their parts are built concurrently. The other statements take a moment, and
run in transactions of the revision, under its lock budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import psycopg2
from alembic.runtime.migration import MigrationContext

from guvnor.online import execute, plain_forms, remedies
from guvnor.online.chosen_names import chosen_name
from guvnor.online.execute import OnlineStep, OnlineStepError
from guvnor.online.index_statement import DEFINITION
from guvnor.online.invoking import commit, online, run_sql, session_of
from guvnor.postgres import Connection, rows, scalar
from guvnor.postgres.quoting import quoted

_LABELS = {"": "idx", "UNIQUE": "key", "PRIMARY KEY": "pkey"}
_ROUNDS = 3  # builds of one part that may end without a valid index


@dataclass(frozen=True)
class IndexPart:
    """A partition, and its part of an index. Names are as SQL writes them.

    :ivar bare: the table's name without quotes and schema.
    :ivar schema: of the table, without quotes.
    :ivar is_leaf: whether it holds rows.
    :ivar above: the index of the table above; None as long as there is none.
    :ivar attached: its index, where that is attached already.
    :ivar equal: an index that can be attached, or could if it were valid.
    :ivar is_valid: whether one of both is valid.
    :ivar has_constraint: whether the equal one enforces a constraint.
    """

    table: str
    bare: str
    schema: str
    is_leaf: bool
    above: str | None
    attached: str | None
    equal: str | None
    is_valid: bool
    has_constraint: bool


@dataclass(frozen=True)
class PartitionedIndex:
    """An index of a partitioned table.

    :ivar index: without quotes.
    :ivar unique: ``UNIQUE`` or nothing, as the statement has it.
    :ivar definition: what follows the table in the statement.
    :ivar columns: the names of the index's columns.
    :ivar constraint: ``UNIQUE`` or ``PRIMARY KEY``, where it enforces one.
    """

    index: str
    table: str
    unique: str
    definition: str
    columns: tuple[str, ...]
    constraint: str

    def parts(self, connection: Connection) -> list[IndexPart]:
        """Return the partitions, level by level."""
        return [IndexPart(*found) for found in rows(connection, _PARTS, (quoted(self.index),))]

    def name_for(self, connection: Connection, part: IndexPart) -> str:
        """Return the name that the server would give to the index of a partition, without quotes."""
        sql = """
            SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = %s::regnamespace
            UNION SELECT conname FROM pg_catalog.pg_constraint WHERE connamespace = %s::regnamespace
        """
        schema = quoted(part.schema)
        taken = {name for (name,) in rows(connection, sql, (schema, schema))}
        columns = () if self.constraint == "PRIMARY KEY" else self.columns
        return chosen_name(part.bare, columns, _LABELS[self.constraint], taken)


_PARTS = f"""
    WITH RECURSIVE root AS (
        SELECT i.indexrelid, i.indrelid, i.indisunique, {DEFINITION} AS definition,
               (SELECT contype FROM pg_catalog.pg_constraint AS k
                WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u')) AS contype
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE i.indexrelid = to_regclass(%s)
    ), tree AS (
        SELECT indrelid AS oid, indexrelid AS index, NULL::oid AS above, 0 AS level FROM root
        UNION ALL
        SELECT h.inhrelid, own.indexrelid, tree.index, tree.level + 1
        FROM tree
        JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid AND NOT h.inhdetachpending
        LEFT JOIN LATERAL (
            SELECT i.indexrelid FROM pg_catalog.pg_inherits AS a
            JOIN pg_catalog.pg_index AS i ON i.indexrelid = a.inhrelid
            WHERE a.inhparent = tree.index AND i.indrelid = h.inhrelid
        ) AS own ON true
    )
    SELECT c.oid::regclass::text, c.relname, n.nspname, c.relkind = 'r', tree.above::regclass::text,
           tree.index::regclass::text, equal.name,
           COALESCE(equal.valid, (SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = tree.index),
                    false),
           COALESCE(equal.contype IS NOT NULL, false)
    FROM tree
    CROSS JOIN root
    JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT i.indexrelid::regclass::text AS name, i.indisvalid AND i.indisready AS valid, k.contype
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
        LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
            AND k.conrelid = i.indrelid
        WHERE tree.index IS NULL AND i.indrelid = tree.oid AND i.indisunique = root.indisunique
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS a WHERE a.inhrelid = i.indexrelid)
          AND (root.contype IS NULL OR k.contype = root.contype
               OR k.contype IS NULL AND x.relname ~ '_p?key[0-9]*$')  -- built for it, and no other index
          AND {DEFINITION} = root.definition
        ORDER BY k.contype IS NOT DISTINCT FROM root.contype DESC, valid DESC, i.indexrelid LIMIT 1
    ) AS equal ON true
    WHERE tree.level > 0
    ORDER BY tree.level, c.relname, c.oid
"""
_WHOLE = f"""
    SELECT c.relname, CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, {DEFINITION},
           ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute
                 WHERE attrelid = i.indexrelid AND attnum > 0 ORDER BY attnum),
           COALESCE((SELECT CASE contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END
                     FROM pg_catalog.pg_constraint AS k
                     WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u')), '')
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid AND x.relkind = 'I'
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE i.indexrelid = to_regclass(%s)
"""


def find(connection: Connection, index: str) -> PartitionedIndex | None:
    """Return the index of a partitioned table; None where there is none of that name.

    :param index: without quotes.
    """
    for table, unique, definition, columns, constraint in rows(connection, _WHOLE, (quoted(index),)):
        return PartitionedIndex(index, table, unique, definition, tuple(columns), constraint)
    return None


def parent_of(connection: Connection, index: str) -> str | None:
    """Return the index that an index is attached to, as SQL writes it; None for none."""
    sql = "SELECT inhparent::regclass::text FROM pg_catalog.pg_inherits WHERE inhrelid = to_regclass(%s)"
    parent: str | None = scalar(connection, sql, (quoted(index),))
    return parent


def complete(context: MigrationContext, whole: PartitionedIndex, *, changed: bool = False) -> None:
    """Give each partition its part of an index, until the index is valid.

    A partition that appears meanwhile is included, since the catalogs are read again after each step.

    :param changed: whether the transaction has made something for it already.
    :raises OnlineStepError: when each has its part, and the index is not valid all the same.
    """
    connection = session_of(context)
    while (part := next(_missing(whole.parts(connection)), None)) is not None:
        changed = True
        if not part.is_leaf:
            if part.equal is None:
                run_sql(context, _on_table_alone(whole, part))
                continue
        elif part.equal is None or not part.is_valid:
            what = f"build index {whole.index} on partition {part.table}"
            online(context, what, partial(_build, whole=whole, table=part.table))
            continue
        _attach(context, whole, part)
    if changed:
        commit(context)
    if not execute.index_is_valid(connection, quoted(whole.index)):
        online(context, f"build index {whole.index} again where it is invalid", partial(_mend, whole=whole))


def _missing(parts: list[IndexPart]) -> Iterator[IndexPart]:
    """Yield the partitions without their part, the partitioned ones first: what is below needs theirs."""
    lacking = [part for part in parts if part.attached is None and part.above is not None]
    yield from sorted(lacking, key=lambda part: part.is_leaf)


def _on_table_alone(whole: PartitionedIndex, part: IndexPart) -> str:
    if whole.constraint:
        columns = ", ".join(map(quoted, whole.columns))
        return f"ALTER TABLE ONLY {part.table} ADD {whole.constraint} ({columns})"
    return f"CREATE {whole.unique}INDEX ON ONLY {part.table} {whole.definition}"


def _attach(context: MigrationContext, whole: PartitionedIndex, part: IndexPart) -> None:
    """Attach the part of a partition, with the constraint that it enforces."""
    assert part.equal is not None
    if whole.constraint and not part.has_constraint:
        (name,) = rows(
            session_of(context),
            "SELECT quote_ident(relname) FROM pg_catalog.pg_class WHERE oid = %s::regclass",
            (part.equal,),
        )[0]
        run_sql(
            context,
            f"ALTER TABLE {part.table} ADD CONSTRAINT {name} {whole.constraint} USING INDEX {name}",
        )
    run_sql(context, f"ALTER INDEX {part.above} ATTACH PARTITION {part.equal}")


def _build(step: OnlineStep, *, whole: PartitionedIndex, table: str) -> None:
    """Build the part of one leaf concurrently; what an interrupted build has left is awaited or dropped."""
    execute.tune_for_index_build(step)
    for _ in range(_ROUNDS):
        if (part := _part(step, whole, table)) is None:
            return  # it is no partition any more, or has got its part
        if part.equal is not None and not part.is_valid:
            execute.await_builder(step, part.equal, part.equal)
            if execute.index_is_valid(step.connection, part.equal) is False:
                execute.drop_invalid(step, part.equal)
            continue
        if part.equal is not None:
            return
        name = quoted(whole.name_for(step.connection, part))
        schema = quoted(part.schema)
        try:
            step.execute(f"CREATE {whole.unique}INDEX CONCURRENTLY {name} ON {table} {whole.definition}")
        except (psycopg2.errors.DuplicateTable, psycopg2.errors.UndefinedTable):
            continue
        except psycopg2.Error as error:
            remedies.note_index(step.connection, f"{schema}.{name}", error)
            execute.drop_remains(step, f"{schema}.{name}")
            raise
    if (part := _part(step, whole, table)) is not None and not part.is_valid:
        raise OnlineStepError(f"The build of index {whole.index} on partition {table} left no valid index.")


def _part(step: OnlineStep, whole: PartitionedIndex, table: str) -> IndexPart | None:
    """Return a partition that still lacks its part."""
    lacking = _missing(whole.parts(step.connection))
    return next((part for part in lacking if part.table == table), None)


def _mend(step: OnlineStep, *, whole: PartitionedIndex) -> None:
    """Build attached parts again that are invalid, and let the server look again.

    :raises OnlineStepError: when the index is still not valid.
    """
    for part in whole.parts(step.connection):
        if part.is_leaf and not part.is_valid and part.attached is not None:
            execute.tune_for_index_build(step)
            step.execute(f"REINDEX INDEX CONCURRENTLY {part.attached}")
            step.execute(f"ALTER INDEX {part.above} ATTACH PARTITION {part.attached}")
    if not execute.index_is_valid(step.connection, quoted(whole.index)):
        raise OnlineStepError(
            f"Index {whole.index} of table {whole.table} is invalid, though each partition has its part.",
            next_step=f"Drop it, then: guvnor migrate up\n{plain_forms.drop_index(whole.index)}",
        )
