"""Tables and columns: created, altered and dropped while the application uses them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from guvnor.autogenerate import casts, generated, other_objects, retyped_columns
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.dependents import NONE, Dependents
from guvnor.autogenerate.emitted_operations import (
    EmittedOperation,
    Phase,
    emitted,
    execute,
    guarded,
    todo,
)
from guvnor.autogenerate.rows_touched import touches_rows
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import unquoted
from guvnor.schema import column_ddl, ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import Statement, find, statement, table_of, terminated

_CONSTRAINTS = ("primary key", "foreign key", "unique", "check", "exclusion")  # in this order
DONE_WITH_TYPE = ("type", "collation", "default", "storage", "compression")
_BEYOND = ("partition bound", "inherits from", "of type", "foreign server", "tablespace")

_TAKES_NAME = {"renaming-object": "it takes the name that is free only now."}

_NOTICED = (
    "This touches no row, but a prepared statement that selects the column fails once on each connection: "
    "0A000, cached plan must not change result type."
)
_ZONED = "timestamp with time zone", "timestamp without time zone"
_WHICH_ZONE = (
    "In which time zone are the values of {0}? Sessions of revisions are in UTC, so they are taken for UTC. "
    "If they are in another one, USING {1} AT TIME ZONE '...' says so, and writes all rows."
)
_VALIDATED_AFTERWARDS = (
    "The checks on the column would be verified under the lock. So they are added again as NOT VALID, and "
    "validated while the application keeps running."
)


def add_table(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Create a table with its columns and constraints; nobody uses it yet."""
    name, values = item.identity, item.attributes
    if any(values[attribute] for attribute in _BEYOND):
        yield todo(Phase.CREATE, Todo.PARTITIONED_TABLE, table=name)
        return
    columns = [changes.added[f"column:{name}.{column}"] for column in values["column order"] or []]
    constraints = sorted(
        (c for c in changes.added.values() if c.kind == "constraint" and c.parents[0] == item.handle),
        key=lambda c: (_CONSTRAINTS.index(c.attributes["type"]), c.identity),
    )
    taken = [constraint for constraint in constraints if other_objects.takes_name(changes, constraint)]
    inside = [
        constraint
        for constraint in constraints
        # CREATE TABLE takes every constraint for a valid one.
        if not changes.refers_to_later(constraint)
        and not retyped_columns.comes_later(changes, constraint)
        and constraint.attributes["validated"]
    ]
    width = max((len(column.name) for column in columns), default=0)
    lines = [f"{column.name:<{width}}  {column_ddl.definition(column)}" for column in columns]
    lines += [_constraint(ddl.beside(part) if part in taken else part) for part in inside]
    persistence = "UNLOGGED " if values["persistence"] == "UNLOGGED" else ""
    partitioned = f" PARTITION BY {values['partition key']}" if values["partition key"] else ""
    body = ",\n".join(f"    {line}" for line in lines)
    yield execute(Phase.CREATE, f"CREATE {persistence}TABLE IF NOT EXISTS {name} (\n{body}\n){partitioned}")
    for part in (*columns, *inside):
        if part in taken:
            takes = ddl.rename(part, ddl.beside(part).name, part.name)
            yield guarded(Phase.TAKE_NAME, takes, reasons=_TAKES_NAME)
        yield from emitted(Phase.TAKE_NAME if part in taken else Phase.CREATE, ddl.further(part))
    yield from emitted(Phase.ATTACH, ddl.further(item))  # its replica identity may be an index
    for constraint in constraints:
        if constraint not in inside:
            plain = replace(constraint, attributes={**constraint.attributes, "validated": False})
            late = retyped_columns.comes_later(changes, constraint)
            yield from emitted(Phase.ATTACH if late else Phase.CHANGE, ddl.create(plain) or [])


