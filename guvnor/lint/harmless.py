"""What squawk takes for a problem although the server neither reads nor writes a row for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from guvnor.lint import tables
from guvnor.lint.known_schema import DeclaredType, KnownSchema, type_in
from guvnor.lint.parsing import NEWER, ParsedStatement, last_name

# Functions of PostgreSQL that are immutable or stable (pg_proc.provolatile): one value, computed once, serves
# all rows.
SAME_FOR_ALL_ROWS = frozenset({
    "now", "transaction_timestamp", "statement_timestamp", "timezone", "date_trunc", "date_part", "extract",
    "make_date", "make_time", "make_timestamp", "make_timestamptz", "make_interval", "to_char", "to_date",
    "to_timestamp", "to_number", "age", "justify_days", "lower", "upper", "initcap", "trim", "btrim",
    "ltrim", "rtrim", "concat", "concat_ws", "format", "left", "right", "replace", "repeat", "reverse",
    "substring", "substr", "lpad", "rpad", "length", "md5", "encode", "decode", "convert_to",
    "convert_from", "quote_literal", "quote_ident", "sha224", "sha256", "sha384", "sha512", "ascii", "chr",
    "split_part", "translate", "regexp_replace", "abs", "ceil", "ceiling", "floor", "round", "trunc",
    "power", "sqrt", "mod", "sign", "greatest", "least", "coalesce", "nullif", "json_build_object",
    "json_build_array", "jsonb_build_object", "jsonb_build_array", "json_object", "jsonb_object", "to_json",
    "to_jsonb", "array_fill", "array_append", "array_cat", "string_to_array", "current_setting",
    "current_database", "current_schema", "current_user", "session_user", "user", "pg_typeof", "int4range",
    "int8range", "numrange", "daterange", "tsrange", "tstzrange", "uuid_nil", "uuid_ns_dns", "uuid_ns_url",
    "inet_client_addr", "version",
})  # fmt: skip
# Nodes of an expression that compute the same from the same.
_PURE = frozenset({
    "A_Const", "TypeCast", "TypeName", "SQLValueFunction", "A_Expr", "A_ArrayExpr", "CoalesceExpr",
    "MinMaxExpr", "BoolExpr", "NullTest", "CaseExpr", "CaseWhen", "FuncCall", "RowExpr",
    "A_Indirection", "A_Indices", "CollateClause", "String", "Integer", "Float", "List", "NamedArgExpr",
})  # fmt: skip
# Types that hold every value of the same type with smaller numbers in its parentheses (or with the same one,
# for what stands behind the comma), without a change of what is stored.
_WIDENED = frozenset({"varchar", "varbit", "numeric", "timestamp", "timestamptz", "time", "timetz"})
# What PostgreSQL 18 knows and the parser does not: a check that reads no row, a column that is not stored.
_NEWER = {
    "constraint-missing-not-valid": re.compile(r"\bNOT\s+ENFORCED\b", re.IGNORECASE),
    "adding-field-with-default": re.compile(r"\bVIRTUAL\b", re.IGNORECASE),
}


def is_harmless(rule: str, statement: ParsedStatement, before: Callable[[], KnownSchema]) -> bool:
    """Tell whether what squawk finds in a statement is no problem on PostgreSQL.

    PostgreSQL documentation: ALTER TABLE, Notes.

    :param before: returns what is known of the schema before the statement.
    """
    if statement.kind == NEWER:
        return rule in _NEWER and _NEWER[rule].search(statement.sql) is not None
    if rule == "adding-field-with-default":
        columns = [
            c["def"]["ColumnDef"] for c in tables.commands(statement) if c["subtype"] == "AT_AddColumn"
        ]
        return bool(columns) and all(map(_is_computed_once, columns))
    if rule == "changing-column-type":
        return _keeps_rows(statement, before())
    return False


def advice(rule: str, statement: ParsedStatement, before: Callable[[], KnownSchema]) -> str | None:
    """Return what to write instead, where it depends on the schema; None for what the rule says."""
    if rule != "changing-column-type":
        return None
    known, table = before(), tables.target(statement) or ""
    if not _keeps_rows(statement, known, obstacles=False):
        return None
    retyped = [c["name"] for c in tables.commands(statement) if c["subtype"] == "AT_AlterColumnType"]
    names = sorted({name for column in retyped for name in known.in_the_way(table, column, plain=False)})
    return (
        f"The new type holds every value, but the server reads all rows for {', '.join(names)}. Drop a check "
        "in the same ALTER TABLE, add it again NOT VALID, then op.validate_constraint; drop an index before, "
        "and build it afterwards, concurrently."
    )


def _is_computed_once(column: dict[str, Any]) -> bool:
    """Return whether a new column has one value for all rows that exist."""
    for constraint in tables.constraints(column):
        if constraint["contype"] in ("CONSTR_GENERATED", "CONSTR_IDENTITY"):
            return False
        if constraint["contype"] == "CONSTR_DEFAULT" and not _is_pure(constraint["raw_expr"]):
            return False
    return True


def _is_pure(expression: dict[str, Any]) -> bool:
    ((kind, node),) = expression.items()
    if kind not in _PURE:
        return False
    if kind == "FuncCall" and last_name(node["funcname"]) not in SAME_FOR_ALL_ROWS:
        return False
    return all(map(_is_pure, _below(node)))


def _below(tree: Any) -> list[dict[str, Any]]:
    """Return the nodes right below a node: the objects whose only key is the name of a kind."""
    found: list[dict[str, Any]] = []
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(value, dict) and len(value) == 1 and next(iter(value))[:1].isupper():
            found.append(value)
        else:
            found += _below(value)
    return found


def _keeps_rows(statement: ParsedStatement, known: KnownSchema, *, obstacles: bool = True) -> bool:
    """Return whether each new type in an ALTER TABLE holds what is stored as it is.

    :param obstacles: whether checks and indexes count, for which the server reads the rows nevertheless.
    """
    commands, table = tables.commands(statement), tables.target(statement) or ""
    dropped = {command["name"] for command in commands if command["subtype"] == "AT_DropConstraint"}
    for command in commands:
        if command["subtype"] != "AT_AlterColumnType":
            continue
        column = command["def"]["ColumnDef"]
        old, new = known.type_of(table, command["name"]), type_in(column["typeName"])
        if old is None or "raw_default" in column or "collClause" in column:
            return False
        # A session runs at UTC, where the two types store the same; an index compares them differently.
        zoned = (old.name, new.name) == ("timestamp", "timestamptz")
        if obstacles and known.in_the_way(table, command["name"], plain=zoned) - dropped:
            return False
        if not (_is_widened(DeclaredType(new.name, old.modifiers) if zoned else old, new)):
            return False
    return True


def _is_widened(old: DeclaredType, new: DeclaredType) -> bool:
    if old == new:
        return True
    if old.is_array or new.is_array:
        return False
    if new in (DeclaredType("text"), DeclaredType("varchar")):
        return old.name in ("text", "varchar")
    if (old.name, new.name) == ("cidr", "inet"):
        return True
    if old.name != new.name or new.name not in _WIDENED:
        return False
    if not new.modifiers or not old.modifiers:
        return not new.modifiers
    scales = [modifiers[1:] or (0,) for modifiers in (old.modifiers, new.modifiers)]
    return old.modifiers[0] <= new.modifiers[0] and scales[0] == scales[1]
