"""The SQL that turns one object into another: how each kind is created, altered, renamed and dropped.

The drift report shows these statements where they are safe, the search for root causes runs them in the
shadow, and autogenerate writes them into revisions. A busy table is not locked for long where PostgreSQL has
another way. Names are as the server printed them, already quoted, and are found by ``search_path = public``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from guvnor.postgres.quoting import constant, identifier, suffixed, unquoted
from guvnor.schema import column_ddl, enum_labels
from guvnor.schema.column_ddl import options, statistics_target
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import Statement, each, find, plain_name, statement, table_of, target

_VALIDATED_LATER = ("check", "foreign key")  # constraints that may be added NOT VALID

# Attributes that the definition of a new object does not include, with their default values.
_USUAL = {
    "owned by": None, "options": None, "toast options": None, "row security": False,
    "row security forced": False, "replica identity": "default", "statistics target": "default",
    "state": "enabled", "clustered": False, "comment": None,
}  # fmt: skip

# Attributes for which a constraint or a trigger is replaced, those of a sequence, and those that replacing an
# object leaves to other statements.
DEFINING = frozenset({"definition", "type", "validated", "deferrable", "initially deferred"})
_OF_SEQUENCES = ("type", "start", "increment", "minimum", "maximum", "cache", "cycle")
_KEPT = frozenset({"tablespace", "attached to", "comment on index", "comment", "owner"})

_NEW = "_new"  # ends the name of an index until it takes the place of the one that it replaces


def create(item: Object, *, in_use: bool = True, beside: bool = False) -> list[Statement] | None:
    """Return the statements that make an object; None where a person has to decide.

    :param in_use: whether the application uses the table of an index.
    :param beside: whether the name of its index is that of an object which is dropped later. Then the first
        statement builds the index under another name; the others run after the drop.
    """
    name = item.name
    if item.kind == "column":
        values = item.attributes
        if values["generated"] or values["identity generation"] or column_ddl.must_be_filled(item):
            return None  # a person has to say what existing rows get
        made = [statement(column_ddl.add(item, column_ddl.definition(item)))]
    elif item.kind == "constraint":
        made = _constraint(item, beside=beside)
    elif item.sql is None or item.kind == "table":
        return None  # an empty table would not bring back the rows of a missing one
    elif item.kind == "index":
        plain = statement(*_index(item, item.sql, name, "IF NOT EXISTS "))
        made = [_build(item, item.sql, name) if in_use else plain]
        if beside:
            made = _build_beside(item, in_use=in_use)
    elif item.kind in ("trigger", "policy"):
        made = [_on_table(item)]
    elif item.kind == "type":
        made = [statement(item.sql, unless=find("type", "", name))]
    else:
        made = [statement(_repeatable(item))]
    return [*made, *further(item)]


def drop(item: Object, *, online: bool = True) -> list[Statement] | None:
    """Return the statement that drops an object; None where a person has to decide.

    :param online: whether the application uses the table of an index.
    """
    table, name, kind = table_of(item), item.name, item.kind.upper()
    if item.kind == "index":
        if not online:
            return [statement(f"DROP INDEX {name}")]
        operation = ("drop_index_concurrently", unquoted(name))
        if is_partitioned(str(item.sql), item):  # all its partitions' go with it
            return [statement(f"DROP INDEX {name}", operation=operation)]
        return [statement(f"DROP INDEX CONCURRENTLY {name}", operation=operation)]
    if item.kind == "constraint":  # its table may be gone already when a revision is run again
        return [statement(f"ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS {name}")]
    if item.kind == "column":
        loses = f"the column {item.identity} and all that it holds"
        return [statement(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {name}", loses=loses)]
    loses = {
        "table": f"the table {name} and all its rows", "sequence": f"the numbers that {item} has given",
    }.get(item.kind, "")  # fmt: skip
    return [statement(f"DROP {kind} IF EXISTS {target(item)}", loses=loses)]


def alter(expected: Object, actual: Object, names: Collection[str]) -> tuple[list[Statement], list[str]]:
    """Return the statements that make an object what it should be.

    :param names: the attributes that differ.
    :returns: the statements, and the attributes for which there is none.
    """
    statements, done = _replace(expected, actual, frozenset(names))
    if expected.kind == "column" and "not null" in names:
        done |= {"not null constraint"}
    rest = [name for name in names if name not in done]
    known = _attributes(expected, actual)
    for name, single in known.items():
        if name in rest:
            statements += [made for made in single if made not in statements]
    return statements, [name for name in rest if name not in known]


def further(item: Object) -> list[Statement]:
    """Return the statements for attributes that the definition does not include, such as the comment."""
    usual = {name: value for name, value in _USUAL.items() if name in item.attributes}
    if item.kind not in ("table", "column"):
        usual.pop("options", None)  # the definition includes them
    set_here = {name: value for name, value in usual.items() if name not in item.inherited}
    names = [name for name, value in set_here.items() if (item.attributes[name] or value) != value]
    plain = replace(item, attributes={**item.attributes, **usual})
    known = _attributes(item, plain)
    of_type = column_ddl.of_type(item) if item.kind == "column" and "type" not in item.inherited else []
    return [*of_type, *(made for name in names for made in known.get(name, []))]


def rename(item: Object, before: str, after: str) -> Statement:
    """Return the statement that gives an object another name.

    :param before: its name now, as SQL writes it, without a function's arguments.
    """
    table, kind = table_of(item), item.kind.upper()
    when = find(item.kind, table, before)
    if item.kind in ("column", "constraint"):
        return statement(f"ALTER TABLE {table} RENAME {kind} {before} TO {after}", when=when)
    called = target(item).replace(plain_name(item), before, 1)
    return statement(f"ALTER {kind} {called} RENAME TO {after}", when=when)


def lost_with_type(snapshot: Snapshot, column: Object) -> list[Statement]:
    """Return the statements for what the server forgets when a column gets another type.

    It gives the column the storage and compression of the type, and makes the statistics objects on it
    again, with their comments, but without their targets.
    """
    found = [item for item in snapshot.of_kind("statistics") if column.handle in item.parents]
    found = [item for item in found if item.attributes["statistics target"] != "default"]
    targets = [made for item in found for made in _attributes(item, item)["statistics target"]]
    return [*column_ddl.of_type(column), *targets]


def locks_writers(constraint: Object) -> bool:
    """Tell whether a constraint is added under a lock that writers wait for while its index is built."""
    return constraint.attributes["type"] not in _VALIDATED_LATER and _index_of(constraint) is None


def _index_of(constraint: Object) -> str | None:
    """Return the statement that makes a constraint's index where that can be built before it."""
    index = constraint.attributes.get("index")
    return None if index is None or is_partitioned(index, constraint) else str(index)


