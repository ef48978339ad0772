"""Columns: added, altered and dropped in tables that the application uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from guvnor.autogenerate.changes import Alteration, Changes, bare_name, unquoted
from guvnor.autogenerate.constraints import added_again
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, call, execute, guarded, todo
from guvnor.postgres.quoting import constant
from guvnor.schema import reconcile
from guvnor.schema.reconcile import own_name, table_of
from guvnor.schema.snapshot import Object, Snapshot

_NOTICED = (
    "The server touches no row for it, but a prepared statement that selects the column fails once on each "
    "connection: 0A000, cached plan must not change result type."
)

# What CREATE TABLE and ADD COLUMN do not say is altered afterwards.
_USUAL = {"comment": None, "compression": "default", "statistics target": "default", "options": None}


def definition(item: Object) -> str:
    """Return a column's definition without its name, as CREATE TABLE has it."""
    values = item.attributes
    parts = [str(values["type"])]
    if values["collation"]:
        parts.append(f"COLLATE {values['collation']}")
    if values["generated"]:
        kind, _, expression = str(values["generated"]).partition(" ")
        parts.append(f"GENERATED ALWAYS AS ({expression}) {kind}")
    if values["identity generation"]:
        when, _, options = str(values["identity generation"]).partition(" (")
        parts.append(f"GENERATED {when} AS IDENTITY ({options}")
    if values["not null"]:
        parts.append("NOT NULL")
    if values["default"] is not None:
        parts.append(f"DEFAULT {values['default']}")
    return " ".join(parts)


def further(item: Object) -> list[str]:
    """Return the statements for what a column's definition does not say."""
    names = [name for name, usual in _USUAL.items() if item.attributes[name] != usual]
    plain = replace(item, attributes={**item.attributes, **_USUAL})
    return reconcile.alterations(item, plain, names) or []


