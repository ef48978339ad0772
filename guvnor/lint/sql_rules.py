"""The rules about the SQL of a revision that squawk does not have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from guvnor.lint import data_rules, repeatable
from guvnor.lint.parsing import ParsedStatement, nodes, set_by_calls
from guvnor.lint.problem import Violation
from guvnor.lint.revision import FUNCTIONS, RevisionSource
from guvnor.lint.rule import RevisionRule
from guvnor.revisions.check import todo_lines

_TIMEOUTS = {
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
}


def _not_readable(source: RevisionSource) -> Iterator[Violation]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("as_sql", "is_offline_mode"):
            message = f"The revision runs different SQL without a database: it reads {node.attr}."
            yield Violation(node.lineno, None, message)
    for rendered in source.directions:
        if failure := rendered.failure:
            line = failure.line or source.line_of(FUNCTIONS[rendered.direction])
            yield replace(failure, line=line)
    yield from source.refused


def _empty_direction(source: RevisionSource) -> Iterator[Violation]:
    for rendered in source.directions:
        if not rendered.calls and not rendered.failure:
            name = FUNCTIONS[rendered.direction]
            line = source.line_of(name)
            if _is_todo(source, name):  # `no-todo` finds it
                continue
            what = "does nothing" if line else "is missing"
            yield Violation(line, rendered.direction, f"{name}() {what}.")


def _is_todo(source: RevisionSource, name: str) -> bool:
    """Return whether a TODO stands in a function."""
    spans = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return any(line in span for span in spans for line in todo_lines(source.text))


def _not_repeatable(source: RevisionSource) -> Iterator[Violation]:
    reported = [id(statement.node) for statement, _ in data_rules.updates_of_all(source)]
    for statement in source.statements:
        # An online operation guards the SQL that it generates.
        written = statement.call.is_written_out and id(statement.node) not in reported
        if written and (words := repeatable.missing_guard(statement)):
            yield statement.violation(f"{statement.opening} fails when it is run again; it lacks {words}.")


def _not_alone(source: RevisionSource) -> Iterator[Violation]:
    with_index = set()
    for statement in source.statements:
        concurrent, call = _is_concurrent(statement), statement.call
        if concurrent and call.operation is None:
            yield statement.violation(f"{statement.opening} does not run in the revision's transaction.")
        elif call.operation == "create_index_concurrently":
            if not concurrent:
                message = f"{statement.opening} is in the SQL of an online operation, which builds one index."
                yield statement.violation(message)
            elif id(call) in with_index:
                yield Violation(call.line, call.direction, "One online operation builds several indexes.")
            else:
                with_index.add(id(call))


def _timeout_set(source: RevisionSource) -> Iterator[Violation]:
    for statement in source.statements:
        for name in _settings(statement):
            if name in _TIMEOUTS or name == "all":
                yield statement.violation(f"The revision sets or resets {name}.")


def _transaction_ended(source: RevisionSource) -> Iterator[Violation]:
    for statement in source.statements:
        if statement.kind == "TransactionStmt":
            yield statement.violation(f"The revision says {statement.opening}.")


def _schema_named(source: RevisionSource) -> Iterator[Violation]:
    for statement in source.statements:
        if _names_public(statement.node):
            yield statement.violation(f"{statement.opening} names the schema public.")


def _names_public(tree: Any) -> bool:
    """Return whether a name below a parse tree begins with the schema public."""
    if "public" in nodes(tree, "schemaname"):
        return True
    names = (name for kind in ("funcname", "names", "items") for name in nodes(tree, kind))
    return any(len(name) > 1 and name[0] == {"String": {"sval": "public"}} for name in names)


def _settings(statement: ParsedStatement) -> Iterator[str]:
    """Return the names of the settings that a statement changes; ``all`` for all of them."""
    if statement.kind in ("VariableSetStmt", "DiscardStmt"):
        yield statement.node.get("name", "all").lower()
    for setting in nodes(statement.node, "setstmt"):  # ALTER ROLE ... SET
        yield setting.get("name", "all").lower()
    yield from set_by_calls(statement)


def _is_concurrent(statement: ParsedStatement) -> bool:
    node = statement.node
    if statement.kind == "ReindexStmt":
        return any(option.get("defname") == "concurrently" for option in nodes(node, "DefElem"))
    if statement.kind == "AlterTableStmt":
        return any(command.get("concurrent") for command in nodes(node, "PartitionCmd"))
    return statement.kind in ("IndexStmt", "DropStmt") and bool(node.get("concurrent"))


READABLE = RevisionRule(
    "readable",
    "The SQL of both directions can be rendered without a database, and PostgreSQL's parser understands it.",
    "Plan, review, lint and the hash that a production run asks for all read the SQL before it is run. SQL "
    "that depends on a query's result cannot be read in advance.",
    "Correct the SQL. Where it depends on the database, put the query into the statement: a condition in its "
    "WHERE, or a DO block.",
    """\
