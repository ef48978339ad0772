"""Generated columns that get another expression, or become generated: every row is computed anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from guvnor.autogenerate import casts
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.computed import REASONS, added, again, along_with, dropped
from guvnor.autogenerate.dependents import NONE, Dependents
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, call, execute, todo
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import constant, unquoted
from guvnor.schema import column_ddl, ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import find, table_of

_SET_EXPRESSION = 170000  # since this version (PostgreSQL documentation, ALTER TABLE)


def is_computed_anew(alteration: Alteration) -> bool:
    """Tell whether a column becomes a generated one, or gets another expression or type as one.

    A virtual one that becomes a plain column counts, too: the server has no values of it that it could keep.
    """
    changed = {"generated", "type", "collation"} & set(alteration.names)
    computed = alteration.after.attributes.get("generated") is not None
    return bool(changed) and (computed or _was_virtual(alteration))


def _was_virtual(alteration: Alteration) -> bool:
    before, after = (side.attributes.get("generated") for side in (alteration.before, alteration.after))
    return after is None and str(before).startswith("VIRTUAL ")


def is_added_again(changes: Changes, alteration: Alteration, shadow: Shadow) -> bool:
    """Tell whether a column has to be dropped and added again, since no statement changes it."""
    if not is_computed_anew(alteration):
        return False
    before, after = (side.attributes["generated"] for side in (alteration.before, alteration.after))
    kinds = {str(side).partition(" ")[0] for side in (before, after)}
    other = None in (before, after) or len(kinds) > 1 or bool({"type", "collation"} & set(alteration.names))
    if other or shadow.driver.server_version < _SET_EXPRESSION:
        return True
    return kinds == {"VIRTUAL"} and _is_checked(changes, table_of(alteration.after))


def _is_checked(changes: Changes, table: str) -> bool:
    """Tell whether a table or one of its children has a check.

    The server sets no expression of a virtual column there (SQLSTATE 0A000).
    """
    for side in (changes.before, changes.after):
        tables, size = {table}, 0
        while size != len(tables):
            size = len(tables)
            above = ((c.identity, c.attributes["inherits from"] or ()) for c in side.of_kind("table"))
            tables |= {name for name, parents in above if not tables.isdisjoint(parents)}
        checks = (c for c in side.of_kind("constraint") if c.attributes["type"] == "check")
        if any(table_of(check) in tables for check in checks):
            return True
    return False


def alter(
    changes: Changes, shadow: Shadow, alteration: Alteration, dependents: Dependents = NONE
) -> Iterator[EmittedOperation]:
    """Give a generated column another expression, or make a column a generated one.

    :param dependents: what is dropped before and created again, where the column is.
    """
    before, after = alteration.before, alteration.after
    table, values = table_of(after), after.attributes
    kind, _, expression = str(values["generated"] or before.attributes["generated"]).partition(" ")
    stored = kind == "STORED" or values["generated"] is None
    remarks = (
        [f"LOCKS {table} while all its rows are written: nobody can use it until then."] if stored else []
    )
    if is_added_again(changes, alteration, shadow):
        along = along_with(changes.after, changes.before, after)
        if values["generated"] is None:
            fits = casts.try_out(shadow, before.attributes, values).assignable
            filled = _filled(after, expression) if fits else added(_empty(after), [])
            statements = [dropped(after), *filled, *again(along)]
            if not fits and column_ddl.must_be_filled(after):
                yield from fill(after)
            if not changes.back:
                sql = dependents.around(statements)
                yield todo(Phase.REPLACE, Todo.NO_LONGER_COMPUTED, sql, column=after.identity)
                return
            if not fits:
                remarks.append(f"What was computed is no {values['type']}: the rows get it anew.")
        else:
            statements = [dropped(after), *added(after, along)]
        if before.attributes["generated"] is None:
            if not changes.back:
                sql = dependents.around(statements)
                yield todo(Phase.REPLACE, Todo.BECOMES_GENERATED, sql, column=after.identity)
                return
            remarks.append(f"DATA LOSS: what was written to {after.identity} since the upgrade.")
    else:
        statements = [f"ALTER TABLE {table} ALTER COLUMN {after.name} SET EXPRESSION AS ({expression})"]
    block = dependents.block(statements, _another(after))
    yield execute(Phase.REPLACE, block, *remarks, reasons={**dependents.reasons, **REASONS})


def fill(column: Object) -> Iterator[EmittedOperation]:
    """Leave it to a person what existing rows get in a column that is NOT NULL, and set that afterwards."""
    table, name = unquoted(table_of(column)), column.name
    backfill = call("backfill", table, f"{name} = ...", f"{name} IS NULL")
    yield todo(Phase.BACKFILL, Todo.FILL_COLUMN, column=column.identity, backfill=backfill)
    yield EmittedOperation(Phase.NOT_NULL, "set_not_null", (table, unquoted(name)))


def _empty(column: Object) -> Object:
    """Return a column that existing rows can have: without NOT NULL where they get no value."""
    strict = column.attributes["not null"] and not column_ddl.must_be_filled(column)
    return replace(column, attributes={**column.attributes, "not null": strict})


def _filled(column: Object, expression: str) -> list[str]:
    """Return the statements that add a column with the values that an expression has in each row."""
    values = column.attributes
    bare = replace(column, attributes={**values, "not null": False})
    alter = f"ALTER TABLE {table_of(column)} ALTER COLUMN {column.name}"
    statements = [
        column_ddl.add(column, column_ddl.definition(bare)),
        f"{alter} TYPE {column_ddl.type_of(values)} USING {expression}",
        *(made.sql for made in ddl.further(column)),
    ]
    return [*statements, f"{alter} SET NOT NULL"] if values["not null"] else statements


def _another(column: Object) -> str:
    """Return a query that finds the column as long as it is computed in another way."""
    if column.attributes["generated"] is None:
        computed = "attgenerated <> ''"
        return f"{find('column', table_of(column), column.name)} AND {computed}"
    kind, _, expression = str(column.attributes["generated"]).partition(" ")
    wanted = ", ".join(map(constant, (kind[0].lower(), expression, column.attributes["type"])))
    return (
        "SELECT FROM pg_attribute AS a\n"
        "LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum\n"
        f"WHERE a.attrelid = {constant(table_of(column))}::regclass"
        f" AND a.attname = {constant(unquoted(column.name))}\n"
        "  AND (a.attgenerated, pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod))\n"
        f"      IS DISTINCT FROM ({wanted})"
    )
