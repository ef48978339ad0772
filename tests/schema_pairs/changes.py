"""The kinds of changes from the first schema of a pair to the second."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tests.schema_pairs import makers
from tests.schema_pairs.build import Build, type_of
from tests.schema_pairs.makers import ALONE, ON_TABLES
from tests.schema_pairs.things import Thing
from tests.schema_pairs.values import BY_NAME, CONVERSIONS

Change = Callable[[Build], None]
CHANGES: dict[str, Change] = {}


class NothingLeftError(Exception):
    """The changes before have dropped what a change is about."""


def change(name: str) -> Callable[[Change], Change]:
    def register(function: Change) -> Change:
        CHANGES[name] = function
        return function

    return register


def old_table(b: Build) -> Thing:
    """A table that is in both schemas."""
    there = [t for t in b.second.of("table") if t.number in b.first and "partition key" not in t.facts]
    return b.pick(there) if there else b.second[in_both(b, "table").number]


def in_both(b: Build, kind: str) -> Thing:
    """Put a new thing into both schemas; return the second's."""
    second, b.second = b.second, b.first
    if kind in ALONE:
        made = ALONE[kind](b, b.first)
    else:
        on = [t for t in second.of("table") if t.number in b.first and "partition key" not in t.facts]
        made = ON_TABLES[kind](b, b.first, b.pick(on).number if on else makers.table(b, b.first).number)
    b.second = second
    for number, thing in b.first.things.items():
        if number not in second and number not in b.gone:
            second.things[number] = copy.deepcopy(thing)
    for thing in list(second.things.values()):  # it may have been made of what the second no longer has
        needs = (*thing.uses, *([thing.on] if thing.on else []))
        if any(number not in second for number in needs) or (
            thing.strict and any(_retyped(b, n) for n in needs)
        ):
            b.remove(thing)
    return made


def _retyped(b: Build, number: int) -> bool:
    return (
        number in b.first
        and number in b.second
        and b.first[number].kind == "column"
        and b.first[number].sql != b.second[number].sql
    )


def existing(b: Build, kind: str) -> Thing:
    """A thing of a kind that is in both schemas."""
    there = [t for t in b.second.of(*_KINDS.get(kind, (kind,))) if t.number in b.first and _fits(t, kind)]
    for _ in range(5):
        if there:
            return b.pick(there)
        in_both(b, kind)
        there = [t for t in b.second.of(*_KINDS.get(kind, (kind,))) if t.number in b.first and _fits(t, kind)]
    raise NothingLeftError(kind)


_KINDS = {"generated column": ("column",), "partitioned table": ("table",)}


def _fits(thing: Thing, kind: str) -> bool:
    facts = thing.facts
    return {
        "column": not facts.get("generated") and not facts.get("identity"),
        "generated column": bool(facts.get("generated")),
        "table": "partition key" not in facts,
        "partitioned table": "partition key" in facts,
        "function": not facts.get("trigger"),
    }.get(kind, True)


def is_key(b: Build, column: Thing) -> bool:
    """Whether a table is partitioned by a column."""
    return b.second[column.on or 0].facts.get("partition key") == column.number


def _adder(kind: str) -> Change:
    def add(b: Build) -> None:
        if kind in ALONE:
            ALONE[kind](b, b.second)
        else:
            ON_TABLES[kind](b, b.second, old_table(b).number)

    return add


def _dropper(kind: str) -> Change:
    def drop(b: Build) -> None:
        thing = existing(b, kind)
        if kind == "column" and (is_key(b, thing) or len(b.second.columns(thing.on or 0)) < 2):
            thing = b.second[in_both(b, kind).number]
        b.remove(thing)

    return drop


def _renamer(kind: str) -> Change:
    def rename(b: Build) -> None:
        thing = existing(b, kind)
        thing.name = b.name(kind)

    return rename


def _commenter(kind: str) -> Change:
    def comment(b: Build) -> None:
        thing = existing(b, kind)
        thing.comment = None if thing.comment and b.chance(50) else b.comment()

    return comment


def _remaker(kind: str) -> Change:
    """It is made anew under its old name."""

    def remake(b: Build) -> None:
        thing = existing(b, kind)
        for _ in range(4):
            alone = ALONE.get(kind)
            made = alone(b, b.second) if alone else ON_TABLES[kind](b, b.second, thing.on or 0)
            b.remove(made)
            if (
                thing.number not in made.uses
                and b.unlike(made, thing)
                and all(n in b.second for n in made.uses)
            ):
                break
        else:
            return
        if kind in ("view", "materialized view", "function", "unique", "primary key"):
            for user in b.second.users(thing.number):
                b.remove(user)
        thing.sql, thing.uses, thing.more, thing.facts, thing.strict = (
            made.sql,
            made.uses,
            made.more,
            made.facts,
            made.strict,
        )

    return remake


