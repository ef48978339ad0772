"""The SQL that reconciles a difference, where it is safe to write down.

Safe means: no stored data is lost, nothing is guessed, and a busy table is not locked for long where
PostgreSQL has another way. Tables, columns, sequences, types, functions and views are never dropped; for what
is left out, a person decides. Names are as the server printed them, already quoted, and are found by
``search_path = public``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guvnor.postgres.quoting import constant, identifier, suffixed
from guvnor.schema.snapshot import Object

# How GRANT calls a kind, where it is not simply its name.
_GRANTED = {
    "view": "TABLE", "materialized view": "TABLE", "foreign table": "TABLE", "column": "TABLE",
    "aggregate": "FUNCTION",
}  # fmt: skip


def create(item: Object) -> str | None:
    """Return the statements that make a missing object."""
    if item.kind == "index" and item.sql:
        return None if _is_partitioned(item) else _lines(concurrently(item.sql), *extras(item))
    if item.kind == "constraint":
        return _lines(*_constraint(item), *extras(item))
    if item.kind == "column":
        return _column(item)
    if item.kind == "table":
        return None  # what it held is the question, not its definition
    if item.kind in ("function", "procedure") and item.sql:
        return _lines(item.sql, *extras(item))
    if item.kind == "sequence" and (owner := item.attributes["owned by"]):
        return _lines(str(item.sql), f"ALTER SEQUENCE {item.identity} OWNED BY {owner}", *extras(item))
    if item.sql:
        return _lines(item.sql.rstrip().rstrip(";"), *extras(item))
    return None


def drop(item: Object) -> str | None:
    """Return the statement that takes away an object that should not be there; only for what holds nothing.

    An index and extended statistics can be built again from the definition that the finding shows.
    """
    name = own_name(item)
    if item.kind == "index":
        return None if _is_partitioned(item) else f"DROP INDEX CONCURRENTLY {name};"
    if item.kind == "statistics":
        return f"DROP STATISTICS {name};"
    return None


def alter(expected: Object, actual: Object, names: Sequence[str], owner: str | None = None) -> str | None:
    """Return the statements that make an object what it should be, joined; see :func:`alterations`."""
    statements = alterations(expected, actual, names, owner)
    return None if statements is None else _lines(*statements)


def alterations(
    expected: Object, actual: Object, names: Sequence[str], owner: str | None = None
) -> list[str] | None:
    """Return the statements that make an object what it should be; None when an attribute has none."""
    wanted, table, name = expected.attributes, table_of(expected), own_name(expected)
    statements: list[str] = []
    rest = set(names)

    def take(attribute: str, *sql: str) -> None:
        if attribute in rest:
            rest.discard(attribute)
            statements.extend(sql)

    take("owner", f"ALTER {_word(expected)} {_target(expected)} OWNER TO {identifier(owner)}")
    take("comment", _comment(expected))
    if expected.kind == "column":
        prefix = f"ALTER TABLE {table} ALTER COLUMN {name}"
        take(
            "default",
            f"{prefix} DROP DEFAULT"
            if wanted["default"] is None
            else f"{prefix} SET DEFAULT {wanted['default']}",
        )
        if "not null" in rest:
            rest -= {"not null", "not null constraint"}
            statements += (
                _not_null(table, name, wanted["not null constraint"])
                if wanted["not null"]
                else [f"{prefix} DROP NOT NULL"]
            )
        take("storage", f"{prefix} SET STORAGE {wanted['storage']}")
        take("compression", f"{prefix} SET COMPRESSION {wanted['compression']}")
        target = wanted["statistics target"]
        take("statistics target", f"{prefix} SET STATISTICS {-1 if target == 'default' else target}")
        take("options", *_options(prefix, wanted["options"], actual.attributes["options"]))
    elif expected.kind in ("table", "materialized view"):
        prefix = f"ALTER {expected.kind.upper()} {expected.identity}"
        on = "ENABLE" if wanted["row security"] else "DISABLE"
        take("row security", f"{prefix} {on} ROW LEVEL SECURITY")
        force = "FORCE" if wanted["row security forced"] else "NO FORCE"
        take("row security forced", f"{prefix} {force} ROW LEVEL SECURITY")
        identity = str(wanted["replica identity"])
        take("replica identity", f"{prefix} REPLICA IDENTITY {_replica_identity(identity)}")
        take("options", *_options(prefix, wanted["options"], actual.attributes["options"]))
        take("toast options", *_options(prefix, wanted["toast options"], actual.attributes["toast options"]))
        take("populated", f"REFRESH MATERIALIZED VIEW {expected.identity}")
    elif expected.kind == "constraint":
        if rest == {"validated", "definition"} and only_to_validate(expected, actual):
            rest.clear()
            statements.append(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        elif "definition" in rest and wanted["type"] in ("check", "foreign key"):
            rest -= {"definition", "validated", "deferrable", "initially deferred", "not inherited"}
            first, *later = _constraint(expected)
            # One statement: there is no moment without the constraint for new rows.
            statements += [
                first.replace(" ADD ", f" DROP CONSTRAINT {name}, ADD ", 1),
                *later,
                *extras(expected),
            ]
        # The triggers of a foreign key are on both tables.
        both = dict.fromkeys(p.partition(":")[2] for p in expected.parents if p.startswith("relation:"))
        take("enforcement", *(f"ALTER TABLE {side} ENABLE TRIGGER ALL" for side in both))
        take("clustered", _clustered(table, name, wanted["clustered"]))
        if rest <= {"index valid"}:
            take("index valid", f"REINDEX INDEX CONCURRENTLY {name}")
    elif expected.kind == "index":
        if "definition" in rest and not wanted["statistics targets"] and not _is_partitioned(expected):
            rest -= {
                "definition", "access method", "unique", "predicate", "key columns", "included columns",
                "valid", "options",
            }  # fmt: skip
            statements += [
                f"ALTER INDEX {name} RENAME TO {suffixed(name, '_old')}",
                concurrently(str(expected.sql)),
                f"DROP INDEX CONCURRENTLY {suffixed(name, '_old')}",
                *extras(expected),
            ]
        take("valid", f"REINDEX INDEX CONCURRENTLY {name}")
        take("clustered", _clustered(table, name, wanted["clustered"]))
    elif expected.kind == "trigger":
        if "definition" in rest and expected.sql:
            rest -= {"definition", "deferrable", "initially deferred", "state"}
            statements = [f"DROP TRIGGER {name} ON {table}", expected.sql, *extras(expected)]
        take("state", f"ALTER TABLE {table} {_state(wanted['state'])} TRIGGER {name}")
    elif expected.kind == "rule":
        take("definition", str(expected.sql).rstrip(";").replace("CREATE RULE", "CREATE OR REPLACE RULE", 1))
        take("state", f"ALTER TABLE {table} {_state(wanted['state'])} RULE {name}")
    elif expected.kind == "policy" and expected.sql and rest:
        rest.clear()
        statements = [f"DROP POLICY {name} ON {table}", expected.sql, *extras(expected)]
    elif expected.kind in ("function", "procedure") and not rest & {"result", "kind"} and rest:
        rest.clear()
        statements.append(str(expected.sql))
    elif expected.kind == "view" and expected.sql and "definition" in rest:
        rest -= {"definition"}
        statements.append(
            expected.sql.rstrip().rstrip(";").replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
        )
    elif expected.kind == "type":
        take("labels", *_labels(expected.identity, wanted["labels"] or [], actual.attributes["labels"] or []))
    elif expected.kind == "sequence":
        form = {
            "type": "AS {}", "start": "START WITH {}", "increment": "INCREMENT BY {}",
            "minimum": "MINVALUE {}", "maximum": "MAXVALUE {}", "cache": "CACHE {}",
            "owned by": "OWNED BY {}",
        }  # fmt: skip
        for attribute, text in form.items():
            take(attribute, f"ALTER SEQUENCE {name} {text.format(wanted[attribute] or 'NONE')}")
        take("cycle", f"ALTER SEQUENCE {name} {'CYCLE' if wanted['cycle'] else 'NO CYCLE'}")
    elif expected.kind == "statistics":
        target = wanted["statistics target"]
        take(
            "statistics target",
            f"ALTER STATISTICS {name} SET STATISTICS {-1 if target == 'default' else target}",
        )
    elif expected.kind == "extension":
        take("content", f"ALTER EXTENSION {name} SET SCHEMA public")
    return None if rest or None in statements else statements


def rename(expected: Object, name: str) -> str:
    """Return the statement that gives an object another name.

    :param expected: the object under its present name.
    :param name: the new name, quoted where needed.
    """
    own = own_name(expected)
    if expected.kind in ("column", "constraint"):
        return f"ALTER TABLE {table_of(expected)} RENAME {expected.kind.upper()} {own} TO {name}"
    return f"ALTER {_word(expected)} {_target(expected)} RENAME TO {name}"


def privileges(item: Object, missing: Sequence[str], unexpected: Sequence[str]) -> str | None:
    """Return the GRANT and REVOKE statements."""
    if item.kind == "default privileges":
        return None
    kind, target, column = _GRANTED.get(item.kind, _word(item)), item.identity, ""
    if item.kind == "column":
        target, column = table_of(item), f" ({own_name(item)})"
    statements = []
    for entry in unexpected:
        role, _, privilege = entry.removesuffix(" WITH GRANT OPTION").rpartition("=")
        statements.append(f"REVOKE {privilege}{column} ON {kind} {target} FROM {_role(role)}")
    for entry in missing:
        role, _, privilege = entry.removesuffix(" WITH GRANT OPTION").rpartition("=")
        option = " WITH GRANT OPTION" if entry.endswith(" WITH GRANT OPTION") else ""
        statements.append(f"GRANT {privilege}{column} ON {kind} {target} TO {_role(role)}{option}")
    if any(entry.startswith("<owner>=") for entry in (*missing, *unexpected)):
        owner = item.attributes.get("owner")
        if owner is None:
            return None
        statements = [s.replace("<owner>", identifier(owner)) for s in statements]
    return _lines(*statements)


def concurrently(sql: str) -> str:
    """Turn the server's definition of an index into one that does not stop writers."""
    return sql.replace("INDEX ", "INDEX CONCURRENTLY ", 1)


