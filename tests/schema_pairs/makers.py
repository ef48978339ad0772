"""How a thing of each kind is made; on which columns decides hypothesis."""

from __future__ import annotations

import copy
from collections.abc import Callable

from guvnor.postgres.quoting import constant
from tests.schema_pairs.build import Build, how_stored, type_of
from tests.schema_pairs.things import Schema, Thing
from tests.schema_pairs.values import TYPES

Maker = Callable[[Build, Schema, int], Thing]


def literal(text: str) -> str:
    """Text as a constant in a template."""
    return constant(text).replace("{", "{{").replace("}", "}}")


def enum(b: Build, s: Schema) -> Thing:
    labels = b.some(("red", "green", "it's", "50%", "a:b", "Blue sky", "ä", "{x}"), 5)
    return b.add(
        s,
        "enum",
        f"CREATE TYPE {{self}} AS ENUM ({', '.join(map(literal, labels))})",
        facts={"labels": labels},
    )


def domain(b: Build, s: Schema) -> Thing:
    base = b.pick(("integer", "text", "numeric(10,2)", "date"))
    sql = f"CREATE DOMAIN {{self}} AS {base}"
    if b.chance(30):
        sql += {"integer": " DEFAULT 5", "text": " DEFAULT 'x'"}.get(base, "")
    if b.chance(60):
        b_name = b.name("rule").replace('"', '""').replace("{", "{{").replace("}", "}}")
        check = b.pick(("VALUE::text <> 'never'", "VALUE IS NOT NULL OR true", "length(VALUE::text) < 60"))
        sql += f' CONSTRAINT "{b_name}" CHECK ({check})'
    return b.add(s, "domain", sql, facts={"base": base})


def composite(b: Build, s: Schema) -> Thing:
    attributes = [(b.name("field"), b.pick(("integer", "text", "date"))) for _ in range(b.pick((1, 2)))]
    body = ", ".join(
        '"{}" {}'.format(n.replace('"', '""').replace("{", "{{").replace("}", "}}"), t) for n, t in attributes
    )
    return b.add(s, "composite", f"CREATE TYPE {{self}} AS ({body})", facts={"attributes": attributes})


def sequence(b: Build, s: Schema) -> Thing:
    options = b.pick(
        ("", "INCREMENT BY 5", "START WITH 100 MAXVALUE 9000", "AS integer CACHE 3", "INCREMENT BY -1 CYCLE")
    )
    return b.add(s, "sequence", f"CREATE SEQUENCE {{self}} {options}".rstrip())


def table(b: Build, s: Schema, *, partitioned: bool = False) -> Thing:
    made = b.add(s, "table", "")
    key = b.add(
        s, "column", b.pick(("integer", "bigint", "text", "uuid")), on=made.number, facts={"not null": True}
    )
    if key.sql != "uuid" and key.sql != "text" and b.chance(40):
        key.facts["identity"] = identity(b)
    for _ in range(b.pick((2, 1, 3))):
        column(b, s, made.number)
    if partitioned:
        key.sql, key.facts = "integer", {"not null": True}
        made.sql = f"PARTITION BY {b.pick(('RANGE', 'LIST', 'HASH'))} ({{key}})"
        made.facts["partition key"] = key.number
    elif b.chance(80):
        made_key = b.add(
            s, "primary key", "ALTER TABLE {on} ADD CONSTRAINT {self} PRIMARY KEY ({0})", on=made.number
        )
        made_key.uses = (key.number,)
    return made


def identity(b: Build) -> str:
    kind = b.pick(("BY DEFAULT", "ALWAYS"))
    return f"{kind} AS IDENTITY{b.pick(('', ' (START WITH 100)', ' (INCREMENT BY 5 CACHE 2)', ' (MAXVALUE 9000 CYCLE)'))}"


