"""The rules about data: what takes rows or values away, and what keeps many rows locked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from guvnor.lint import squawk, tables
from guvnor.lint.parsing import Node, ParsedStatement, last_name, nodes
from guvnor.lint.problem import Violation
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import RevisionRule
from guvnor.revisions.acceptances import Acceptance

# A statement of these kinds runs what is within it; that of a function or rule is only stored.
_RUNS = ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CreateTableAsStmt")
# Where a column of such a name equals a constant, few rows are meant.
_KEYS = ("id", "uuid", "key", "slug", "code", "name", "email", "username")


def _truncated(source: RevisionSource) -> Iterator[Violation]:
    for statement in _on_tables_in_use(source):
        if statement.kind == "TruncateStmt":
            names = [item["RangeVar"]["relname"] for item in statement.node["relations"]]
            if found := [name for name in names if _in_use(source, statement, name)]:
                yield statement.violation(f"{statement.opening} removes all rows of {', '.join(found)}.")


def _all_deleted(source: RevisionSource) -> Iterator[Violation]:
    for statement, node, table in _changes(source, "DeleteStmt"):
        if _is_true(node.get("whereClause")) and "usingClause" not in node:
            yield statement.violation(f"The DELETE removes all rows of {table}.")


def _all_updated(source: RevisionSource) -> Iterator[Violation]:
    for statement, table in updates_of_all(source):
        yield statement.violation(f"The UPDATE writes all rows of {table}.")


def updates_of_all(source: RevisionSource) -> Iterator[tuple[ParsedStatement, str]]:
    """Return each UPDATE of all rows of a table in use, with the table."""
    for statement, node, table in _changes(source, "UpdateStmt"):
        if _is_true(node.get("whereClause")) and "fromClause" not in node:
            yield statement, table


def _many_updated(source: RevisionSource) -> Iterator[Violation]:
    for statement, verb, table in _many(source, "UpdateStmt", "fromClause", "CMD_UPDATE"):
        message = f"The {verb} may write many rows of {table}, which stay locked until the commit."
        yield statement.violation(message)


def _many_deleted(source: RevisionSource) -> Iterator[Violation]:
    for statement, verb, table in _many(source, "DeleteStmt", "usingClause", "CMD_DELETE"):
        message = f"The {verb} may remove many rows of {table}, which are locked until the commit, then gone."
        yield statement.violation(message)


def _many(
    source: RevisionSource, kind: str, joined: str, command: str
) -> Iterator[tuple[ParsedStatement, str, str]]:
    """Return each UPDATE or DELETE of some rows in the transaction that does not name few, and MERGE.

    :param joined: the clause by which another table says which rows.
    :param command: the same as an action of MERGE.
    """
    for statement, node, table in _changes(source, kind):
        where = node.get("whereClause")
        whole = _is_true(where) and joined not in node
        if not whole and statement.call.in_transaction and not _names_few(source, statement, table, where):
            yield statement, kind.removesuffix("Stmt").upper(), table
    for statement, node, table in _changes(source, "MergeStmt"):
        actions = [action.get("commandType") for action in nodes(node, "MergeWhenClause")]
        if command in actions and statement.call.in_transaction:
            yield statement, "MERGE", table


def _names_few(source: RevisionSource, statement: ParsedStatement, table: str, where: Any) -> bool:
    return names_few(where) or names_few(where, squawk.schema_before(source, statement).keys_of(table))


def _not_said_properly(source: RevisionSource) -> Iterator[Violation]:
    for item in source.acceptances:
        if not item.table:
            yield Violation(item.line, None, "The comment names no table or column.")
        elif not item.reason:
            yield Violation(item.line, None, f"The comment does not say why {item.name} may be changed.")


def _changes(source: RevisionSource, kind: str) -> Iterator[tuple[ParsedStatement, Node, str]]:
    """Return each UPDATE or DELETE of a table in use, wherever it stands, with its parse tree and table."""
    for statement in _on_tables_in_use(source):
        if statement.kind in _RUNS:
            found = [statement.node] if statement.kind == kind else []
            for node in (*found, *nodes(statement.node, kind)):
                table = node["relation"]["relname"]
                if _in_use(source, statement, table):
                    yield statement, node, table


def _on_tables_in_use(source: RevisionSource) -> Iterator[ParsedStatement]:
    by_themselves = ("backfill", "change_rows", "delete_rows", "bring_back")
    return (statement for statement in source.statements if statement.call.operation not in by_themselves)


def _in_use(source: RevisionSource, statement: ParsedStatement, table: str) -> bool:
    """Tell whether a table was there before, and no comment of the revision accepts that it is changed."""
    direction = statement.call.direction
    said = [item for item in source.acceptances if item.direction in (None, direction)]
    return table not in _created(source, direction) and not any(_about(item, table) for item in said)


def _about(item: Acceptance, table: str) -> bool:
    return item.table == table and bool(item.reason)


def _created(source: RevisionSource, direction: str) -> set[str]:
    """Return the tables that one direction of a revision makes."""
    made = (s for s in source.statements if s.call.direction == direction)
    return {name for name in map(tables.created, made) if name}


def _is_true(where: Any) -> bool:
    """Tell whether a condition holds for every row, as far as its text shows."""
    if where is None:
        return True
    if constant := where.get("A_Const"):
        return bool(constant.get("boolval", {}).get("boolval"))
    if cast := where.get("TypeCast"):
        return _text(cast.get("arg", {})) in ("t", "true", "yes", "on", "1", "y")
    if logic := where.get("BoolExpr"):
        judged = [_is_true(part) for part in logic["args"]]
        return {"AND_EXPR": all(judged), "OR_EXPR": any(judged)}.get(logic["boolop"], _is_false(logic))
    if comparison := where.get("A_Expr"):
        left, right = comparison.get("lexpr", {}), comparison.get("rexpr", {})
        constants = "A_Const" in left and "A_Const" in right
        return constants and last_name(comparison["name"]) == "=" and _plain(left) == _plain(right)
    return False


def _is_false(logic: Node) -> bool:
    """Tell whether the one argument of NOT is false."""
    constant = logic["args"][0].get("A_Const", {})
    return "boolval" in constant and not constant["boolval"].get("boolval")


def names_few(where: Any, keys: Collection[str] = _KEYS) -> bool:
    """Tell whether a condition names rows by a key: ``id = 5``, ``name IN ('a', 'b')``.

    :param keys: the columns that are taken for one.
    """
    if where is None:
        return False
    if (logic := where.get("BoolExpr")) and logic["boolop"] in ("AND_EXPR", "OR_EXPR"):
        judged = [names_few(part, keys) for part in logic["args"]]
        return any(judged) if logic["boolop"] == "AND_EXPR" else all(judged)
    comparison = where.get("A_Expr")
    if not comparison or last_name(comparison["name"]) != "=":
        return False
    sides = [comparison.get("lexpr", {}), comparison.get("rexpr", {})]
    return any(_is_key(one, keys) and _is_constant(other) for one, other in (sides, sides[::-1]))


def _is_key(node: Any, keys: Collection[str]) -> bool:
    fields = node.get("ColumnRef", {}).get("fields", []) if isinstance(node, dict) else []
    name = fields[-1].get("String", {}).get("sval", "") if fields else ""
    return name in keys


def _is_constant(node: Any) -> bool:
    if isinstance(node, list):
        return all(map(_is_constant, node))
    if "List" in node:
        return _is_constant(node["List"]["items"])
    if "TypeCast" in node:
        return _is_constant(node["TypeCast"].get("arg", {}))
    if "A_ArrayExpr" in node:
        return _is_constant(node["A_ArrayExpr"].get("elements", []))
    return "A_Const" in node


def _text(node: Node) -> str:
    return str(node.get("A_Const", {}).get("sval", {}).get("sval", "")).lower()


def _plain(node: Node) -> dict[str, Any]:
    return {name: value for name, value in node["A_Const"].items() if name != "location"}


_ACCEPT = (
    "Where the data is to go, say so above the statement: `# changes data: TABLE: reason` for rows, "
    "`# changes data: TABLE.COLUMN: reason` for values."
)

_DELETE = (
    "Where a downgrade may need them, use op.delete_rows, which deletes in batches and keeps the rows for "
    "op.bring_back."
)
_CHANGE = (
    "Where the columns hold values that a downgrade may need, use op.change_rows, which keeps them for "
    "op.bring_back."
)

TRUNCATE = RevisionRule(
    "truncate",
    "A revision does not truncate a table in use.",
    "All rows are gone with the commit, and no downgrade brings them back.",
    f"Leave the rows, or delete those that nobody needs. {_DELETE} {_ACCEPT}",
    'op.execute("TRUNCATE audit_logs")',
    """\