def table_of(item: Object) -> str:
    """Return the table that an object is on."""
    return item.parents[0].partition(":")[2] if item.parents else ""


def own_name(item: Object) -> str:
    """Return an object's name without the table before it."""
    return item.identity.removeprefix(f"{table_of(item)}.")


def _lines(*statements: str) -> str | None:
    return "\n".join(f"{s.rstrip().rstrip(';')};" for s in statements) or None


def _role(role: str) -> str:
    return role  # quoted by the server


def _word(item: Object) -> str:
    return item.kind.upper()


def _target(item: Object) -> str:
    """Return what ALTER and COMMENT call an object."""
    if item.kind in ("trigger", "rule", "policy"):
        return f"{own_name(item)} ON {table_of(item)}"
    if item.kind == "column":
        return item.identity
    return own_name(item)


def _comment(item: Object) -> str:
    text = item.attributes.get("comment")
    target = f"{own_name(item)} ON {table_of(item)}" if item.kind == "constraint" else _target(item)
    return f"COMMENT ON {_word(item)} {target} IS {constant(text) if text is not None else 'NULL'}"


def extras(item: Object) -> list[str]:
    """Return the statements for what the definition of an object does not say, such as its comment."""
    statements = [_comment(item)] if item.attributes.get("comment") else []
    if item.kind in ("trigger", "rule") and item.attributes["state"] != "enabled":
        state = _state(item.attributes["state"])
        statements.append(f"ALTER TABLE {table_of(item)} {state} {_word(item)} {own_name(item)}")
    if item.attributes.get("clustered"):
        statements.append(_clustered(table_of(item), own_name(item), True))
    if item.kind == "statistics" and (target := item.attributes["statistics target"]) != "default":
        statements.append(f"ALTER STATISTICS {own_name(item)} SET STATISTICS {target}")
    return statements


