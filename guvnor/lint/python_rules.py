"""The rules about the Python of a revision file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from guvnor.lint.revision import Revision
from guvnor.lint.rule import Finding, RevisionRule
from guvnor.revisions import todo

_ALLOWED = {"alembic", "sqlalchemy"} | set(sys.stdlib_module_names)


def _foreign_import(revision: Revision) -> Iterator[Finding]:
    for node in ast.walk(revision.source.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        if isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__") and node.args:
            wanted = node.args[0]
            names = [str(wanted.value) if isinstance(wanted, ast.Constant) else f"({ast.unparse(wanted)})"]
        for name in names:
            if name.split(".")[0] not in _ALLOWED:
                yield Finding(getattr(node, "lineno", None), None, f"The revision imports {name}.")


def _called(call: ast.Call) -> str | None:
    """Return the last part of a called function's name."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def _unfinished(revision: Revision) -> Iterator[Finding]:
    for line in todo.lines(revision.source.text):
        yield Finding(line, None, "A TODO is left.")


def _autocommit(revision: Revision) -> Iterator[Finding]:
    for node in ast.walk(revision.source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "autocommit_block":
            yield Finding(node.lineno, None, "The revision leaves its transaction by autocommit_block().")


NO_APPLICATION_IMPORT = RevisionRule(
    "no-application-import",
    "A revision imports Alembic, SQLAlchemy and the standard library, and nothing else.",
    "A revision says for all time what happened. The application's code moves on, and would change what an "
    "old revision does, or break it.",
    "Write down in the revision what it needs.",
    """\
from guvnor.models import metadata


def upgrade() -> None:
    for table in metadata.tables:
        op.execute(f"ANALYZE {table}")


def downgrade() -> None:
    op.execute("SELECT 1")""",
    """\
def upgrade() -> None:
    for table in ("incidents", "events"):
        op.execute(f"ANALYZE {table}")


def downgrade() -> None:
    op.execute("SELECT 1")""",
    _foreign_import,
)

NO_TODO = RevisionRule(
    "no-todo",
    "No TODO is left, neither in a comment of Python nor in one of SQL.",
    "The template and autogenerate leave a TODO where a person has to decide. Pre-flight refuses such a "
    "revision, too.",
    "Decide, write it, and take the comment out.",
    '''\
op.execute("""
    -- TODO: which rows?
    DELETE FROM audit_logs WHERE occurred_at < '2020-01-01'
""")''',
    "op.execute(\"DELETE FROM audit_logs WHERE occurred_at < '2020-01-01'\")",
    _unfinished,
)

NO_AUTOCOMMIT_BLOCK = RevisionRule(
    "no-autocommit-block",
    "What runs outside the transaction is an online operation, not an `autocommit_block()`.",
    "When SQL of your own stops halfway there, nobody can know what may be run again: the database stays "
    "dirty, and a person has to decide at night.",
    "An online operation (docs/migrations.md, Online operations). An enum value needs none: "
    "`ALTER TYPE ... ADD VALUE IF NOT EXISTS` runs in a transaction.",
    """\
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'teams'")""",
    "op.execute(\"ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'teams'\")",
    _autocommit,
)

RULES = (NO_APPLICATION_IMPORT, NO_TODO, NO_AUTOCOMMIT_BLOCK)
