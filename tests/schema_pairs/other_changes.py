"""The kinds of changes to keys, types, tables and views."""

from __future__ import annotations

import copy

from tests.schema_pairs import makers
from tests.schema_pairs.build import Build
from tests.schema_pairs.changes import change, existing, old_table
from tests.schema_pairs.makers import ON_TABLES
from tests.schema_pairs.things import Thing


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
