"""Whether a statement can run a second time.

Only a server could prove it. Lint works without one, and looks in the parse tree for IF EXISTS and the like.
"""

from __future__ import annotations

from typing import Any

from guvnor.lint.parsing import Node, ParsedStatement

# By kind of statement: the flag of the parse tree that makes it repeatable, and the words that set it.
_FLAGS = {
    "CreateStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateTableAsStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateSeqStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateSchemaStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateExtensionStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateStatsStmt": ("if_not_exists", "IF NOT EXISTS"),
    "IndexStmt": ("if_not_exists", "IF NOT EXISTS"),
    "CreateFunctionStmt": ("replace", "OR REPLACE"),
    "ViewStmt": ("replace", "OR REPLACE"),
    "CreateTrigStmt": ("replace", "OR REPLACE, or a DO block that checks first"),
    "RuleStmt": ("replace", "OR REPLACE"),
    "DropStmt": ("missing_ok", "IF EXISTS"),
    "AlterEnumStmt": ("skipIfNewValExists", "IF NOT EXISTS"),
}
_COMMANDS = {  # of ALTER TABLE
    "AT_AddColumn": ("missing_ok", "ADD COLUMN IF NOT EXISTS"),
    "AT_DropColumn": ("missing_ok", "DROP COLUMN IF EXISTS"),
    "AT_DropConstraint": ("missing_ok", "DROP CONSTRAINT IF EXISTS"),
    "AT_DropIdentity": ("missing_ok", "DROP IDENTITY IF EXISTS"),
    "AT_DropExpression": ("missing_ok", "DROP EXPRESSION IF EXISTS"),
}
_GUARD = "a DO block that checks first or catches duplicate_object"
# What has no such words.
_UNGUARDED = {
    "CreateEnumStmt",
    "CompositeTypeStmt",
    "CreateRangeStmt",
    "CreateDomainStmt",
    "DefineStmt",
    "CreatePolicyStmt",
    "RenameStmt",
    "AlterObjectSchemaStmt",
}
_UNGUARDED_COMMANDS = {
    "AT_AddConstraint",
    "AT_AddIdentity",
    "AT_AttachPartition",
    "AT_DetachPartition",
    "AT_AddInherit",
    "AT_DropInherit",
}


def missing_guard(statement: ParsedStatement) -> str | None:
    """Return what a statement lacks to be run a second time; None when it lacks nothing."""
    if statement.guarded:
        return None
    node = statement.node
    match statement.kind:
        case "AlterTableStmt":
            commands = [item["AlterTableCmd"] for item in node["cmds"]]
            return next(filter(None, (_command(command, commands) for command in commands)), None)
        case "InsertStmt" if "onConflictClause" not in node and not _has_condition(node.get("selectStmt")):
            return "ON CONFLICT DO NOTHING"
        case "UpdateStmt" if "whereClause" not in node:
            return "a WHERE that skips the rows that are done"
        case kind if kind in _UNGUARDED:
            return _GUARD
        case kind if kind in _FLAGS:
            return _unless_flagged(node, *_FLAGS[kind])
    return None


def _command(command: Node, commands: list[Node]) -> str | None:
    """Return what one command of an ALTER TABLE lacks.

    :param commands: all of its commands: a constraint that one of them drops can be added again by another.
    """
    kind = command["subtype"]
    if kind == "AT_AddConstraint":
        name = command["def"]["Constraint"].get("conname")
        if name and any(c["subtype"] == "AT_DropConstraint" and c.get("name") == name for c in commands):
            return None
    if kind in _UNGUARDED_COMMANDS:
        return _GUARD
    return _unless_flagged(command, *_COMMANDS[kind]) if kind in _COMMANDS else None


def _unless_flagged(node: Node, flag: str, words: str) -> str | None:
    return None if node.get(flag) else words


def _has_condition(query: Any) -> bool:
    """Return whether the rows of an INSERT come from a query with a WHERE, such as NOT EXISTS."""
    return bool(query) and "whereClause" in query["SelectStmt"]