EVERYWHERE = (
    "table", "column", "primary key", "unique", "check", "foreign key", "exclusion", "index", "statistics",
    "trigger", "policy", "rule", "enum", "domain", "composite", "sequence", "view", "materialized view",
    "function", "procedure", "generated column", "partitioned table",
)  # fmt: skip
for _kind in EVERYWHERE:
    CHANGES[f"add {_kind}"] = _adder(_kind)
    CHANGES[f"drop {_kind}"] = _dropper(_kind)
    if _kind != "generated column":
        CHANGES[f"rename {_kind}"] = _renamer(_kind)
        CHANGES[f"comment {_kind}"] = _commenter(_kind)
for _kind in (
    "primary key", "unique", "check", "foreign key", "exclusion", "index", "statistics", "trigger", "policy",
    "rule", "sequence", "view", "materialized view", "function", "procedure", "generated column",
):  # fmt: skip
    CHANGES[f"change {_kind}"] = _remaker(_kind)


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
    if _retyped(b, column.number) or _retyped(b, column.uses[0]):
        return
    base = b.second[column.uses[0]]
    others = [pair for pair in type_of(b.second, base).computed if pair[0] != column.sql]
    if others:
        drop_strict(b, column)
        column.sql, column.facts["generated"] = b.pick(others)


def retype(b: Build, column: Thing) -> None:
    """Give a column another type; what fits only the old one goes."""
    if is_key(b, column) or _retyped(b, column.number):
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
        "stored": "VIRTUAL" if b.major >= 18 and b.chance(30) else "STORED",
    }
    column.uses, column.more, column.strict = (base.number,), (), True


@change("no longer generated")
def _(b: Build) -> None:
    column = existing(b, "generated column")
    column.uses, column.facts, column.strict = (), {}, False


@change("become identity")
def _(b: Build) -> None:
    there = [c for c in b.second.of("column") if c.number in b.first and c.sql in ("integer", "bigint") and _fits(c, "column") and not is_key(b, c)
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


def _one_side(b: Build, kind: str, other: str) -> None:
    """Put a constraint in place of an index, or the other way round."""
    thing = existing(b, kind)
    if (
        "NULLS" in thing.sql
        or "INCLUDE" in thing.sql
        or "WHERE" in thing.sql
        or "DEFERRABLE" in thing.sql
        or "fillfactor" in thing.sql
    ):
        return
    listed = "(" + ", ".join(f"{{{n}}}" for n in range(len(thing.uses))) + ")"
    b.remove(thing)
    sql = {
        "index": f"CREATE UNIQUE INDEX {{self}} ON {{on}} {listed}",
        "unique": f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} UNIQUE {listed}",
    }
    made = b.add(b.second, other, sql[other], on=thing.on, uses=thing.uses, strict=other == "index")
    if b.chance(40):
        made.name = thing.name


@change("unique becomes index")
def _(b: Build) -> None:
    _one_side(b, "unique", "index")


@change("index becomes unique")
def _(b: Build) -> None:
    there = [i for i in b.second.of("index") if i.number in b.first and "UNIQUE" in i.sql]
    if there:
        thing = b.pick(there)
        if not any(word in thing.sql for word in ("NULLS", "INCLUDE", "WHERE", "fillfactor")):
            b.remove(thing)
            listed = "(" + ", ".join(f"{{{n}}}" for n in range(len(thing.uses))) + ")"
            b.add(
                b.second,
                "unique",
                f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} UNIQUE {listed}",
                on=thing.on,
                uses=thing.uses,
            )


def _labels(enum: Thing, labels: list[str]) -> None:
    enum.facts["labels"] = labels
    enum.sql = f"CREATE TYPE {{self}} AS ENUM ({', '.join(map(makers.literal, labels))})"


