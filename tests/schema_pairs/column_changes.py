"""The kinds of changes to columns."""

from __future__ import annotations

from tests.schema_pairs import makers
from tests.schema_pairs.build import Build, how_stored, type_of
from tests.schema_pairs.changes import change, existing, fits, is_key, old_table, retyped
from tests.schema_pairs.things import Thing
from tests.schema_pairs.values import BY_NAME, CONVERSIONS


@change("add column with default")
def _(b: Build) -> None:
    on = old_table(b).number
    made = makers.column(b, b.second, on)
    kind = type_of(b.second, made)
    if kind.defaults:
        made.facts["default"] = b.pick(kind.defaults)
        made.facts.pop("nulls", None)


@change("add column to fill")
def _(b: Build) -> None:
    on = old_table(b).number
    made = makers.column(b, b.second, on)
    made.facts = {"not null": True}


@change("add identity column")
def _(b: Build) -> None:
    on = old_table(b).number
    if any(c.facts.get("identity") for c in b.second.columns(on)):
        return
    b.add(
        b.second,
        "column",
        b.pick(("integer", "bigint")),
        on=on,
        facts={"not null": True, "identity": makers.identity(b)},
    )


@change("rename and retype column")
def _(b: Build) -> None:
    column = existing(b, "column")
    retype(b, column)
    column.name = b.name("column")


@change("retype column")
def _(b: Build) -> None:
    retype(b, existing(b, "column"))


@change("retype column in view")
def _(b: Build) -> None:
    view = existing(b, "view")
    columns = [b.second[n] for n in view.facts["columns"] if n in b.first]
    columns = [c for c in columns if not c.facts.get("generated") and not c.facts.get("identity")]
    if columns:
        retype(b, b.pick(columns))


@change("retype generated column")
def _(b: Build) -> None:
    column = existing(b, "generated column")
    if retyped(b, column.number) or retyped(b, column.uses[0]):
        return
    base = b.second[column.uses[0]]
    others = [pair for pair in type_of(b.second, base).computed if pair[0] != column.sql]
    if others:
        drop_strict(b, column)
        column.sql, column.facts["generated"] = b.pick(others)


def retype(b: Build, column: Thing) -> None:
    """Give a column another type; what fits only the old one goes."""
    if is_key(b, column) or retyped(b, column.number):
        return
    old = type_of(b.second, column)
    if column.sql in CONVERSIONS:
        new = b.pick(CONVERSIONS[column.sql])
        column.sql = new
    elif column.uses and b.second[column.uses[0]].kind == "enum" and not column.sql.endswith("[]"):
        column.sql, column.uses = "text", ()
    elif column.uses and b.second[column.uses[0]].kind == "domain":
        column.sql, column.uses = b.second[column.uses[0]].facts["base"], ()
    else:
        return
    kind = BY_NAME[column.sql]
    if kind.family != old.family:
        drop_strict(b, column)
        column.facts.pop("collation", None)
        column.more = ()
        if column.facts.get("default"):
            column.facts["default"] = b.pick(kind.defaults) if kind.defaults else None
        for user in b.second.users(column.number):
            if user.kind in ("unique", "primary key", "statistics", "view index") and (
                not kind.distinct or kind.family in ("json text", "range")
            ):
                b.remove(user)


def drop_strict(b: Build, column: Thing) -> None:
    """Take out what fits only the type that a column has."""
    for user in b.second.users(column.number):
        if user.strict:
            b.remove(user)
        elif user.kind in ("unique", "primary key"):
            for key in [k for k in b.second.of("foreign key") if user.number in k.uses]:
                b.remove(key)


@change("set not null")
def _(b: Build) -> None:
    column = existing(b, "column")
    if not column.facts.get("nulls"):
        column.facts["not null"] = True


@change("drop not null")
def _(b: Build) -> None:
    column = existing(b, "column")
    if not any(user.kind == "primary key" for user in b.second.users(column.number)):
        if not column.facts.get("not null") and not column.facts.get("nulls"):
            b.first[column.number].facts["not null"] = True
        column.facts.pop("not null", None)


@change("change default")
def _(b: Build) -> None:
    column = existing(b, "column")
    kind = type_of(b.second, column)
    if column.facts.get("default") and b.chance(40):
        column.facts.pop("default")
    elif kind.defaults:
        column.facts["default"] = b.pick(kind.defaults)


@change("change collation")
def _(b: Build) -> None:
    there = [c for c in b.second.of("column") if c.number in b.first and c.sql in BY_NAME and BY_NAME[c.sql].family == "string"
             and not c.facts.get("generated") and not is_key(b, c)]  # fmt: skip
    if there:
        column = b.pick(there)
        column.facts["collation"] = b.pick(
            [c for c in ("C", "POSIX", None) if c != column.facts.get("collation")]
        )


@change("change column attribute")
def _(b: Build) -> None:
    column = existing(b, "column")
    column.more = () if column.more else (makers.attribute(b, type_of(b.second, column).family),)


@change("become generated")
def _(b: Build) -> None:
    column = existing(b, "column")
    if is_key(b, column) or any(user.kind == "primary key" for user in b.second.users(column.number)):
        return
    bases = [
        c
        for c in makers.plain_columns(b, b.second, column.on or 0)
        if c is not column and type_of(b.second, c).computed and not c.facts.get("identity")
    ]
    if not bases:
        return
    base = b.pick(bases)
    for user in b.second.users(column.number):
        if user.kind not in ("view", "materialized view"):
            b.remove(user)
    b.first[column.number].facts["becomes"] = True
    column.sql, column.facts["generated"] = b.pick(type_of(b.second, base).computed)
    column.facts = {
        "generated": column.facts["generated"],
        "stored": how_stored(b, base, 30),
    }
    column.uses, column.more, column.strict = (base.number,), (), True


@change("no longer generated")
def _(b: Build) -> None:
    column = existing(b, "generated column")
    column.uses, column.facts, column.strict = (), {}, False


@change("become identity")
def _(b: Build) -> None:
    there = [c for c in b.second.of("column") if c.number in b.first and c.sql in ("integer", "bigint") and fits(c, "column") and not is_key(b, c)
             and not c.facts.get("nulls") and not any(o.facts.get("identity") for o in b.second.columns(c.on or 0))]  # fmt: skip
    if there:
        column = b.pick(there)
        column.facts = {"not null": True, "identity": makers.identity(b)}


@change("change identity")
def _(b: Build) -> None:
    there = [c for c in b.second.of("column") if c.number in b.first and c.facts.get("identity")]
    if there:
        column = b.pick(there)
        if b.chance(30):
            column.facts.pop("identity")
        else:
            column.facts["identity"] = makers.identity(b)


@change("move column")
def _(b: Build) -> None:
    columns = b.second.columns(old_table(b).number)
    for place, column in enumerate(b.some(columns, len(columns))):
        column.facts["place"] = place