def is_partitioned(sql: str, item: Object) -> bool:
    """Tell whether an index is that of a partitioned table.

    The server neither builds nor drops it concurrently.

    :param sql: the statement that makes the index.
    """
    return f" ON ONLY {table_of(item)} " in sql


def _replace(
    expected: Object, actual: Object, names: frozenset[str]
) -> tuple[list[Statement], frozenset[str]]:
    """Return the statements that replace an object, and the attributes that they make equal."""
    kind, table, name, sql = expected.kind, table_of(expected), expected.name, str(expected.sql)
    replaced = names - _KEPT
    unchecked = f"{expected.attributes.get('definition')} NOT VALID"
    to_validate = kind == "constraint" and names == {"validated", "definition"}
    if to_validate and expected.attributes["validated"] and actual.attributes["definition"] == unchecked:
        return [validate(expected)], names
    if kind in ("function", "procedure") and replaced and not names & {"result", "kind"}:
        return [statement(sql)], replaced
    if kind in ("view", "rule") and names & {"definition", "options"}:
        return [statement(_repeatable(expected))], frozenset({"definition", "options"})
    if kind == "constraint" and names & DEFINING and not locks_writers(expected):
        made = _constraint(expected, f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name},")
    elif kind == "index" and "definition" in names and not expected.attributes["statistics targets"]:
        build, takes_name = _build_beside(expected)
        made = [build, *(drop(expected) or []), takes_name]
    elif kind == "trigger" and names & DEFINING:
        made = [statement(sql.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1))]
        # There is no OR REPLACE for a constraint trigger, nor for a trigger that was one.
        if "CREATE CONSTRAINT" in (sql[:17], str(actual.sql)[:17]):
            made = [*(drop(expected) or []), _on_table(expected)]
    elif kind == "policy" and replaced:
        made = [*(drop(expected) or []), _on_table(expected)]
    elif kind == "statistics" and replaced - {"statistics target"}:
        made = [*(drop(expected) or []), statement(_repeatable(expected))]
    else:
        return [], frozenset()
    return [*made, *further(expected)], replaced