@change("add enum value")
def _(b: Build) -> None:
    enum = existing(b, "enum")
    labels = list(enum.facts["labels"])
    labels.insert(
        b.pick((len(labels), 0, len(labels) // 2)),
        b.pick(("new", "it's new", "50%:x", "{y}")) + str(len(labels)),
    )
    _labels(enum, labels)


@change("add and use enum value")
def _(b: Build) -> None:
    enum = existing(b, "enum")
    labels = [*enum.facts["labels"], f"used {len(enum.facts['labels'])}"]
    _labels(enum, labels)
    users = [
        u
        for u in b.second.users(enum.number)
        if u.kind == "column" and u.sql == "{0}" and u.number in b.first
    ]
    if not users:
        on = old_table(b)
        made = Thing(b.number(), "column", b.name("column"), "{0}", on=on.number, uses=(enum.number,))
        b.first.things[made.number] = made
        b.second.things[made.number] = copy.deepcopy(made)
        users = [b.second[made.number]]
    column = b.pick(users)
    use = b.pick(("default", "index", "check"))
    if use == "default":
        column.facts["default"] = makers.literal(labels[-1])
    elif use == "index":
        b.add(
            b.second,
            "index",
            f"CREATE INDEX {{self}} ON {{on}} ({{0}}) WHERE {{0}} = {makers.literal(labels[-1])}",
            on=column.on,
            uses=(column.number,),
            strict=True,
        )
    else:
        b.add(
            b.second,
            "check",
            f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} CHECK ({{0}} <> {makers.literal(labels[-1])} OR {{0}} IS NOT NULL)",
            on=column.on,
            uses=(column.number,),
            strict=True,
        )


@change("rename enum value")
def _(b: Build) -> None:
    enum = existing(b, "enum")
    labels = list(enum.facts["labels"])
    if len(labels) < 2:
        return
    place = b.pick(range(1, len(labels)))
    labels[place] = f"renamed {place}"
    _labels(enum, labels)


@change("remove enum value")
def _(b: Build) -> None:
    enum = existing(b, "enum")
    if len(enum.facts["labels"]) > 1:
        _labels(enum, list(enum.facts["labels"])[:-1])


@change("change domain")
def _(b: Build) -> None:
    domain = existing(b, "domain")
    words = domain.sql.split(" CONSTRAINT ")
    if len(words) > 1 and b.chance(50):
        domain.sql = words[0]
    else:
        domain.sql = f"{words[0]} CONSTRAINT the_rule CHECK ({b.pick(('VALUE IS NULL OR true', 'length(VALUE::text) < 70'))})"


@change("add composite attribute")
def _(b: Build) -> None:
    composite = existing(b, "composite")
    composite.facts["attributes"].append((b.name("field"), "integer"))
    name = composite.facts["attributes"][-1][0].replace('"', '""').replace("{", "{{").replace("}", "}}")
    composite.sql = f'{composite.sql[:-1]}, "{name}" integer)'


@change("change table options")
def _(b: Build) -> None:
    table = old_table(b)
    table.more = () if table.more else (
        b.pick((
            "ALTER TABLE {self} SET (fillfactor = 70)", "ALTER TABLE {self} ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE {self} FORCE ROW LEVEL SECURITY", "ALTER TABLE {self} REPLICA IDENTITY FULL",
            "ALTER TABLE {self} SET (autovacuum_enabled = false, toast.autovacuum_enabled = false)",
        )),
    )  # fmt: skip


@change("change unlogged")
def _(b: Build) -> None:
    table = old_table(b)
    if not b.second.of("foreign key"):
        table.facts["unlogged"] = not table.facts.get("unlogged")


@change("add partition")
def _(b: Build) -> None:
    there = [
        t
        for t in b.second.of("table")
        if t.number in b.first and "partition key" in t.facts and "HASH" not in t.sql
    ]
    if there:
        makers.partition(b, b.second, b.pick(there).number)


@change("change partitioned table")
def _(b: Build) -> None:
    """Something on a partitioned table."""
    on = existing(b, "partitioned table").number
    kind = b.pick(("column", "check", "index", "unique", "foreign key", "trigger"))
    ON_TABLES[kind](b, b.second, on)


@change("view becomes materialized")
def _(b: Build) -> None:
    view = existing(b, "view")
    if not b.second.users(view.number):
        view.kind = "materialized view"
        view.sql = view.sql.replace("CREATE VIEW", "CREATE MATERIALIZED VIEW")
        for option in (
            " WITH (security_barrier=true)",
            " WITH (security_invoker=true)",
            " WITH LOCAL CHECK OPTION",
        ):
            view.sql = view.sql.replace(option, "")


@change("append view column")
def _(b: Build) -> None:
    view = existing(b, "view")
    base = b.second[view.uses[-1]]
    more = (
        [c for c in b.second.columns(base.number) if c.number not in view.uses]
        if base.kind == "table"
        else []
    )
    if more:
        head, tail = view.sql.split(" FROM ", 1)
        number = len(view.facts["columns"])
        tail = tail.replace(f"{{{number}}}", f"{{{number + 1}}}", 1)
        view.sql = f"{head}, v.{{{number}}} FROM {tail}"
        columns = (*view.facts["columns"], more[0].number)
        view.uses, view.facts = (*columns, base.number), {"columns": columns}
