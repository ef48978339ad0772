"""The rules about statements that keep the application away from a table for long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guvnor.lint import data_rules, harmless, squawk, tables
from guvnor.lint.parsing import ParsedStatement, nodes
from guvnor.lint.problem import Violation
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import RevisionRule

# PostgreSQL documentation, ALTER TABLE and "Explicit Locking".
_REWRITES = {
    "AT_SetLogged": "SET LOGGED writes the table anew",
    "AT_SetUnLogged": "SET UNLOGGED writes the table anew, and a crash empties it from then on",
    "AT_SetTableSpace": "SET TABLESPACE copies the table",
    "AT_SetAccessMethod": "SET ACCESS METHOD writes the table anew",
    "AT_SetExpression": "SET EXPRESSION writes the table anew",
}


def _lock_taken(source: RevisionSource) -> Iterator[Violation]:
    for statement, new in tables.in_order(source):
        if statement.kind == "LockStmt":
            for name in sorted(tables.named(statement.node["relations"]) - new):
                yield statement.violation(f"LOCK TABLE holds {name} until the revision commits.")


def _rewritten(source: RevisionSource) -> Iterator[Violation]:
    for statement, new in tables.in_order(source):
        if tables.target(statement) not in new:
            for message in _rewrites(statement):
                yield statement.violation(f"{message}, and nobody can use it meanwhile.")


def _rewrites(statement: ParsedStatement) -> Iterator[str]:
    node = statement.node
    match statement.kind:
        case "AlterTableStmt" if node.get("objtype") != "OBJECT_INDEX":
            yield from filter(
                None, (_REWRITES.get(command["subtype"]) for command in tables.commands(statement))
            )
        case "AlterTableMoveAllStmt":
            yield "SET TABLESPACE copies every table"
        case "ClusterStmt":
            yield "CLUSTER writes the table anew"
        case "VacuumStmt" if any(option.get("defname") == "full" for option in nodes(node, "DefElem")):
            yield "VACUUM FULL writes the table anew"
        case "RefreshMatViewStmt" if not node.get("concurrent") and not node.get("skipData"):
            yield "REFRESH fills the materialized view anew"


def _read_under_lock(source: RevisionSource) -> Iterator[Violation]:
    checked: set[str] = set()
    for statement, new in tables.in_order(source):
        table = tables.target(statement)
        for command in tables.commands(statement):
            if command["subtype"] == "AT_ValidateConstraint" and table:
                checked.add(table)
            elif command["subtype"] == "AT_AttachPartition":
                partition = command["def"]["PartitionCmd"]["name"]["relname"]
                if partition not in new and partition not in checked:
                    yield statement.violation(
                        f"ATTACH PARTITION reads all of {partition} while nobody can use it, unless a "
                        "validated check says what it holds."
                    )
            elif command["subtype"] == "AT_AddColumn" and table not in new:
                column = command["def"]["ColumnDef"]
                if reason := _reads_rows(column):
                    yield statement.violation(
                        f"ADD COLUMN {column['colname']} with {reason} reads all of {table} while nobody can "
                        "use it."
                    )


def _reads_rows(column: dict[str, Any]) -> str | None:
    """Return which part of a new column makes the server read the table's rows; None for none."""
    found = {item["contype"]: item for item in tables.constraints(column)}
    if "CONSTR_CHECK" in found:
        return "a CHECK"
    # The rows of a column without a default hold NULL, which refers to nothing.
    default = found.get("CONSTR_DEFAULT", {}).get("raw_expr", {"A_Const": {"isnull": True}})
    if "CONSTR_FOREIGN" in found and not default.get("A_Const", {}).get("isnull"):
        return "a default and REFERENCES"
    return None


# Commands of ALTER TABLE that let readers and writers go on.
_WEAK = {
    "AT_ValidateConstraint", "AT_SetStatistics", "AT_SetOptions", "AT_ResetOptions", "AT_SetRelOptions",
    "AT_ResetRelOptions", "AT_ClusterOn", "AT_DropCluster", "AT_AttachPartition",
}  # fmt: skip
_LOCKED_BY_DROP = {"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"}


def _lock_held(source: RevisionSource) -> Iterator[Violation]:
    direction, held = "", dict[str, str]()
    for statement, new in tables.in_order(source):
        if statement.call.direction != direction or not statement.call.in_transaction:
            # An online operation comes after the transaction before it has been committed.
            direction, held = statement.call.direction, {}
            if not statement.call.in_transaction:
                continue
        busy = {table: opening for table, opening in held.items() if table not in new}
        if statement.kind == "UpdateStmt":  # its own table is locked against other writers of the rows anyway
            busy.pop(tables.target(statement) or "", None)
        long = _long(statement)
        if _writes_anew(source, statement):
            long = {tables.target(statement) or ""}
            busy.pop(tables.target(statement) or "", None)
        if busy and (rows := sorted(long - new)):
            table, opening = next(iter(busy.items()))
            yield statement.violation(
                f"{table} stays locked by {opening} for as long as {statement.opening} reads or writes "
                f"{', '.join(rows)}."
            )
        for table in _locked(statement):
            held.setdefault(table, statement.opening)