def _attributes(expected: Object, actual: Object) -> dict[str, list[Statement]]:
    """Return the statements that set each attribute of an object, for those that can be set by themselves."""
    wanted, there = expected.attributes, actual.attributes
    kind, table, name = expected.kind, table_of(expected), expected.name
    found: dict[str, str | list[str]] = {"comment": _comment(expected)}
    if wanted.get("owner"):
        found["owner"] = f"ALTER {kind.upper()} {target(expected)} OWNER TO {identifier(wanted['owner'])}"
    if kind == "column":
        return {k: each(v) for k, v in found.items()} | column_ddl.attributes(expected, actual)
    if kind in ("table", "materialized view"):
        prefix = f"ALTER {kind.upper()} {name}"
        on = "ENABLE" if wanted["row security"] else "DISABLE"
        force = "FORCE" if wanted["row security forced"] else "NO FORCE"
        identity = str(wanted["replica identity"])
        identity = identity.upper() if " " not in identity else identity.replace("index", "USING INDEX", 1)
        found |= {
            "options": options(prefix, wanted["options"], there["options"]),
            "toast options": options(prefix, wanted["toast options"], there["toast options"]),
            "row security": f"{prefix} {on} ROW LEVEL SECURITY",
            "row security forced": f"{prefix} {force} ROW LEVEL SECURITY",
            "replica identity": f"{prefix} REPLICA IDENTITY {identity}",
            "populated": f"REFRESH MATERIALIZED VIEW {name}",
        }
    if kind in ("constraint", "index"):
        clustered = f"CLUSTER ON {name}" if wanted["clustered"] else "SET WITHOUT CLUSTER"
        found["clustered"] = f"ALTER TABLE {table} {clustered}"
    if kind == "index" and wanted["attached to"]:
        found["attached to"] = f"ALTER INDEX {wanted['attached to'][0]} ATTACH PARTITION {name}"
    if kind == "constraint":
        # The triggers of a foreign key are on both tables.
        both = dict.fromkeys(p.partition(":")[2] for p in expected.parents if p.startswith("relation:"))
        found["enforcement"] = [f"ALTER TABLE {side} ENABLE TRIGGER ALL" for side in both]
        found["index valid"] = f"REINDEX INDEX CONCURRENTLY {name}"
    if kind in ("trigger", "rule"):
        states = {"disabled": "DISABLE", "on replicas only": "ENABLE REPLICA", "always": "ENABLE ALWAYS"}
        state = states.get(wanted["state"], "ENABLE")
        found["state"] = f"ALTER TABLE {table} {state} {kind.upper()} {name}"
    if kind == "sequence":
        altered = str(expected.sql).replace("CREATE", "ALTER", 1) + ("" if wanted["cycle"] else " NO CYCLE")
        if wanted["minimum"] > there["maximum"] or wanted["maximum"] < there["minimum"]:
            altered += " RESTART"  # no number that it has given is within its new bounds
        found |= dict.fromkeys(_OF_SEQUENCES, altered)
        found["owned by"] = f"ALTER SEQUENCE {name} OWNED BY {wanted['owned by'] or 'NONE'}"
    if kind == "statistics":
        found["statistics target"] = f"ALTER STATISTICS {name} SET STATISTICS {statistics_target(wanted)}"
    if kind == "extension":
        found["content"] = f"ALTER EXTENSION {name} SET SCHEMA public"
    statements = {key: each(texts) for key, texts in found.items()}
    if kind == "index" and wanted["valid"]:
        build = _build(expected, str(expected.sql), name).operation
        statements["valid"] = [statement(f"REINDEX INDEX CONCURRENTLY {name}", operation=build)]
    if kind == "type" and (labels := enum_labels.alter(expected, actual)) is not None:
        statements["labels"] = labels
    return statements


def _comment(item: Object) -> str:
    text = item.attributes.get("comment")
    called = f"{item.name} ON {table_of(item)}" if item.kind == "constraint" else target(item)
    return f"COMMENT ON {item.kind.upper()} {called} IS {'NULL' if text is None else constant(text)}"


