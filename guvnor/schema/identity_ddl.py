"""The SQL of identity columns: what adds, alters and drops an identity."""

from __future__ import annotations

import re

from guvnor.postgres.quoting import constant, unquoted
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import Statement, statement, table_of

_OPTION = re.compile(r"(?:START WITH|INCREMENT BY|MINVALUE|MAXVALUE|CACHE) -?\d+|CYCLE")


def alter(expected: Object, actual: Object) -> list[Statement]:
    """Return the statements that give a column another identity, its first one, or none."""
    table, name = table_of(expected), expected.name
    wanted, there = (item.attributes["identity generation"] for item in (expected, actual))
    column = f"ALTER TABLE {table} ALTER COLUMN {name}"
    if wanted is None:
        loses = f"the numbers that {expected.identity} has given"
        return [statement(f"{column} DROP IDENTITY IF EXISTS", loses=loses)]
    when, options = _parts(wanted)
    if there is None:
        add = f"ADD GENERATED {when} AS IDENTITY ({' '.join(options.values())})"
        return [statement(column, add, unless=_is_identity(table, name)), _continued(table, name, options)]
    before, others = _parts(there)
    changes = [f"SET GENERATED {when}"] if when != before else []
    changes += [f"SET {text}" for word, text in options.items() if others.get(word) != text]
    changes += ["SET NO CYCLE"] if "CYCLE" in others and "CYCLE" not in options else []
    return [statement(f"{column} {' '.join(changes)}")] if changes else []


def _parts(generation: str) -> tuple[str, dict[str, str]]:
    """Return when numbers are generated, and the options of the sequence by their first word."""
    when, _, options = generation.removesuffix(")").partition(" (")
    return when, {part.split()[0]: part for part in _OPTION.findall(options)}


def _continued(table: str, name: str, options: dict[str, str]) -> Statement:
    """Return the statement that lets a new identity go on after the numbers that the column holds already."""
    down = "INCREMENT BY -" in options["INCREMENT"]
    last, beyond = ("min", "least") if down else ("max", "greatest")
    return statement(
        f"SELECT setval(d.objid::regclass, {beyond}(n.last, pg_sequence_last_value(d.objid::regclass)))",
        "FROM pg_depend AS d",
        "JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid",
        f"CROSS JOIN (SELECT {last}({name}) AS last FROM {table}) AS n",
        f"WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'i' AND n.last IS NOT NULL"
        f" AND d.refobjid = {constant(table)}::regclass AND a.attname = {constant(unquoted(name))}",
    )


def _is_identity(table: str, name: str) -> str:
    return (
        f"SELECT FROM pg_attribute\nWHERE attrelid = {constant(table)}::regclass"
        f" AND attname = {constant(unquoted(name))} AND attidentity <> ''"
    )