# changes data: audit_logs: nobody reads them since 4.2, and the archive has them all
op.execute("TRUNCATE audit_logs")""",
    _truncated,
)

DELETE_ALL = RevisionRule(
    "delete-all-rows",
    "A DELETE of a table in use says which rows.",
    "All rows are gone with the commit, and no downgrade brings them back.",
    f"Write a WHERE that names the rows. {_DELETE} {_ACCEPT}",
    'op.execute("DELETE FROM audit_logs WHERE true")',
    "op.execute(\"DELETE FROM audit_logs WHERE id = '00000000-0000-4000-8000-000000000001'\")",
    _all_deleted,
)

DELETE_MANY = RevisionRule(
    "delete-many-rows",
    "A DELETE of many rows of a table in use keeps them, or says why they may go.",
    "The rows are gone with the commit, and no downgrade brings them back. Until then each stays locked: "
    "whoever wants to change one waits for all of them.",
    "Use op.delete_rows, which deletes in batches and keeps the rows for op.bring_back, or name the rows by "
    f"their key: a unique column, or one of the name {', '.join(_KEYS[:-1])} or {_KEYS[-1]}, that equals a "
    f"constant. {_ACCEPT}",
    "op.execute(\"DELETE FROM audit_logs WHERE occurred_at < '2020-01-01'\")",
    """\