if op.get_bind().exec_driver_sql("SELECT count(*) FROM schedules").scalar():
    op.backfill("schedules", "active = true", "NOT active")""",
    'op.backfill("schedules", "active = true", "NOT active")',
    _not_readable,
)

BOTH_DIRECTIONS = RevisionRule(
    "both-directions",
    "A revision has an `upgrade()` and a `downgrade()`, and both do something.",
    "A release that has to be rolled back needs a downgrade that was tested before.",
    "Write the other direction. Where there is nothing to undo, write a statement that does no harm: "
    '`op.execute("SELECT 1")`.',
    """\
def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS teams (id uuid PRIMARY KEY)")


def downgrade() -> None:
    pass""",
    """\
def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS teams (id uuid PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS teams")""",
    _empty_direction,
)

IDEMPOTENT = RevisionRule(
    "idempotent-statements",
    "A statement does no harm when it is run a second time.",
    "A revision with an online operation is committed in parts. After a failure it runs again from its first "
    "line, and fails at every statement that is not idempotent.",
    "Write IF [NOT] EXISTS, OR REPLACE or ON CONFLICT; where there is no such clause, a DO block that checks "
    "the catalog first or catches duplicate_object (docs/migrations.md, Idempotent statements).",
    "op.execute(\"CREATE TYPE incident_priority AS ENUM ('normal', 'urgent')\")",
    '''\
op.execute("""
    DO $$
    BEGIN
        CREATE TYPE incident_priority AS ENUM ('normal', 'urgent');
    EXCEPTION
        WHEN duplicate_object THEN NULL;
    END
    $$
""")''',
    _not_repeatable,
)

ONE_CONCURRENTLY = RevisionRule(
    "one-concurrently",
    "CONCURRENTLY is used only in an online operation, one statement in each.",
    "PostgreSQL refuses CONCURRENTLY in a transaction and in a text with several statements. Only an online "
    "operation replaces the invalid index that a failure leaves behind.",
    "Use `op.create_index_concurrently` or `op.drop_index_concurrently`, one for each index.",
    'op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_title ON signals (title)")',
    """\
op.create_index_concurrently(
    "idx_signals_title",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_title ON signals (title)",
)""",
    _not_alone,
)

TIMEOUTS = RevisionRule(
    "timeouts-not-overridden",
    "A revision does not change timeouts.",
    "The tool limits the wait for locks over the whole transaction, tries again, and switches timeouts off "
    "where they would break an online operation. A revision that sets its own makes the application wait.",
    "Delete the statement. `--max-wait` sets how long a run may try.",
    """\
op.execute("SET LOCAL lock_timeout = '10s'")
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")""",
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _timeout_set,
)

TRANSACTION = RevisionRule(
    "no-transaction-control",
    "A revision contains neither BEGIN nor COMMIT nor ROLLBACK.",
    "The tool opens the transaction of a revision, and writes the version in it. After a COMMIT within the "
    "revision, a failure leaves half of it behind, and no record of it.",
    "Delete the statement. Work that needs its own transaction belongs in an online operation or in a "
    "separate revision.",
    """\
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")
op.execute("COMMIT")""",
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _transaction_ended,
)

NO_SCHEMA = RevisionRule(
    "no-schema-name",
    "A revision names objects of the database without their schema, `public`.",
    "Plan, drift check and review run the revision in a scratch schema to see what it does. A name with "
    "`public.` refers to an object outside of that schema, and they stop.",
    "Delete `public.`: the search path of the session is pinned to it.",
    'op.execute("ALTER TABLE public.schedules ALTER COLUMN active SET DEFAULT false")',
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _schema_named,
)

RULES = (READABLE, BOTH_DIRECTIONS, IDEMPOTENT, ONE_CONCURRENTLY, TIMEOUTS, TRANSACTION, NO_SCHEMA)
