"""The rule about a value of an enum that is used in the transaction that adds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from guvnor.lint.parsing import ParsedStatement, last_name, nodes
from guvnor.lint.problem import Violation
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import RevisionRule

_TEXT = {"text", "varchar", "bpchar", "name"}


def _used_uncommitted(source: RevisionSource) -> Iterator[Violation]:
    added: dict[str, str] = {}
    direction = None
    for statement in source.statements:
        call = statement.call
        if call.direction != direction or not call.in_transaction:  # an online operation commits
            added, direction = {}, call.direction
        if not call.in_transaction:
            continue
        if value := _added_value(statement):
            added[value] = last_name(statement.node["typeName"])
            continue
        for value in dict.fromkeys(_constants(statement.node)):
            for label in (label for label in added if _holds(value, label)):
                message = (
                    f"{statement.opening} uses {label!r}, which this transaction adds to {added[label]}."
                )
                yield statement.violation(message)


def _added_value(statement: ParsedStatement) -> str | None:
    """Return the value that ALTER TYPE ... ADD VALUE adds."""
    if statement.kind != "AlterEnumStmt" or "oldVal" in statement.node:
        return None
    value: str | None = statement.node.get("newVal")
    return value


def _constants(tree: Any) -> Iterator[str]:
    """Return the string constants of a parse tree that may be values of an enum."""
    if isinstance(tree, list):
        for item in tree:
            yield from _constants(item)
    if not isinstance(tree, dict):
        return
    for kind, value in tree.items():
        if kind == "TypeCast" and last_name(value["typeName"]["names"]) in _TEXT:
            continue
        if kind == "A_Expr" and any(_is_text(side) for side in (value.get("lexpr"), value.get("rexpr"))):
            continue  # compared with text
        if kind == "A_Const":
            yield from (
                text["sval"] for text in nodes(value, "sval") if isinstance(text, dict) and "sval" in text
            )
        else:
            yield from _constants(value)


def _is_text(side: Any) -> bool:
    cast = side.get("TypeCast") if isinstance(side, dict) else None
    return cast is not None and last_name(cast["typeName"]["names"]) in _TEXT


def _holds(constant: str, label: str) -> bool:
    """Tell whether a constant is a label, or an array of labels with it."""
    if constant == label:
        return True
    array = constant[1:-1] if constant[:1] == "{" and constant[-1:] == "}" else ""
    return label in (part.strip().strip('"') for part in re.split(r"[{},]", array))


ENUM_VALUE_USED = RevisionRule(
    "enum-value-used-at-once",
    "A value of an enum is not used in the transaction that adds it.",
    "PostgreSQL refuses it (55P04, unsafe use of new value): in a default, in an index or check, in rows. On "
    "the next try it may work, because the value may be there by then, so a test does not always show it.",
    "Use `op.add_enum_value`, which commits the value before the next statement.",
    """\
op.execute("ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'matrix'")
op.execute("ALTER TABLE notification_rules ALTER COLUMN channel_type SET DEFAULT 'matrix'")""",
    """\
op.add_enum_value("channel_type", "matrix")
op.execute("ALTER TABLE notification_rules ALTER COLUMN channel_type SET DEFAULT 'matrix'")""",
    _used_uncommitted,
)

RULES = (ENUM_VALUE_USED,)
