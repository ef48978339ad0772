"""The rules about the SQL of a revision that squawk does not have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from guvnor.lint import repeatable
from guvnor.lint.parsing import Parsed, nodes
from guvnor.lint.revision import FUNCTIONS, Revision
from guvnor.lint.rule import Finding, RevisionRule

_TIMEOUTS = {
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
}


def _not_readable(revision: Revision) -> Iterator[Finding]:
    for node in ast.walk(revision.source.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("as_sql", "is_offline_mode"):
            yield Finding(
                node.lineno, None, f"The revision does something else without a database: {node.attr}."
            )
    for way in revision.ways:
        if way.rendered.failure:
            line, message = way.rendered.failure
            line = line or revision.source.line_of(FUNCTIONS[way.direction])
            yield Finding(line, way.direction, f"The SQL cannot be told without a database. {message}")
        for call, message in way.refused:
            yield Finding(call.line, way.direction, f"PostgreSQL does not understand the SQL: {message}.")


def _one_way(revision: Revision) -> Iterator[Finding]:
    for way in revision.ways:
        if not way.statements and not way.refused and not way.rendered.failure:
            name = FUNCTIONS[way.direction]
            line = revision.source.line_of(name)
            there = "does nothing" if line else "is missing"
            yield Finding(line, way.direction, f"{name}() {there}.")


def _not_repeatable(revision: Revision) -> Iterator[Finding]:
    for direction, placed in revision.statements():
        # What an online operation writes of its own, it also looks at first.
        if placed.call.is_written_out and (words := repeatable.missing(placed.parsed)):
            message = f"{_named(placed.parsed)} fails when it is run again; it lacks {words}."
            yield Finding(placed.line, direction, message)


def _not_alone(revision: Revision) -> Iterator[Finding]:
    for direction, placed in revision.statements():
        concurrent = _is_concurrent(placed.parsed)
        if concurrent and placed.call.operation is None:
            message = f"{_named(placed.parsed)} does not run in the revision's transaction."
            yield Finding(placed.line, direction, message)
        elif not concurrent and placed.call.operation == "create_index_concurrently":
            message = (
                f"{_named(placed.parsed)} stands in the SQL of an online operation beside its one index."
            )
            yield Finding(placed.line, direction, message)
    for way in revision.ways:
        for call in way.rendered.statements:
            indexes = [p for p in way.statements if p.call is call and _is_concurrent(p.parsed)]
            if call.operation == "create_index_concurrently" and len(indexes) > 1:
                yield Finding(call.line, way.direction, "One online operation builds several indexes.")


def _timeout_set(revision: Revision) -> Iterator[Finding]:
    for direction, placed in revision.statements():
        for name in _settings(placed.parsed):
            if name in _TIMEOUTS or name == "all":
                yield Finding(placed.line, direction, f"The revision sets or resets {name}.")


def _transaction_ended(revision: Revision) -> Iterator[Finding]:
    for direction, placed in revision.statements():
        if placed.parsed.kind == "TransactionStmt":
            yield Finding(placed.line, direction, f"The revision says {_named(placed.parsed)}.")


def _schema_named(revision: Revision) -> Iterator[Finding]:
    for direction, placed in revision.statements():
        if any(_says_public(placed.parsed.node)):
            yield Finding(placed.line, direction, f"{_named(placed.parsed)} says public.")


def _says_public(tree: Any) -> Iterator[bool]:
    """Tell of each name below a parse tree whether it begins with the schema public."""
    names: list[Any] = [[{"String": {"sval": schema}}, ...] for schema in nodes(tree, "schemaname")]
    for kind in ("funcname", "names", "items"):
        names += nodes(tree, kind)
    yield from (len(name) > 1 and name[0] == {"String": {"sval": "public"}} for name in names)


def _settings(parsed: Parsed) -> Iterator[str]:
    """Return the names of the settings that a statement changes; ``all`` for all of them."""
    if parsed.kind in ("VariableSetStmt", "DiscardStmt"):
        yield parsed.node.get("name", "all").lower()
    for setting in nodes(parsed.node, "setstmt"):  # ALTER ROLE ... SET
        yield setting.get("name", "all").lower()
    for call in nodes(parsed.node, "FuncCall"):
        if call["funcname"][-1]["String"]["sval"] == "set_config":
            for constant in nodes(call["args"][:1], "A_Const"):
                yield constant.get("sval", {}).get("sval", "").lower()


def _is_concurrent(parsed: Parsed) -> bool:
    node = parsed.node
    if parsed.kind == "ReindexStmt":
        return any(option.get("defname") == "concurrently" for option in nodes(node, "DefElem"))
    if parsed.kind == "AlterTableStmt":
        return any(command.get("concurrent") for command in nodes(node, "PartitionCmd"))
    return parsed.kind in ("IndexStmt", "DropStmt") and bool(node.get("concurrent"))


def _named(parsed: Parsed) -> str:
    """Return the first words of a statement."""
    words = parsed.sql.split()
    return " ".join(words[:3]).rstrip("(;")


READABLE = RevisionRule(
    "readable",
    "The SQL of both ways can be told without a database, and PostgreSQL's parser understands it.",
    "Plan, review, lint and the hash that a production run asks for all read the SQL before it is run. What "
    "depends on the database's answers, nobody can read.",
    "Correct the SQL. Where it asks the database, let the statement itself look: a condition in its "
    "WHERE, or a DO block.",
    """\