def _on_table(item: Object) -> Statement:
    """Make a trigger or a policy, unless it is there."""
    table = table_of(item)
    start, on, rest = str(item.sql).partition(f" ON {table} ")
    return statement(start, f"{on}{rest}".strip(), unless=find(item.kind, table, item.name))


def _repeatable(item: Object) -> str:
    """Return the statement that makes an object, in a form that can be run again."""
    sql, word = str(item.sql).rstrip().rstrip(";"), item.kind.upper()
    if item.kind in ("sequence", "statistics", "materialized view"):
        return sql.replace(f"CREATE {word}", f"CREATE {word} IF NOT EXISTS", 1)
    if item.kind in ("view", "rule"):
        return sql.replace(f"CREATE {word}", f"CREATE OR REPLACE {word}", 1)
    return sql


def _constraint(item: Object, prefix: str = "", *, beside: bool = False) -> list[Statement]:
    """Add a constraint without blocking writers for long.

    :param prefix: what the statement begins with where the constraint takes the place of another one: then
        there is no moment without a constraint for new rows.
    :param beside: see :func:`create`.
    """
    table, values = table_of(item), item.attributes
    more = {"replaces": "constraint"} if prefix else {"unless": find("constraint", table, item.name)}
    start = (prefix or f"ALTER TABLE {table}", f"ADD CONSTRAINT {item.name}")
    if index := _index_of(item):
        name = suffixed(item.name, _NEW) if prefix or beside else item.name
        kind = f"{values['type']} using index".upper()
        deferred = " DEFERRABLE" if values["deferrable"] else ""
        deferred += " INITIALLY DEFERRED" if values["initially deferred"] else ""
        when = {"when": find("index", "", name)} if prefix else {}
        return [_build(item, index, name), statement(*start, f"{kind} {name}{deferred}", **more, **when)]
    if values["type"] in _VALIDATED_LATER and values["validated"]:
        return [statement(*start, f"{values['definition']} NOT VALID", **more), validate(item)]
    return [statement(*start, str(values["definition"]), **more)]


def validate(item: Object) -> Statement:
    """Return the statement that validates a constraint while the application goes on."""
    table = table_of(item)
    operation = ("validate_constraint", unquoted(table), unquoted(item.name))
    return statement(f"ALTER TABLE {table} VALIDATE CONSTRAINT {item.name}", operation=operation)


def _index(item: Object, sql: str, name: str, words: str) -> tuple[str, ...]:
    """Return the clauses of the statement that makes an index.

    :param sql: the statement as the server prints it.
    :param name: what the index is called in place of its own name.
    :param words: what stands before the name, such as ``CONCURRENTLY``.
    """
    start, _, rest = sql.partition(f"INDEX {item.name} ")
    rest = rest.replace("ON ONLY ", "ON ", 1) if rest.startswith("ON ONLY ") else rest
    rest = rest.replace(f" {table_of(item)} USING btree ", f" {table_of(item)} ", 1)
    where = f" WHERE {item.attributes.get('predicate')}"
    parts = (rest.removesuffix(where), where.strip()) if rest.endswith(where) else (rest,)
    return f"{start}INDEX {words}{name}", *parts


def _build(item: Object, sql: str, name: str) -> Statement:
    """Build an index without blocking writers; see :func:`_index`."""
    # With IF NOT EXISTS, a person would keep an invalid index; the operation rebuilds it.
    repeatable = "\n".join(_index(item, sql, name, "CONCURRENTLY IF NOT EXISTS "))
    operation = ("create_index_concurrently", unquoted(name), repeatable)
    words = "" if is_partitioned(sql, item) else "CONCURRENTLY "
    return statement(*_index(item, sql, name, words), operation=operation)


def beside(constraint: Object) -> Object:
    """Return a constraint under another name, which it has until its own is free."""
    other = suffixed(constraint.name, _NEW)
    return replace(constraint, identity=constraint.identity.removesuffix(constraint.name) + other)


def _build_beside(item: Object, *, in_use: bool = True) -> list[Statement]:
    """Build an index under another name, and give it its own name, which is free by then."""
    other = suffixed(item.name, _NEW)
    there = find("index", "", other)
    takes_name = statement(f"ALTER INDEX {other} RENAME TO {item.name}", when=there, replaces="index")
    plain = statement(*_index(item, str(item.sql), other, "IF NOT EXISTS "))
    return [_build(item, str(item.sql), other) if in_use else plain, takes_name]