def column(b: Build, s: Schema, on: int) -> Thing:
    """A plain column."""
    own = s.of("enum", "domain", "composite")
    if own and b.chance(25):
        used = b.pick(own)
        array = used.kind == "enum" and b.chance(30)
        made = b.add(s, "column", "{0}[]" if array else "{0}", on=on, uses=(used.number,))
    else:
        made = b.add(s, "column", b.pick(TYPES).sql, on=on)
    kind = type_of(s, made)
    if kind.defaults and b.chance(30):
        made.facts["default"] = b.pick(kind.defaults)
    if b.chance(30):
        made.facts["not null"] = True
    elif b.chance(40):
        made.facts["nulls"] = True
    if kind.family == "string" and b.chance(15):
        made.facts["collation"] = b.pick(("C", "POSIX"))
    if b.chance(10):
        made.more = (attribute(b, kind.family),)
    return made


def attribute(b: Build, family: str) -> str:
    choices = ["SET STATISTICS 50", "SET STATISTICS 0", "SET (n_distinct = -0.5)"]
    if family in ("string", "json", "json text", "bytes"):
        choices += ["SET STORAGE EXTERNAL", "SET STORAGE MAIN", "SET COMPRESSION pglz"]
    return f"ALTER TABLE {{on}} ALTER COLUMN {{self}} {b.pick(choices)}"


def plain_columns(b: Build, s: Schema, on: int, *, distinct: bool = False, family: str = "") -> list[Thing]:
    """Columns with values of rows."""
    found = [c for c in s.columns(on) if not c.facts.get("generated")]
    if family:
        found = [c for c in found if type_of(s, c).family == family]
    if distinct:  # existing rows of a new column all hold the same
        old = b.second is not b.first and on in b.first
        found = [c for c in found if type_of(s, c).distinct and not (old and b.is_new(c.number))]
        found = [c for c in found if type_of(s, c).family not in ("json text", "inet", "bytes", "range")]
    return found


def of_family(b: Build, s: Schema, on: int, *families: str) -> Thing:
    """A column of one of some families, a new one if there is none."""
    there = [c for c in plain_columns(b, s, on) if type_of(s, c).family in families]
    if there:
        return b.pick(there)
    sql = b.pick([t for t in TYPES if t.family in families]).sql
    return b.add(s, "column", sql, on=on)


def distinct_column(b: Build, s: Schema, on: int) -> Thing:
    there = plain_columns(b, s, on, distinct=True)
    return b.pick(there) if there else _distinct_in_both(b, s, on)


def _distinct_in_both(b: Build, s: Schema, on: int) -> Thing:
    made = b.add(s, "column", "integer", on=on)
    if b.second is not b.first and on in b.first:  # with different values in its rows
        b.first.things[made.number] = copy.deepcopy(made)
    return made


def unique(b: Build, s: Schema, on: int) -> Thing:
    columns = [distinct_column(b, s, on)]
    others = [
        c
        for c in plain_columns(b, s, on)
        if c is not columns[0] and type_of(s, c).family in ("integer", "string", "date", "boolean")
    ]
    if others and b.chance(30):
        columns.append(b.pick(others))
    if "partition key" in s[on].facts and s[on].facts["partition key"] not in [c.number for c in columns]:
        columns.append(s[s[on].facts["partition key"]])
    listed = ", ".join(f"{{{place}}}" for place in range(len(columns)))
    nulls = (
        " NULLS NOT DISTINCT"
        if b.major >= 15 and b.chance(15) and not any(c.facts.get("nulls") for c in columns)
        else ""
    )
    more = ""
    if others and b.chance(15):
        columns.append(b.pick(others))
        more = f" INCLUDE ({{{len(columns) - 1}}})" if columns[-1] not in columns[:-1] else ""
    after = b.pick(("", "", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"))
    uses = tuple(c.number for c in columns if more or c in columns)
    return b.add(
        s,
        "unique",
        f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} UNIQUE{nulls} ({listed}){more}{after}",
        on=on,
        uses=uses,
    )


def primary_key(b: Build, s: Schema, on: int) -> Thing:
    """A primary key in place of the one that may be there."""
    for old in s.of("primary key", on=on):
        if s is b.first:
            return old
        b.remove(old)
    first = distinct_column(b, s, on)
    if first.facts.get("nulls"):
        first = _distinct_in_both(b, s, on)
    columns = [first]
    key = s[on].facts.get("partition key")
    if key and key != first.number:
        columns.append(s[key])
    for used in columns:
        used.facts["not null"] = True
        if used.number in b.first:
            b.first[used.number].facts["not null"] = True
    listed = ", ".join(f"{{{place}}}" for place in range(len(columns)))
    return b.add(
        s,
        "primary key",
        f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} PRIMARY KEY ({listed})",
        on=on,
        uses=tuple(c.number for c in columns),
    )


