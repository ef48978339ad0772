"""The SQL of columns: their definitions, and what sets each of their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guvnor.postgres.quoting import constant, quoted, unquoted
from guvnor.schema import identity_ddl
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import Statement, each, find, statement, table_of, terminated

# What may follow the name of a NOT NULL constraint in a snapshot.
_REMARKS = (" NOT VALID", " NO INHERIT")

DEFAULT = " (default)"  # follows the storage of a column in a snapshot that is that of its type


def must_be_filled(column: Object) -> bool:
    """Tell whether a new column is NOT NULL and has no value for existing rows."""
    values = column.attributes
    computed = values["generated"] or values["identity generation"]
    return bool(values["not null"] and values["default"] is None and not computed)


def type_of(values: Mapping[str, Any]) -> str:
    """Return the type of a column with its collation, given the column's attributes."""
    return f"{values['type']} COLLATE {values['collation']}" if values["collation"] else str(values["type"])


def definition(column: Object) -> str:
    """Return a column's definition without its name, as CREATE TABLE has it."""
    values = column.attributes
    parts = [type_of(values)]
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


def add(column: Object, definition: str, words: str = "") -> str:
    """Return the statement that adds a column to its table.

    :param words: what stands before its name: ``IF NOT EXISTS``.
    """
    return f"ALTER TABLE {table_of(column)} ADD COLUMN {words}{column.name} {definition}"


def retype(column: Object, values: Mapping[str, Any], *, cast: bool) -> str:
    """Return the action of ALTER TABLE that gives a column the type and collation among some attributes.

    :param cast: whether values are cast through text.
    """
    using = f" USING CAST({column.name}::text AS {values['type']})" if cast else ""
    return f"ALTER COLUMN {column.name} TYPE {type_of(values)}{using}"


def retype_actions(before: Object, after: Object, *, cast: bool) -> list[str]:
    """Return the actions of ALTER TABLE that change a column's type; a default can prevent the change.

    :param cast: see :func:`retype`.
    """
    alter = f"ALTER COLUMN {after.name}"
    old, new = before.attributes["default"], after.attributes["default"]
    return [
        *([f"{alter} DROP DEFAULT"] if old is not None or new is not None else []),
        retype(after, after.attributes, cast=cast),
        *([f"{alter} SET DEFAULT {new}"] if new is not None else []),
    ]


def attributes(expected: Object, actual: Object) -> dict[str, list[Statement]]:
    """Return the statements that set each attribute of a column, for those that can be set by themselves."""
    wanted, there = expected.attributes, actual.attributes
    table, name = table_of(expected), expected.name
    prefix = f"ALTER TABLE {table} ALTER COLUMN {name}"
    default = "DROP DEFAULT" if wanted["default"] is None else f"SET DEFAULT {wanted['default']}"
    found = {
        "default": [statement(f"{prefix} {default}")],
        "storage": [statement(f"{prefix} SET STORAGE {str(wanted['storage']).removesuffix(DEFAULT)}")],
        "compression": [statement(f"{prefix} SET COMPRESSION {wanted['compression']}")],
        "statistics target": [statement(f"{prefix} SET STATISTICS {statistics_target(wanted)}")],
        "options": each(options(prefix, wanted["options"], there["options"])),
    }
    if wanted["generated"] is None:
        found["generated"] = [statement(f"{prefix} DROP EXPRESSION IF EXISTS")]
    old, new = str(there["not null constraint"]), str(wanted["not null constraint"])
    if wanted["not null"] and not any(text.endswith(_REMARKS) for text in (old, new)):
        sql = f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}"
        found["not null constraint"] = [statement(sql, when=find("constraint", table, old))]
    found["not null"] = [_not_null(expected) if wanted["not null"] else statement(f"{prefix} DROP NOT NULL")]
    identity = {"identity generation": identity_ddl.alter(expected, actual)}
    # A default and an identity exclude each other, and an identity is NOT NULL.
    return {**identity, **found} if wanted["identity generation"] is None else {**found, **identity}


def of_type(column: Object) -> list[Statement]:
    """Return the statements for what a column has from its type unless it is set."""
    set_by = attributes(column, column)
    storage = [] if str(column.attributes["storage"]).endswith(DEFAULT) else set_by["storage"]
    return [*storage, *(set_by["compression"] if column.attributes["compression"] != "default" else [])]


def _not_null(column: Object) -> Statement:
    """Set NOT NULL without a scan under ACCESS EXCLUSIVE."""
    table, name = table_of(column), column.name
    # The name that PostgreSQL 18 gives the constraint, and remarks on it.
    own = column.attributes["not null constraint"]
    named = own and not own.endswith(_REMARKS)
    check = own if named else quoted(f"{unquoted(name)}_not_null_check")
    what = f"NOT NULL {name}" if named else f"CHECK ({name} IS NOT NULL)"
    actions = [f"ADD CONSTRAINT {check} {what} NOT VALID", f"VALIDATE CONSTRAINT {check}"]
    if not named:
        actions += [f"ALTER COLUMN {name} SET NOT NULL", f"DROP CONSTRAINT {check}"]
    sql = terminated(f"ALTER TABLE {table} {action}" for action in actions)
    return statement(sql, operation=("set_not_null", unquoted(table), unquoted(name)))


def remarks(constraint: str) -> str:
    """Return the remarks that follow the name of a NOT NULL constraint in a snapshot."""
    return "".join(remark for remark in _REMARKS if remark in constraint)


def statistics_target(values: Mapping[str, Any]) -> str:
    """Return what SET STATISTICS is given, for an object's attributes."""
    target = values["statistics target"]
    return "-1" if target == "default" else str(target)


def options(prefix: str, wanted: list[str] | None, actual: list[str] | None) -> list[str]:
    """Return the statements that reset and set storage options.

    :param prefix: what each begins with: ``ALTER TABLE incidents``.
    """
    expected, present = (dict(option.split("=", 1) for option in side or []) for side in (wanted, actual))
    gone = [name for name in present if name not in expected]
    changed = [f"{name} = {constant(v)}" for name, v in expected.items() if present.get(name) != v]
    actions = {"RESET": gone, "SET": changed}
    return [f"{prefix} {action} ({', '.join(names)})" for action, names in actions.items() if names]