def _writes_anew(source: RevisionSource, statement: ParsedStatement) -> bool:
    """Tell whether ALTER TABLE reads or writes all rows of its table."""
    if statement.kind != "AlterTableStmt":
        return False
    if any(command["subtype"] in _REWRITES for command in tables.commands(statement)):
        return True
    return any(
        command["subtype"] == "AT_AlterColumnType" for command in tables.commands(statement)
    ) and not harmless.is_harmless(
        "changing-column-type", statement, lambda: squawk.schema_before(source, statement)
    )


def _long(statement: ParsedStatement) -> set[str]:
    """Return the tables that a statement reads or writes for longer than a moment; none for a short one."""
    node = statement.node
    match statement.kind:
        case "UpdateStmt" | "DeleteStmt":
            return set() if data_rules.names_few(node.get("whereClause")) else {node["relation"]["relname"]}
        case "MergeStmt":
            return {node["relation"]["relname"]}
        case "InsertStmt":
            return tables.named(node.get("selectStmt", {}).get("SelectStmt", {}))
        case "CreateTableAsStmt" if not node["into"].get("skipData"):
            return tables.named(node["query"])
        case "RefreshMatViewStmt":
            return {node["relation"]["relname"]}
        case "AlterTableStmt" if any(
            c["subtype"] == "AT_ValidateConstraint" for c in tables.commands(statement)
        ):
            return {node["relation"]["relname"]}
    return set()


def _locked(statement: ParsedStatement) -> set[str]:
    """Return the tables that a statement locks against writers until the commit."""
    node, table = statement.node, tables.target(statement)
    referred = {key["pktable"]["relname"] for key in nodes(node, "Constraint") if "pktable" in key}
    match statement.kind:
        case "AlterTableStmt":
            strong = any(command["subtype"] not in _WEAK for command in tables.commands(statement))
            return ({table} if table and strong else set()) | referred
        case "CreateStmt":
            return referred
        case "IndexStmt" | "CreateTrigStmt" | "RenameStmt" | "CreatePolicyStmt" | "RuleStmt":
            return {table} if table else set()
        case "LockStmt":
            return tables.named(node["relations"])
        case "TruncateStmt":
            return tables.named(node["relations"])
        case "DropStmt" if node.get("removeType") in _LOCKED_BY_DROP:
            return {item["List"]["items"][-2]["String"]["sval"] for item in node["objects"]}
    return set()


NO_LOCK_TABLE = RevisionRule(
    "no-lock-table",
    "A revision does not lock a table by itself.",
    "The lock lasts until the revision commits. Each statement takes the lock that it needs, and the tool "
    "asks for locks so that nobody waits behind it.",
    "Delete the statement. Where rows must not change meanwhile, use `op.backfill`, or lock the rows.",
    """\
op.execute("LOCK TABLE schedules IN ACCESS EXCLUSIVE MODE")
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")""",
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _lock_taken,
)

NO_REWRITE = RevisionRule(
    "no-table-rewrite",
    "A table in use is not written anew: no CLUSTER, VACUUM FULL, SET UNLOGGED or SET EXPRESSION, and no "
    "REFRESH that keeps readers away.",
    "The statement writes every row while nobody can even read the table. VACUUM does not run in a "
    "transaction at all.",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index. Instead of SET EXPRESSION, add a "
    "new column and drop the old one in a later revision. Plan the others for a time of maintenance.",
    'op.execute("REFRESH MATERIALIZED VIEW on_call")',
    """\
op.execute("CREATE MATERIALIZED VIEW IF NOT EXISTS on_call AS SELECT id, user_id FROM schedule_shifts")
op.execute("CREATE UNIQUE INDEX IF NOT EXISTS on_call_id ON on_call (id)")
op.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY on_call")""",
    _rewritten,
)

NO_READ_UNDER_LOCK = RevisionRule(
    "no-read-under-lock",
    "A new column of a table in use has neither a CHECK nor a default with REFERENCES; a partition that is "
    "attached has a validated check.",
    "The server reads the whole table under ACCESS EXCLUSIVE to prove that all rows obey.",
    "Add the column alone, then the constraint NOT VALID in a DO block, then use `op.validate_constraint`.",
    """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS weight integer CHECK (weight > 0)")""",
    '''\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS weight integer")
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE signals ADD CONSTRAINT signal_weight_positive CHECK (weight > 0) NOT VALID;
    EXCEPTION
        WHEN duplicate_object THEN NULL;
    END
    $$
""")
op.validate_constraint("signals", "signal_weight_positive")''',
    _read_under_lock,
)

NO_LOCK_HELD = RevisionRule(
    "no-lock-held",
    "No table in use stays locked while a long statement reads or writes another one.",
    "A lock lasts until the commit, so the application waits for the first table while the revision is busy "
    "with the second.",
    "Put the long statement first, into a revision of its own, or into `op.backfill`: locks come last. Or "
    "write `op.next_transaction()` between the two, which commits what is done so far.",
    '''\
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")
op.execute("""
    INSERT INTO audit_logs (id, entity_type, entity_id, action, actor)
    SELECT id, 'event', id, type, actor FROM events
    ON CONFLICT DO NOTHING
""")''',
    '''\
op.execute("""
    INSERT INTO audit_logs (id, entity_type, entity_id, action, actor)
    SELECT id, 'event', id, type, actor FROM events
    ON CONFLICT DO NOTHING
""")
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")''',
    _lock_held,
)

RULES = (NO_LOCK_TABLE, NO_REWRITE, NO_READ_UNDER_LOCK, NO_LOCK_HELD)