def check(b: Build, s: Schema, on: int) -> Thing:
    column = b.pick(s.columns(on))
    kind = type_of(s, column) if not column.facts.get("generated") else None
    choices = ["{0} IS NOT NULL OR true", "{0}::text <> 'never'"]
    strict = bool(kind and kind.checks and b.chance(70))
    choices = list(kind.checks) if strict and kind else choices
    after = b.pick(("", "", "", " NOT VALID", " NO INHERIT"))
    if "partition key" in s[on].facts:
        after = ""
    if b.major >= 18 and not after and "partition key" not in s[on].facts and b.chance(8):
        after = " NOT ENFORCED"
    return b.add(
        s,
        "check",
        f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} CHECK ({b.pick(choices)}){after}",
        on=on,
        uses=(column.number,),
        strict=strict,
    )


def foreign_key(b: Build, s: Schema, on: int) -> Thing:
    """A foreign key to the single-column key of a table whose rows have the same values."""
    old = b.second is not b.first and on in b.first
    targets = [
        (key, s[key.uses[0]])
        for key in s.of("primary key", "unique")
        if len(key.uses) == 1 and "DEFERRABLE" not in key.sql and type_of(s, s[key.uses[0]]).family == "integer"
        and not s[key.uses[0]].facts.get("generated") and not s[key.uses[0]].facts.get("identity") and not s[key.uses[0]].facts.get("nulls")
        and not (old and (b.is_new(key.on or 0) or b.is_new(key.uses[0]))) and "partition key" not in s[key.on or 0].facts
    ]  # fmt: skip
    if not targets:
        target = on if "partition key" not in s[on].facts else table(b, s).number
        base = _distinct_in_both(b, s, target)
        base.facts["not null"] = True
        key = b.add(
            s, "unique", "ALTER TABLE {on} ADD CONSTRAINT {self} UNIQUE ({0})", on=target, uses=(base.number,)
        )
        if old and target in b.first:
            b.first.things[key.number] = copy.deepcopy(key)
        targets = [(key, base)]
    key, column = b.pick(targets)
    mine = [
        c
        for c in plain_columns(b, s, on, family="integer")
        if c is not column
        and not c.facts.get("identity")
        and not (old and b.is_new(c.number) and (c.facts.get("default") or c.facts.get("not null")))
    ]
    if mine and not (old and b.is_new(key.on or 0)):
        own = b.pick(mine)
    else:
        own = b.add(s, "column", "integer", on=on)
    actions = b.pick(
        (
            "",
            "",
            " ON DELETE CASCADE",
            " ON DELETE SET NULL",
            " ON DELETE RESTRICT ON UPDATE CASCADE",
            " DEFERRABLE INITIALLY DEFERRED",
            " NOT VALID",
        )
    )
    if "NOT VALID" in actions and "partition key" in s[on].facts:
        actions = ""
    sql = f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} FOREIGN KEY ({{0}}) REFERENCES {{1}} ({{2}}){actions}"
    return b.add(
        s, "foreign key", sql, on=on, uses=(own.number, key.on or 0, column.number, key.number), strict=True
    )


def exclusion(b: Build, s: Schema, on: int) -> Thing:
    there = [
        c
        for c in plain_columns(b, s, on)
        if c.sql == "int4range"
        and not (
            b.second is not b.first
            and on in b.first
            and b.is_new(c.number)
            and (c.facts.get("default") or c.facts.get("not null"))
        )
    ]
    own = b.pick(there) if there else b.add(s, "column", "int4range", on=on)
    where = b.pick(("", " WHERE (NOT isempty({0}))", " DEFERRABLE"))
    return b.add(
        s,
        "exclusion",
        f"ALTER TABLE {{on}} ADD CONSTRAINT {{self}} EXCLUDE USING gist ({{0}} WITH &&){where}",
        on=on,
        uses=(own.number,),
        strict=True,
    )


