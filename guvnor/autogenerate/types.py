"""Types: enums whose values come, go and change their names, and what is made as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.autogenerate.changes import Alteration, Changes, bare_name
from guvnor.autogenerate.constraints import beside
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, call, execute, guarded, todo
from guvnor.postgres.quoting import constant
from guvnor.schema import reconcile
from guvnor.schema.reconcile import extras, own_name, table_of
from guvnor.schema.settle import renamed_label
from guvnor.schema.snapshot import Object


def add(_changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Make a type."""
    if item.sql is None:
        yield todo(Phase.CREATE, f"the {item} is written by hand.")
        return
    condition = (
        f"FROM pg_type\nWHERE typname = {constant(bare_name(item))} AND typnamespace = "
        "current_schema()::regnamespace"
    )
    yield guarded(Phase.CREATE, condition, [item.sql, *extras(item)])


def drop(_changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop a type that no column has any more."""
    yield execute(Phase.DROP, f"DROP TYPE IF EXISTS {item.identity}")


def alter(changes: Changes, _probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Add values to an enum, rename one, or take some away."""
    before, after = alteration.before, alteration.after
    for attribute in alteration.names:
        statements = reconcile.alterations(after, before, [attribute])
        if attribute == "labels" and after.attributes["form"] == "enum":
            yield from _labels(changes, before, after)
        elif statements is None:
            yield todo(
                Phase.CHANGE,
                f"{attribute} of the {after}: {before.attributes.get(attribute)} becomes "
                f"{after.attributes.get(attribute)}.",
            )
        else:
            yield from (execute(Phase.CHANGE, statement) for statement in statements)


def _labels(changes: Changes, before: Object, after: Object) -> Iterator[Step]:
    old, new = before.attributes["labels"] or [], after.attributes["labels"] or []
    name = bare_name(after)
    if pair := renamed_label(after, before):
        wanted, there = pair
        yield guarded(
            Phase.CHANGE,
            f"EXISTS FROM pg_enum\nWHERE enumtypid = {constant(after.identity)}::regtype AND enumlabel = "
            f"{constant(there)}",
            [f"ALTER TYPE {after.identity} RENAME VALUE {constant(there)} TO {constant(wanted)}"],
            "The application versions before and after must both know the name that they find.",
        )
    elif [label for label in new if label in old] == old:
        for number, label in enumerate(new):
            if label not in old:
                place = {"after": new[number - 1]} if number else {"before": old[0]}
                yield call(Phase.ENUM_VALUE, "add_enum_value", name, label, **place)
    elif changes.back:
        yield from _made_anew(changes, before, after)
    else:
        yield todo(
            Phase.CHANGE,
            f"the enum {after.identity} loses values or has them in another order: PostgreSQL has to make "
            "the type anew and write each table that uses it, while nobody can use it. A value that nobody "
            "writes any more can stay: leave it in guvnor/models.py.",
        )


def _made_anew(changes: Changes, before: Object, after: Object) -> Iterator[Step]:
    """Make an enum without the values that a downgrade takes away; a row that holds one stops it.

    Checks and indexes that name the type are dropped before it and come back after it.
    """
    name, old = after.identity, beside(after, "_old")
    users = [item for item in changes.after.of_kind("column") if f"type:{name}" in item.parents]
    naming = [
        item
        for item in (*changes.after.of_kind("constraint"), *changes.after.of_kind("index"))
        if f"type:{name}" in item.parents and item.handle not in changes.added
    ]
    columns = {column.handle for column in users}
    naming += [  # an expression or predicate on the column alone depends on the type as well
        item
        for item in changes.after.of_kind("constraint", "index")
        if item not in naming
        and item.handle not in changes.added
        and columns & set(item.parents)
        and (item.attributes.get("type") == "check" or item.attributes.get("predicate"))
    ]
    dropped = [
        f"ALTER TABLE {table_of(item)} DROP CONSTRAINT {own_name(item)}"
        if item.kind == "constraint"
        else f"DROP INDEX {own_name(item)}"
        for item in naming
    ]
    retyped = []
    for column in users:
        alter, values = f"ALTER TABLE {table_of(column)} ALTER COLUMN {own_name(column)}", column.attributes
        there = changes.before.get(column.handle)
        if values["default"] is not None or (there and there.attributes["default"] is not None):
            retyped.append(f"{alter} DROP DEFAULT")
        retyped.append(f"{alter} TYPE {values['type']} USING {own_name(column)}::text::{values['type']}")
        if values["default"] is not None:
            retyped.append(f"{alter} SET DEFAULT {values['default']}")
    again = [
        f"{item.sql} NOT VALID"
        if item.kind == "constraint" and item.attributes["validated"]
        else str(item.sql)
        for item in naming
    ]
    gone = [
        label
        for label in before.attributes["labels"] or []
        if label not in (after.attributes["labels"] or [])
    ]
    held = ", ".join(map(constant, gone or before.attributes["labels"][:1]))
    tables = ", ".join(sorted({table_of(column) for column in users})) or "nothing"
    yield guarded(
        Phase.DROP,  # after the columns and defaults that go
        f"EXISTS FROM pg_enum\nWHERE enumtypid = {constant(name)}::regtype AND enumlabel IN ({held})",
        [
            *dropped,
            f"ALTER TYPE {name} RENAME TO {old}",
            str(after.sql),
            *retyped,
            f"DROP TYPE {old}",
            *again,
            *extras(after),
        ],
        f"LOCKS {tables} while all rows are written: PostgreSQL cannot take a value away from an enum, so "
        "the type is made anew. A row that holds the value stops it, and nothing is changed.",
    )
    for item in naming:
        if item.kind == "constraint" and item.attributes["validated"]:
            yield call(Phase.VALIDATE, "validate_constraint", table_of(item).strip('"'), bare_name(item))