def only_to_validate(expected: Object, actual: Object) -> bool:
    """Tell whether a constraint is what it should be, but for the rows that were there before it."""
    definition = str(actual.attributes["definition"])
    return (
        bool(expected.attributes["validated"])
        and definition.endswith(" NOT VALID")
        and (definition.removesuffix(" NOT VALID") == expected.attributes["definition"])
    )


def _constraint(item: Object) -> list[str]:
    """Add a constraint so that the long part does not stop writers."""
    table, name, definition = table_of(item), own_name(item), str(item.attributes["definition"])
    if item.attributes["type"] in ("check", "foreign key") and item.attributes["validated"]:
        return [
            f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
        ]
    return [f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"]


def _column(item: Object) -> str | None:
    wanted = item.attributes
    if (
        wanted["generated"]
        or wanted["identity generation"]
        or (wanted["not null"] and wanted["default"] is None)
    ):
        return None  # what the rows that are there shall hold is for a person to say
    parts = [f"ALTER TABLE {table_of(item)} ADD COLUMN {own_name(item)} {wanted['type']}"]
    if wanted["collation"]:
        parts.append(f"COLLATE {wanted['collation']}")
    if wanted["default"] is not None:
        parts.append(f"DEFAULT {wanted['default']}")
    if wanted["not null"]:
        parts.append("NOT NULL")
    return _lines(" ".join(parts), *extras(item))


def _not_null(table: str, column: str, name: str | None) -> list[str]:
    """Set NOT NULL without a scan under ACCESS EXCLUSIVE.

    :param name: of the constraint, with what it says beside; None before PostgreSQL 18.
    """
    if name and not name.endswith((" NOT VALID", " NO INHERIT")):
        return [
            f"ALTER TABLE {table} ADD CONSTRAINT {name} NOT NULL {column} NOT VALID",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
        ]
    check = f'"{column.strip(chr(34))}_not_null_check"'
    return [
        f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}",
        f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL",
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
    ]