def index(b: Build, s: Schema, on: int) -> Thing:
    is_unique = b.chance(25)
    if is_unique:
        columns = [distinct_column(b, s, on)]
        key = s[on].facts.get("partition key")
        if key and key != columns[0].number:
            columns.append(s[key])
        listed = "(" + ", ".join(f"{{{place}}}" for place in range(len(columns))) + ")"
        if b.major >= 15 and b.chance(15) and not columns[0].facts.get("nulls"):
            listed += " NULLS NOT DISTINCT"
    else:
        column = b.pick(
            [c for c in plain_columns(b, s, on) if type_of(s, c).keys and c.sql != "json"]
            or [of_family(b, s, on, "integer", "string")]
        )
        columns, listed = [column], b.pick(type_of(s, column).keys)
        others = [
            c
            for c in plain_columns(b, s, on)
            if c is not column and type_of(s, c).family in ("integer", "string", "date", "timestamp", "uuid")
        ]
        if others and "USING" not in listed and b.chance(40):
            columns.append(b.pick(others))
            listed = f"{listed[:-1]}, {{1}})" if b.chance(60) else f"{listed} INCLUDE ({{1}})"
    if b.chance(15) and "USING" not in listed:
        listed += " WITH (fillfactor = 80)"
    if b.chance(25):
        listed += (
            f" WHERE {b.pick(('{0} IS NOT NULL', '({0}::text) IS NOT NULL OR {0} IS NULL'))}"
            if type_of(s, columns[0]).family in ("integer", "string")
            else " WHERE {0} IS NOT NULL"
        )
    word = "UNIQUE INDEX" if is_unique else "INDEX"
    return b.add(
        s,
        "index",
        f"CREATE {word} {{self}} ON {{on}} {listed}",
        on=on,
        uses=tuple(c.number for c in columns),
        strict=True,
    )


def statistics(b: Build, s: Schema, on: int) -> Thing:
    while (
        len(
            found := [
                c
                for c in plain_columns(b, s, on)
                if type_of(s, c).family in ("integer", "string", "date", "uuid", "boolean")
            ]
        )
        < 2
    ):
        b.add(s, "column", "integer", on=on)
    columns = b.pick((found[:2], found[:2][::-1], found[-2:]))
    kinds = b.pick(("", " (ndistinct)", " (dependencies, mcv)"))
    more = ("ALTER STATISTICS {self} SET STATISTICS 40",) if b.chance(15) else ()
    return b.add(
        s,
        "statistics",
        f"CREATE STATISTICS {{self}}{kinds} ON {{0}}, {{1}} FROM {{on}}",
        on=on,
        uses=tuple(c.number for c in columns),
        more=more,
    )


def generated(b: Build, s: Schema, on: int) -> Thing:
    """A generated column."""
    bases = [c for c in plain_columns(b, s, on) if type_of(s, c).computed] or [
        of_family(b, s, on, "integer", "string")
    ]
    base = b.pick(bases)
    kind, expression = b.pick(type_of(s, base).computed)
    stored = how_stored(b, base, 40)
    return b.add(
        s,
        "column",
        kind,
        on=on,
        uses=(base.number,),
        strict=True,
        facts={"generated": expression, "stored": stored},
    )