def add(changes: Changes, probe: Probe, item: Object) -> Iterator[Step]:
    """Add a column so that no row is written while the table is locked."""
    if "view" in _kind_of_table(changes, item):  # its definition says all but the comment
        yield from (execute(Phase.ATTACH, statement) for statement in further(item))
        return
    if changes.comes_with_table(item):
        return
    table, name, values = table_of(item), own_name(item), item.attributes
    whole, bare = definition(item), f"{values['type']}{_collation(values)}"
    computed = values["generated"] or values["identity generation"]
    must_be_filled = values["not null"] and values["default"] is None and not computed
    rewrites = not must_be_filled and probe.adding_rewrites(table, whole)
    if not must_be_filled and not rewrites:
        yield _guarded_add(item, [f"ALTER TABLE {table} ADD COLUMN {name} {whole}", *further(item)])
        return
    # A domain with a check has the table written anew even without a default.
    if rewrites and (values["default"] is None or probe.adding_rewrites(table, bare)):
        yield todo(
            Phase.CHANGE,
            f"the new column {item.identity} has the whole table written anew while nobody can use it. Where "
            "the table is small, take this; else add a plain column and use op.backfill.",
            [f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {whole}"],
        )
        return
    statements = [f"ALTER TABLE {table} ADD COLUMN {name} {bare}"]
    if values["default"] is not None:
        statements.append(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {values['default']}")
    yield _guarded_add(item, [*statements, *further(item)])
    if must_be_filled:
        yield todo(
            Phase.BACKFILL,
            f"{item.identity} is NOT NULL and has no default. Say what the rows that are there get, "
            f'op.backfill("{unquoted(table)}", "{name} = ...", "{name} IS NULL"), and see to it that the '
            "application version that is running cannot insert a NULL.",
        )
    else:
        yield call(
            Phase.BACKFILL,
            "backfill",
            unquoted(table),
            f"{name} = DEFAULT",
            f"{name} IS NULL",
            remarks=["The default is another one for each row, so it is not set while the table is locked."],
        )
    if values["not null"]:
        yield call(Phase.NOT_NULL, "set_not_null", unquoted(table), bare_name(item))


def drop(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop a column; its indexes and constraints go with it."""
    if changes.goes_along(item) or "view" in _kind_of_table(changes, item):
        return
    remarks = [f"DATA LOSS: the column {item.identity} and all that it holds."]
    order = _order(changes.before, item)
    if not changes.back and own_name(item) != order[-1]:
        remarks.append("A downgrade brings it back as the last column: PostgreSQL adds columns at the end.")
    yield execute(
        Phase.DROP, f"ALTER TABLE {table_of(item)} DROP COLUMN IF EXISTS {own_name(item)}", *remarks
    )


def alter(changes: Changes, probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Alter a column so that no row is read or written while the table is locked."""
    before, after = alteration.before, alteration.after
    if "view" in _kind_of_table(changes, after):
        return
    names = set(alteration.names)
    table, name = table_of(after), own_name(after)
    prefix = f"ALTER TABLE {table} ALTER COLUMN {name}"
    if names & {"type", "collation"}:
        yield from _retype(changes, probe, alteration)
        names -= {"type", "collation", "default", "storage", "compression"}
    if "identity generation" in names and after.attributes["identity generation"] is None:
        names -= {"identity generation"}
        yield execute(Phase.CHANGE, f"{prefix} DROP IDENTITY IF EXISTS")
    if "not null" in names:
        names -= {"not null", "not null constraint"}
        if after.attributes["not null"]:
            yield call(
                Phase.NOT_NULL,
                "set_not_null",
                unquoted(table),
                bare_name(after),
                remarks=[
                    "Stops at a row that holds NULL: where there may be one, op.backfill comes before it."
                ],
            )
        else:
            yield execute(Phase.CHANGE, f"{prefix} DROP NOT NULL")
    if "generated" in names and after.attributes["generated"] is None:
        names -= {"generated"}
        yield execute(Phase.CHANGE, f"{prefix} DROP EXPRESSION IF EXISTS")
    old, new = (str(side.attributes["not null constraint"]) for side in (before, after))
    if "not null constraint" in names and after.attributes["not null"] and "NOT VALID" not in old + new:
        names -= {"not null constraint"}
        yield guarded(
            Phase.CHANGE,
            f"EXISTS FROM pg_constraint\nWHERE conrelid = {constant(table)}::regclass AND conname = "
            f"{constant(unquoted(old))}",
            [f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}"],
        )
    for attribute in sorted(names):
        statements = reconcile.alterations(after, before, [attribute])
        if statements is None:
            yield todo(
                Phase.CHANGE,
                f"{attribute} of the column {after.identity}: {before.attributes[attribute]} becomes "
                f"{after.attributes[attribute]}.",
            )
        else:
            yield from (execute(Phase.CHANGE, statement) for statement in statements)


def _retype(changes: Changes, probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Give a column another type; where that touches all rows, a person has to decide on the way forward."""
    before, after = alteration.before, alteration.after
    table, name = table_of(after), own_name(after)
    old, new = before.attributes, after.attributes
    alter = f"ALTER TABLE {table} ALTER COLUMN {name}"
    kind = f"{new['type']}{_collation(new)}"
    if new["generated"] or old["generated"]:
        yield todo(Phase.CHANGE, f"the type of the generated column {after.identity} becomes {kind}.")
        return
    default = [f"{alter} SET DEFAULT {new['default']}"] if new["default"] is not None else []
    undefault = [f"{alter} DROP DEFAULT"] if old["default"] is not None else []
    every_check = {
        own_name(check) for side in (changes.before, changes.after) for check in _checks(side, after)
    }
    touches = old["collation"] != new["collation"] or probe.retyping_touches_rows(
        table, name, str(old["type"]), str(new["type"]), without=every_check
    )
    checks = _standing_checks(changes, after)
    if not touches and not checks:
        yield from (execute(Phase.CHANGE, statement) for statement in undefault)
        yield execute(Phase.CHANGE, f"{alter} TYPE {kind}", _NOTICED)
        yield from (execute(Phase.CHANGE, statement) for statement in default)
        return
    if not touches:
        # The server would verify each check on the column again, under the lock.
        again = [
            f"ADD CONSTRAINT {own_name(check)} {check.attributes['definition']} NOT VALID" for check in checks
        ]
        gone = [f"DROP CONSTRAINT IF EXISTS {own_name(check)}" for check in checks]
        yield execute(
            Phase.CHANGE,
            ",\n    ".join(
                [f"ALTER TABLE {table} {gone[0]}", *gone[1:], f"ALTER COLUMN {name} TYPE {kind}", *again]
            ),
            "The checks on the column would be verified under the lock: they come back NOT VALID, and are "
            "validated while the application goes on.",
            _NOTICED,
            *added_again(changes),
        )
        for check in checks:
            yield call(Phase.VALIDATE, "validate_constraint", unquoted(table), bare_name(check))
        return
    cast = f"{alter} TYPE {kind} USING CAST({name}::text AS {new['type']})"
    statements = [*undefault, cast, *default]
    if not changes.back:
        yield todo(
            Phase.CHANGE,
            f"{after.identity} becomes {kind} (it is {old['type']}): the whole table would be read or "
            "written while nobody can use it. Add a column, fill it with op.backfill, and drop the old one "
            "in a later revision. Where the table is small, take this:",
            statements,
        )
        return
    yield from rewriting(table, statements)


def rewriting(table: str, statements: list[str]) -> Iterator[Step]:
    """Return the steps of a downgrade that writes a table anew."""
    first, *rest = statements
    yield execute(
        Phase.CHANGE,
        first,
        f"LOCKS {table} while all its rows are read or written: nobody can use it until then.",
    )
    yield from (execute(Phase.CHANGE, statement) for statement in rest)


def _checks(snapshot: Snapshot, column: Object) -> list[Object]:
    """Return the checks that name a column."""
    constraints = snapshot.of_kind("constraint")
    return [c for c in constraints if c.attributes["type"] == "check" and column.handle in c.parents]


def _standing_checks(changes: Changes, column: Object) -> list[Object]:
    """Return the valid checks on a column that stay as they are, which the server verifies for a new type."""
    altered = {alteration.after.handle for alteration in changes.altered}
    return [
        check
        for check in _checks(changes.after, column)
        if check.attributes["validated"] and check.handle not in changes.added and check.handle not in altered
    ]


def _guarded_add(item: Object, statements: list[str]) -> Step:
    condition = (
        "FROM pg_attribute\n"
        f"WHERE attrelid = {constant(table_of(item))}::regclass AND attname = {constant(bare_name(item))}\n"
        "  AND NOT attisdropped"
    )
    return guarded(Phase.CHANGE, condition, statements)


def _collation(values: Any) -> str:
    return f" COLLATE {values['collation']}" if values["collation"] else ""


def _kind_of_table(changes: Changes, item: Object) -> str:
    relation = changes.after.get(item.parents[0]) or changes.before.get(item.parents[0])
    return relation.kind if relation else ""


def _order(snapshot: Snapshot, item: Object) -> list[str]:
    return list(snapshot.objects[item.parents[0]].attributes["column order"] or [own_name(item)])
