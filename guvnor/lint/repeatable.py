"""Whether a statement can be run again after it has done its work.

To run it twice on a server would be the truth. Lint works without one, so it asks the parse tree whether the
statement says IF EXISTS and the like.
"""

from __future__ import annotations

from typing import Any

from guvnor.lint.parsing import Node, Parsed

# The flag of the parse tree that makes a statement repeatable, and how it is written.
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
    "CreateTrigStmt": ("replace", "OR REPLACE, or a DO block that looks first"),
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
_GUARD = "a DO block that looks first, or catches duplicate_object"
_NEVER = {
    "CreateEnumStmt",
    "CompositeTypeStmt",
    "CreateRangeStmt",
    "CreateDomainStmt",
    "DefineStmt",
    "CreatePolicyStmt",
    "RenameStmt",
    "AlterObjectSchemaStmt",
}
_NEVER_COMMANDS = {
    "AT_AddConstraint",
    "AT_AddIdentity",
    "AT_AttachPartition",
    "AT_DetachPartition",
    "AT_AddInherit",
    "AT_DropInherit",
}


def missing(statement: Parsed) -> str | None:
    """Return what a statement lacks so that it can be run again; None when it can be."""
    if statement.guarded:
        return None
    node = statement.node
    match statement.kind:
        case "AlterTableStmt":
            return next(filter(None, (_command(item["AlterTableCmd"]) for item in node["cmds"])), None)
        case "InsertStmt" if "onConflictClause" not in node and not _looks_first(node.get("selectStmt")):
            return "ON CONFLICT DO NOTHING"
        case "UpdateStmt" if "whereClause" not in node:
            return "a WHERE that leaves out the rows that are done"
        case kind if kind in _NEVER:
            return _GUARD
        case kind if kind in _FLAGS:
            return _unless_flagged(node, *_FLAGS[kind])
    return None


def _command(command: Node) -> str | None:
    kind = command["subtype"]
    if kind in _NEVER_COMMANDS:
        return _GUARD
    return _unless_flagged(command, *_COMMANDS[kind]) if kind in _COMMANDS else None


def _unless_flagged(node: Node, flag: str, words: str) -> str | None:
    return None if node.get(flag) else words


def _looks_first(query: Any) -> bool:
    """Tell whether the rows of an INSERT are chosen by a condition, such as NOT EXISTS."""
    return bool(query) and "whereClause" in query["SelectStmt"]