def view(b: Build, s: Schema, _on: int = 0, *, stored: bool = False) -> Thing:
    """A view on a table or on a view."""
    kind = "materialized view" if stored else "view"
    sources = s.of("view", "materialized view")
    where = b.pick(("", " WHERE true", " WHERE {0} IS NOT NULL"))
    if sources and b.chance(50):
        base = b.pick(sources)
        columns = list(base.facts["columns"])
        chosen = columns if b.chance(70) else columns[:1]
        options = ""
    else:
        base = b.pick(s.of("table") or [table(b, s)])
        chosen = [c.number for c in b.some(s.columns(base.number), 3)]
        options = b.pick(
            (
                "",
                "",
                " WITH (security_barrier=true)",
                " WITH (security_invoker=true)" if b.major >= 15 else "",
            )
        )
    options = "" if stored else options
    listed = ", ".join(f"v.{{{place}}}" for place in range(len(chosen)))
    source = f"{{{len(chosen)}}}"
    where = where.replace("{0}", "v.{0}")
    after = " WITH LOCAL CHECK OPTION" if not stored and base.kind == "table" and b.chance(10) else ""
    sql = f"CREATE {kind.upper()} {{self}}{options} AS SELECT {listed} FROM {source} v{where}{after}"
    return b.add(s, kind, sql, uses=(*chosen, base.number), facts={"columns": tuple(chosen)})


def materialized_view(b: Build, s: Schema, _on: int = 0) -> Thing:
    made = view(b, s, stored=True)
    first = made.facts["columns"][0]
    if (
        b.chance(50)
        and type_of(s, s[first]).distinct
        and type_of(s, s[first]).family not in ("json text", "range", "inet")
        and not s[first].facts.get("generated")
    ):
        b.add(s, "view index", "CREATE INDEX {self} ON {on} ({0})", on=made.number, uses=(first,))
    return made


def function(b: Build, s: Schema, _on: int = 0) -> Thing:
    arguments, types = b.pick(
        (
            ("", ""),
            ("a integer", "integer"),
            ("a text, b integer DEFAULT 3", "text, integer"),
            ("VARIADIC a integer[]", "VARIADIC integer[]"),
        )
    )
    result = b.pick(("integer", "text", "boolean"))
    value = {"integer": "1", "text": "'it''s :x 50% \\ {{}}'", "boolean": "true"}[result]
    facts = b.pick(
        (
            "",
            " IMMUTABLE",
            " STABLE STRICT",
            " SECURITY DEFINER SET search_path = public",
            " PARALLEL SAFE COST 5",
        )
    )
    body = b.pick((f"SELECT {value}", f"\n  SELECT {value}  -- a comment\n")) if b.chance(60) else ""
    if body:
        sql = f"CREATE FUNCTION {{self}}({arguments}) RETURNS {result} LANGUAGE sql{facts} AS $f$ {body} $f$"
    else:
        sql = f"CREATE FUNCTION {{self}}({arguments}) RETURNS {result} LANGUAGE plpgsql{facts} AS $f$ BEGIN RETURN {value}; END $f$"
    if body and b.chance(20):
        tables = s.of("table")
        if tables:
            base = b.pick(tables)
            sql = (
                "CREATE FUNCTION {self}() RETURNS SETOF {0} LANGUAGE sql STABLE AS $f$ SELECT * FROM {0} $f$"
            )
            return b.add(s, "function", sql, uses=(base.number,), facts={"arguments": ""})
    if body and not arguments and b.chance(30) and "SECURITY" not in facts:
        sql = f"CREATE FUNCTION {{self}}() RETURNS {result} LANGUAGE sql{facts} RETURN {value}"
    return b.add(s, "function", sql, facts={"arguments": types})


def procedure(b: Build, s: Schema, _on: int = 0) -> Thing:
    body = b.pick(("NULL", "RAISE NOTICE 'it''s % :x', 1", "PERFORM 1"))
    return b.add(
        s,
        "procedure",
        f"CREATE PROCEDURE {{self}}(a integer) LANGUAGE plpgsql AS $f$ BEGIN {body}; END $f$",
        facts={"arguments": "integer"},
    )


def trigger_function(b: Build, s: Schema) -> Thing:
    return b.add(
        s,
        "function",
        "CREATE FUNCTION {self}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$",
        facts={"arguments": "", "trigger": True},
    )