if op.get_bind().exec_driver_sql("SELECT count(*) FROM schedules").scalar():
    op.execute("UPDATE schedules SET active = true WHERE NOT active")""",
    'op.execute("UPDATE schedules SET active = true WHERE NOT active")',
    _not_readable,
)

BOTH_DIRECTIONS = RevisionRule(
    "both-directions",
    "A revision has an `upgrade()` and a `downgrade()`, and both do something.",
    "A release that has to be taken back at night needs the way back, tried before.",
    "Write the other way. Where there is nothing to take back, say so in a statement that does no harm: "
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
    _one_way,
)

IDEMPOTENT = RevisionRule(
    "idempotent-statements",
    "A statement that finds its work done leaves it alone.",
    "A revision with an online step is committed in parts. After a failure it runs again from its first "
    "line, and a statement that is not idempotent stops it there for good.",
    "IF [NOT] EXISTS, OR REPLACE, ON CONFLICT; where the statement has no such word, a DO block that looks "
    "into the catalog first or catches duplicate_object (docs/migrations.md, Idempotent statements).",
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
    "A statement with CONCURRENTLY stands in an online operation, alone.",
    "PostgreSQL refuses CONCURRENTLY in a transaction and in a text with several statements, and outside of "
    "an online operation nobody finishes the invalid index that a failure leaves.",
    "`op.create_index_concurrently` or `op.drop_index_concurrently`, one for each index.",
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
    "A revision leaves the timeouts alone.",
    "The tool counts the wait for locks over the whole transaction, tries again, and switches timeouts off "
    "where they would break an online step. A revision that sets its own makes the application wait.",
    "Take the statement out. `--max-wait` says how long a run may try.",
    """\
op.execute("SET LOCAL lock_timeout = '10s'")
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")""",
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _timeout_set,
)

TRANSACTION = RevisionRule(
    "no-transaction-control",
    "A revision says neither BEGIN nor COMMIT nor ROLLBACK.",
    "Its transaction belongs to the tool, which writes the version into it. A COMMIT of its own leaves half "
    "a revision behind, and no record of it.",
    "Take the statement out. What needs a transaction of its own is an online operation or a revision.",
    """\
op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")
op.execute("COMMIT")""",
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _transaction_ended,
)

NO_SCHEMA = RevisionRule(
    "no-schema-name",
    "A revision names what is in the database without its schema, `public`.",
    "Plan, drift check and review run the revision in a scratch schema, to see what it makes. With `public.` "
    "it reaches out of there, and they stop.",
    "Take `public.` out: the schema is pinned for the session.",
    'op.execute("ALTER TABLE public.schedules ALTER COLUMN active SET DEFAULT false")',
    'op.execute("ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false")',
    _schema_named,
)

RULES = (READABLE, BOTH_DIRECTIONS, IDEMPOTENT, ONE_CONCURRENTLY, TIMEOUTS, TRANSACTION, NO_SCHEMA)