def upgrade() -> None:
    op.delete_rows("audit_logs", where="occurred_at < '2020-01-01'", keep=True)


def downgrade() -> None:
    op.bring_back("audit_logs")""",
    _many_deleted,
)

UPDATE_ALL = RevisionRule(
    "update-all-rows",
    "An UPDATE of a table in use says which rows.",
    "What was there is gone with the commit, and every row is locked until then. A second run writes all "
    "rows again.",
    f"Use op.backfill, whose WHERE names the rows that are still to be done. {_CHANGE} {_ACCEPT}",
    "op.execute(\"UPDATE schedules SET timezone = 'UTC' WHERE 1 = 1\")",
    'op.backfill("schedules", "timezone = \'UTC\'", "timezone <> \'UTC\'")',
    _all_updated,
)

UPDATE_MANY = RevisionRule(
    "update-many-rows",
    "An UPDATE of many rows of a table in use runs in batches, outside of the revision's transaction.",
    "Each row stays locked until the commit: whoever wants to change one waits for all of them. 500,000 rows "
    "took 28 s.",
    "Use op.backfill, or name the rows by their key: a unique column, or one of the name "
    f"{', '.join(_KEYS[:-1])} or {_KEYS[-1]}, that equals a constant. {_CHANGE} {_ACCEPT}",
    'op.execute("UPDATE schedules SET active = true WHERE NOT active")',
    'op.backfill("schedules", "active = true", "NOT active")',
    _many_updated,
)

ACCEPTED = RevisionRule(
    "changes-data",
    "A comment `# changes data:` names a table or column and gives a reason.",
    "The plan, the production guard and the reviewer show the reason; without one, nothing is accepted.",
    "Write `# changes data: TABLE: reason` or `# changes data: TABLE.COLUMN: reason`.",
    """\
# changes data: audit_logs
op.execute("DELETE FROM audit_logs WHERE id = '00000000-0000-4000-8000-000000000001'")""",
    """\
# changes data: audit_logs: older than the law asks for
op.execute("DELETE FROM audit_logs WHERE occurred_at < '2020-01-01'")""",
    _not_said_properly,
)

RULES = (TRUNCATE, DELETE_ALL, DELETE_MANY, UPDATE_ALL, UPDATE_MANY, ACCEPTED)
