"""Whether a statement can run a second time.

Only a server could prove it. Lint works without a server, and looks for IF EXISTS and the like in the parse
tree.
"""

from __future__ import annotations

from typing import Any

from guvnor.lint.parsing import ParsedStatement

_CREATED = (
    "CreateStmt", "CreateTableAsStmt", "CreateSeqStmt", "CreateSchemaStmt", "CreateExtensionStmt",
    "CreateStatsStmt", "IndexStmt",
)  # fmt: skip
# For each kind of statement, or of command in ALTER TABLE, the flag of the parse tree that makes it
# repeatable, and the words that set the flag.
_FLAGS = {
    **dict.fromkeys(_CREATED, ("if_not_exists", "IF NOT EXISTS")),
    **dict.fromkeys(("CreateFunctionStmt", "ViewStmt", "RuleStmt"), ("replace", "OR REPLACE")),
    "CreateTrigStmt": ("replace", "OR REPLACE, or a DO block that checks first"),
    "DropStmt": ("missing_ok", "IF EXISTS"),
    "AlterEnumStmt": ("skipIfNewValExists", "IF NOT EXISTS"),
    "AT_AddColumn": ("missing_ok", "ADD COLUMN IF NOT EXISTS"),
    "AT_DropColumn": ("missing_ok", "DROP COLUMN IF EXISTS"),
    "AT_DropConstraint": ("missing_ok", "DROP CONSTRAINT IF EXISTS"),
    "AT_DropIdentity": ("missing_ok", "DROP IDENTITY IF EXISTS"),
    "AT_DropExpression": ("missing_ok", "DROP EXPRESSION IF EXISTS"),
}
_GUARD = "a DO block that checks first or catches duplicate_object"
# The kinds that have no such flag.
_UNGUARDED = {
    "CreateEnumStmt", "CompositeTypeStmt", "CreateRangeStmt", "CreateDomainStmt", "DefineStmt",
    "CreatePolicyStmt", "RenameStmt", "AlterObjectSchemaStmt", "AT_AddConstraint", "AT_AddIdentity",
    "AT_AttachPartition", "AT_DetachPartition", "AT_AddInherit", "AT_DropInherit",
}  # fmt: skip


def missing_guard(statement: ParsedStatement) -> str | None:
    """Return what a statement lacks to be run a second time; None when it lacks nothing."""
    node = statement.node
    if statement.guarded:
        return None
    if statement.kind == "AlterTableStmt":
        commands = [item["AlterTableCmd"] for item in node["cmds"]]
        # A constraint that one command drops can be added again by another.
        dropped = [command["name"] for command in commands if command["subtype"] == "AT_DropConstraint"]
        added = [c for c in commands if c.get("def", {}).get("Constraint", {}).get("conname") in dropped]
        lacks = [_lacks(command["subtype"], command) for command in commands if command not in added]
        return next(filter(None, lacks), None)
    if statement.kind == "InsertStmt":
        # Its rows may come from a query with a condition such as NOT EXISTS.
        query = node.get("selectStmt", {}).get("SelectStmt", {})
        return None if "onConflictClause" in node or "whereClause" in query else "ON CONFLICT DO NOTHING"
    if statement.kind == "UpdateStmt":
        return None if "whereClause" in node else "a WHERE that skips rows that are done"
    return _lacks(statement.kind, node)


def _lacks(kind: str, node: dict[str, Any]) -> str | None:
    if kind in _UNGUARDED:
        return _GUARD
    flag, words = _FLAGS.get(kind, ("", None))
    return None if node.get(flag) else words
