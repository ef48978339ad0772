"""The rows of a pair: what is put into the first schema, and what must be there later."""

from __future__ import annotations

import re
from typing import Any

from psycopg2.extensions import connection

from tests.schema_pairs.build import type_of
from tests.schema_pairs.things import Schema, Thing

ROWS = 3
_PLACE = "((ctid::text::point)[1]::integer)"  # of a row in its block: from 1 on


def inserts(schema: Schema) -> list[str]:
    """The statements that fill the tables; neither keys nor triggers are asked."""
    found = ["SET session_replication_role = replica"]
    for table in schema.of("table"):
        columns = [
            c
            for c in schema.columns(table.number)
            if not c.facts.get("generated") and not c.facts.get("identity")
        ]
        if "partition key" in table.facts and not schema.of("partition", on=table.number):
            continue
        values = []
        for column in columns:
            value = schema.filled(column, type_of(schema, column).value)
            values.append(f"CASE WHEN i < {ROWS} THEN {value} END" if column.facts.get("nulls") else value)
        names = ", ".join(schema.name(column.number) for column in columns)
        into = f"INSERT INTO {schema.name(table.number)}"
        if columns:
            found.append(f"{into} ({names}) SELECT {', '.join(values)} FROM generate_series(1, {ROWS}) AS i")
        else:
            found += [f"{into} DEFAULT VALUES"] * ROWS
    found += [f"REFRESH MATERIALIZED VIEW {schema.name(v.number)}" for v in _inner_first(schema)]
    return [*found, "RESET session_replication_role"]


def _inner_first(schema: Schema) -> list[Thing]:
    return [thing for thing in schema.in_order() if thing.kind == "materialized view"]


def backfill(schema: Schema, column: Thing) -> str:
    """An expression that fills a column with a value for each row."""
    return re.sub(r"\bi\b", _PLACE, schema.filled(column, type_of(schema, column).value))


def kept(
    session: connection, before: Schema, after: Schema
) -> dict[int, tuple[list[int], list[tuple[Any, ...]]]]:
    """The values, as the schema after the migration would show them, that must be there before and after.

    :param session: to the database before it.
    :returns: by table: the columns and their values.
    """
    found = {}
    for table in _tables(before, after):
        columns = [
            c for c in before.columns(table.number)
            if c.number in after
            and not after[c.number].facts.get("generated")
            and not c.facts.get("generated")
        ]  # fmt: skip
        shown = [_cast(before, after, column) for column in columns]
        found[table.number] = [c.number for c in columns], _select(session, before, table, shown)
    return found


def there(session: connection, schema: Schema, tables: dict[int, Any]) -> dict[int, Any]:
    """The values of the same columns after it."""
    return {
        table: (
            columns,
            _select(session, schema, schema[table], [f"{schema.name(c)}::text" for c in columns]),
        )
        for table, (columns, _) in tables.items()
    }


def _tables(before: Schema, after: Schema) -> list[Thing]:
    return [table for table in before.of("table") if table.number in after]


def _cast(before: Schema, after: Schema, column: Thing) -> str:
    name, old, new = before.name(column.number), column.sql, after[column.number].sql
    if old == new or new.startswith("{"):
        return f"{name}::text"
    via = "::text" if {old, new} & {"interval", "integer[]"} or old.startswith("{") or "bool" in old else ""
    return f"{name}{via}::{new}::text"


def _select(session: connection, schema: Schema, table: Thing, shown: list[str]) -> list[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute(f"SELECT ARRAY[{', '.join(shown)}]::text[] FROM {schema.name(table.number)}")
        return sorted((tuple(row) for (row,) in cursor), key=repr)