def _options(prefix: str, wanted: list[str] | None, actual: list[str] | None) -> list[str]:
    expected = dict(option.split("=", 1) for option in wanted or [])
    present = dict(option.split("=", 1) for option in actual or [])
    statements = []
    if gone := [name for name in present if name not in expected]:
        statements.append(f"{prefix} RESET ({', '.join(gone)})")
    if changed := [f"{n} = {constant(v)}" for n, v in expected.items() if present.get(n) != v]:
        statements.append(f"{prefix} SET ({', '.join(changed)})")
    return statements


def _labels(name: str, wanted: list[str], actual: list[str]) -> list[Any]:
    """Add the labels that are missing; None when labels are there that should not, or in another order."""
    if [label for label in wanted if label in actual] != actual:
        return [None]
    statements = []
    for number, label in enumerate(wanted):
        if label not in actual:
            place = f"AFTER {constant(wanted[number - 1])}" if number else f"BEFORE {constant(actual[0])}"
            statements.append(f"ALTER TYPE {name} ADD VALUE {constant(label)} {place}")
    return statements


def _clustered(table: str, name: str, wanted: bool) -> str:
    return f"ALTER TABLE {table} CLUSTER ON {name}" if wanted else f"ALTER TABLE {table} SET WITHOUT CLUSTER"


def _state(state: str) -> str:
    return {"disabled": "DISABLE", "on replicas only": "ENABLE REPLICA", "always": "ENABLE ALWAYS"}.get(
        state, "ENABLE"
    )


def _replica_identity(value: str) -> str:
    return value.replace("index ", "USING INDEX ", 1) if value.startswith("index ") else value.upper()


def _is_partitioned(index: Object) -> bool:
    """Tell whether an index is of a partitioned table, or of a partition and part of such a one.

    The server neither builds nor drops those concurrently.
    """
    return " ON ONLY " in str(index.sql) or bool(index.attributes["attached to"])