def trigger(b: Build, s: Schema, on: int) -> Thing:
    functions = [f for f in s.of("function") if f.facts.get("trigger")] or [trigger_function(b, s)]
    called = b.pick(functions)
    column = b.pick(s.columns(on))
    when = b.pick(("BEFORE UPDATE", "AFTER INSERT OR UPDATE", "BEFORE UPDATE OF {1}", "AFTER DELETE"))
    if "UPDATE OF" in when and column.facts.get("generated"):
        when = "BEFORE UPDATE"
    each = b.pick(("FOR EACH ROW", "FOR EACH STATEMENT"))
    word, more = "TRIGGER", ()
    if "AFTER" in when and b.chance(20) and "partition key" not in s[on].facts:
        word, each = "CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    if (
        each == "FOR EACH ROW"
        and when == "BEFORE UPDATE"
        and b.chance(40)
        and not column.facts.get("generated")
        and column.sql != "json"
    ):
        each += " WHEN (OLD.{1} IS DISTINCT FROM NEW.{1})"
    if b.chance(20):
        more = (
            f"ALTER TABLE {{on}} {b.pick(('DISABLE', 'ENABLE ALWAYS', 'ENABLE REPLICA'))} TRIGGER {{self}}",
        )
    uses = (called.number, column.number) if "{1}" in when + each else (called.number,)
    return b.add(
        s,
        "trigger",
        f"CREATE {word} {{self}} {when} ON {{on}} {each} EXECUTE FUNCTION {{0}}()",
        on=on,
        uses=uses,
        more=more,
        strict=True,
    )


def policy(b: Build, s: Schema, on: int) -> Thing:
    column = b.pick(s.columns(on))
    command, using = b.pick(
        (
            ("SELECT", "USING ({0} IS NOT NULL)"),
            ("ALL", "USING (true) WITH CHECK ({0} IS NOT NULL OR true)"),
            ("INSERT", "WITH CHECK (true)"),
        )
    )
    word = b.pick(("", " AS RESTRICTIVE"))
    return b.add(
        s,
        "policy",
        f"CREATE POLICY {{self}} ON {{on}}{word} FOR {command} {using}",
        on=on,
        uses=(column.number,) if "{0}" in using else (),
    )


def rule(b: Build, s: Schema, on: int) -> Thing:
    body = b.pick(
        (
            "ON DELETE TO {on} DO ALSO NOTHING",
            "ON UPDATE TO {on} WHERE false DO ALSO NOTHING",
            "ON INSERT TO {on} WHERE false DO INSTEAD NOTHING",
        )
    )
    return b.add(s, "rule", f"CREATE RULE {{self}} AS {body}", on=on)


def partition(b: Build, s: Schema, on: int) -> Thing:
    """Another partition of a partitioned table; all of them leave room for one more."""
    number = len(s.of("partition", on=on)) + sum(
        1 for t in b.first.of("partition", on=on) if t.number not in s
    )
    strategy = s[on].sql.split()[2]
    bounds = {
        "RANGE": f"FROM ({number * 100}) TO ({number * 100 + 100})",
        "LIST": "IN (0, 1, 2, 3, 4)" if not number else f"IN ({number * 100})",
        "HASH": "WITH (MODULUS 1, REMAINDER 0)",
    }[strategy]
    return b.add(s, "partition", f"CREATE TABLE {{self}} PARTITION OF {{on}} FOR VALUES {bounds}", on=on)


def partitioned(b: Build, s: Schema) -> Thing:
    made = table(b, s, partitioned=True)
    partition(b, s, made.number)
    return made


ON_TABLES: dict[str, Maker] = {
    "column": column, "generated column": generated, "primary key": primary_key, "unique": unique, "check": check,
    "foreign key": foreign_key, "exclusion": exclusion, "index": index, "statistics": statistics,
    "trigger": trigger, "policy": policy, "rule": rule,
}  # fmt: skip
ALONE: dict[str, Callable[[Build, Schema], Thing]] = {
    "enum": enum, "domain": domain, "composite": composite, "sequence": sequence, "table": table, "view": view,
    "materialized view": materialized_view, "function": function, "procedure": procedure,
    "partitioned table": partitioned,
}  # fmt: skip