def alter_table(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Alter the attributes of a table as a whole."""
    names = tuple(name for name in alteration.names if name != "column order")
    if "column order" in alteration.names and not changes.back:
        yield reordered(alteration.after.identity, alteration.before.attributes["column order"])
    if "row security" in names and not alteration.after.attributes["row security"]:
        # Together with its policies: without them nobody would see a row.
        yield from _taken_away(Phase.UNTIE, alteration, "row security")
        names = tuple(name for name in names if name != "row security")
    yield from other_objects.alter(changes, shadow, replace(alteration, names=names))


def _taken_away(phase: Phase, alteration: Alteration, name: str) -> Iterator[EmittedOperation]:
    """Alter one attribute in a phase of its own."""
    statements, _ = ddl.alter(alteration.after, alteration.before, [name])
    yield from emitted(phase, statements)


def reordered(table: str, order: list[str]) -> EmittedOperation:
    """Return a TODO for the order of columns, which no statement changes.

    :param order: the order in which the columns will be.
    """
    return todo(Phase.LEAVE, Todo.REORDER_COLUMNS, table=table, order=", ".join(order))


def orders(changes: Changes, anew: Collection[str]) -> Iterator[EmittedOperation]:
    """Yield a TODO for each table in which added columns will not be where the models have them.

    :param anew: handles of columns that are dropped and added again.
    """
    for key in sorted(changes.tables):
        table = changes.before.objects[key].identity
        there, wanted = (
            side.objects[key].attributes["column order"] or [] for side in (changes.before, changes.after)
        )
        last = [name for name in wanted if f"column:{table}.{name}" in anew]
        kept = [name for name in there if name in wanted and name not in last]
        will_be = [*kept, *(name for name in wanted if name not in there), *last]
        if will_be != wanted and kept == [name for name in wanted if name in kept]:
            yield reordered(table, will_be)


def _constraint(item: Object) -> str:
    line = f"CONSTRAINT {item.name} {item.attributes['definition']}"
    return line if len(line) <= 90 else f"CONSTRAINT {item.name}\n        {item.attributes['definition']}"


def add_column(changes: Changes, shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Add a column without writing rows while the table is locked."""
    if _is_of_view(changes, item):  # the view's definition has everything but the comment
        yield from emitted(Phase.ATTACH, ddl.further(item))
        return
    if changes.comes_with_table(item):
        return
    table, name, values = table_of(item), item.name, item.attributes
    whole, bare = column_ddl.definition(item), column_ddl.type_of(values)
    must_be_filled = column_ddl.must_be_filled(item)
    phase = Phase.ATTACH if retyped_columns.comes_later(changes, item) else Phase.CHANGE
    probe = f"ALTER TABLE {table} ADD COLUMN guvnor_probe"
    rewrites = not must_be_filled and touches_rows(shadow, table, [f"{probe} {whole}"])
    # A domain with a check rewrites the table even without a default.
    if rewrites and (values["default"] is None or touches_rows(shadow, table, [f"{probe} {bare}"])):
        sql = [column_ddl.add(item, whole, "IF NOT EXISTS "), *(s.sql for s in ddl.further(item))]
        yield todo(phase, Todo.REWRITES_TABLE, sql, column=item.identity)
        return
    statements = [column_ddl.add(item, bare if must_be_filled or rewrites else whole)]
    if rewrites:
        statements += [s.sql for s in column_ddl.attributes(item, item)["default"]]
    statements += [s.sql for s in ddl.further(item)]
    yield guarded(phase, statement(terminated(statements), unless=find("column", table, name)))
    if must_be_filled:
        yield from generated.fill(item)
    elif rewrites:
        remark = "The default differs from row to row, so rows are not filled while the table is locked."
        arguments = (unquoted(table), f"{name} = DEFAULT", f"{name} IS NULL")
        yield EmittedOperation(Phase.BACKFILL, "backfill", arguments, remarks=(remark,))
    if values["not null"] and rewrites and not must_be_filled:
        yield EmittedOperation(Phase.NOT_NULL, "set_not_null", (unquoted(table), unquoted(name)))


def drop_column(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Drop a column; the server drops its indexes and constraints with it."""
    if changes.goes_along(item) or _is_of_view(changes, item):
        return
    order = changes.before.objects[item.parents[0]].attributes["column order"] or [item.name]
    (dropped,) = emitted(Phase.DROP, ddl.drop(item) or [])
    if not changes.back and item.name != order[-1]:
        last = "A downgrade brings it back as the last column: PostgreSQL adds columns at the end."
        dropped = replace(dropped, remarks=(*dropped.remarks, last))
    yield dropped


def alter_column(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Alter a column without reading or writing rows while the table is locked."""
    if _is_of_view(changes, alteration.after):
        return
    names = alteration.names
    if generated.is_computed_anew(alteration):
        yield from generated.alter(changes, shadow, alteration)
        return
    if "identity generation" in names and alteration.after.attributes["identity generation"] is None:
        # Its sequence may have the name of one that the column is given instead.
        yield from _taken_away(Phase.DETACH, alteration, "identity generation")
        names = tuple(name for name in names if name != "identity generation")
    if "not null" in names and not alteration.after.attributes["not null"]:
        yield from _taken_away(Phase.DROP, alteration, "not null")
        names = tuple(name for name in names if name not in ("not null", "not null constraint"))
    if {"type", "collation"} & set(names):
        yield from _retype(changes, shadow, alteration)
        names = tuple(name for name in names if name not in DONE_WITH_TYPE)
    yield from other_objects.alter(changes, shadow, replace(alteration, names=names))


@dataclass(frozen=True)
class Retyping:
    """How a column gets another type.

    :ivar sql: the statement.
    :ivar touches: whether it reads or writes rows.
    :ivar checks: what it adds again as NOT VALID.
    :ivar again: what the server forgets by it.
    :ivar loses: the data that it loses without an error; empty where it loses none.
    :ivar question: what only a person knows about the values; empty where nothing is to be asked.
    """

    alteration: Alteration
    sql: str
    touches: bool
    checks: Sequence[Object]
    again: Sequence[Statement]
    loses: str
    question: str

    @property
    def statements(self) -> list[str]:
        """The statement, and what brings back what it makes the server forget."""
        return [self.sql, *(made.sql for made in self.again)]

    @property
    def remarks(self) -> list[str]:
        """What the reviewer has to know."""
        table = table_of(self.alteration.after)
        said = [f"LOCKS {table} while all its rows are read or written: nobody can use it until then."]
        if not self.touches:
            said = [_NOTICED, *([_VALIDATED_AFTERWARDS] if self.checks else [])]
        said += [self.question] if self.question else []
        return [*said, f"DATA LOSS: {self.loses}."] if self.loses else said

    def left_to_a_person(self, phase: Phase, dependents: Dependents = NONE) -> EmittedOperation:
        """Return the TODO of an upgrade in which the statement would make everybody wait."""
        before, after = self.alteration.before.attributes, self.alteration.after
        facts = {
            "column": after.identity,
            "type": column_ddl.type_of(after.attributes),
            "was": before["type"],
            "warning": "DATA LOSS: " if self.loses else "",
            "question": f"{self.question} " if self.question else "",
        }
        return todo(phase, Todo.CHANGES_TYPE, dependents.around(self.statements), **facts)


def _retype(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Change a column's type; where that touches all rows, a person has to decide on the upgrade."""
    before, after = alteration.before, alteration.after
    if after.attributes["generated"] or before.attributes["generated"]:
        facts = {"column": after.identity, "type": column_ddl.type_of(after.attributes)}
        yield todo(Phase.CHANGE, Todo.GENERATED_TYPE, **facts)
        return
    found = retyping(changes, shadow, alteration)
    if found.touches and not changes.back:
        yield found.left_to_a_person(Phase.CHANGE)
        return
    made = statement(found.sql, replaces="constraint" if found.checks else "")
    yield from emitted(Phase.CHANGE, [made], *found.remarks)
    yield from emitted(Phase.CHANGE, found.again)
    yield from emitted(Phase.CHANGE, map(ddl.validate, found.checks))


def retyping(
    changes: Changes, shadow: Shadow, alteration: Alteration, dependents: Dependents = NONE
) -> Retyping:
    """Find out how a column gets another type.

    :param dependents: what is dropped before.
    """
    before, after = alteration.before, alteration.after
    table, old, new = table_of(after), before.attributes, after.attributes
    # The probe leaves out the checks, which are verified again even where no row is written.
    every_check = {check.name for side in (changes.before, changes.after) for check in _checks(side, after)}
    in_shadow = dependents.before if changes.back else dependents.after  # it holds the models' schema
    probe = [
        *(f"DROP CONSTRAINT IF EXISTS {name}" for name in every_check),
        f"ALTER COLUMN {after.name} DROP DEFAULT",
        column_ddl.retype(after, old, cast=True),
        column_ddl.retype(after, new, cast=False),
    ]
    drops = [f"{sql} CASCADE" for sql in Dependents(before=in_shadow).drops]
    sorts_anew = old["collation"] != new["collation"]
    tried = [*drops, *(f"ALTER TABLE {table} {part}" for part in probe)]
    touches = sorts_anew or bool(dependents.along) or touches_rows(shadow, table, tried)
    cast = casts.try_out(shadow, old, new)
    # The server would verify the unchanged valid checks again for the new type.
    changed = {*changes.added, *(alteration.after.handle for alteration in changes.altered)}
    valid = [check for check in _checks(changes.after, after) if check.attributes["validated"]]
    checks = [] if touches else [check for check in valid if check.handle not in changed]
    actions = [
        *(f"DROP CONSTRAINT IF EXISTS {check.name}" for check in checks),
        *column_ddl.retype_actions(before, after, cast=touches and not cast.assignable),
        *(f"ADD CONSTRAINT {check.name} {check.attributes['definition']} NOT VALID" for check in checks),
    ]
    kept = {made.sql for made in ddl.lost_with_type(changes.before, after)}
    asks = not changes.back and _zoned(str(old["type"]), str(new["type"]))
    return Retyping(
        alteration,
        f"ALTER TABLE {table} " + ",\n    ".join(actions),
        touches,
        checks,
        [made for made in ddl.lost_with_type(changes.after, after) if made.sql in kept],
        loses=f"what {after.identity} holds beyond the type {column_ddl.type_of(new)}" if cast.loses else "",
        question=_WHICH_ZONE.format(after.identity, after.name) if asks else "",
    )


def _zoned(old: str, new: str) -> bool:
    """Tell whether a timestamp gets or loses its time zone; the server casts by that of the session."""
    kinds = [re.sub(r"\(\d+\)", "", name) for name in (old, new)]
    return kinds[0] != kinds[1] and all(kind in _ZONED for kind in kinds)


def _checks(snapshot: Snapshot, column: Object) -> list[Object]:
    """Return the checks that name a column."""
    constraints = snapshot.of_kind("constraint")
    return [c for c in constraints if c.attributes["type"] == "check" and column.handle in c.parents]


def _is_of_view(changes: Changes, item: Object) -> bool:
    relation = changes.after.objects.get(item.parents[0]) or changes.before.objects.get(item.parents[0])
    return relation is not None and "view" in relation.kind
