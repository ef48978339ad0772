"""The rules about the Python of a revision file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from guvnor.lint.problem import Violation
from guvnor.lint.revision import FUNCTIONS, RevisionSource
from guvnor.lint.rule import RevisionRule
from guvnor.revisions import escaped_colons
from guvnor.revisions.check import todo_lines

_ALLOWED = {"alembic", "sqlalchemy"} | set(sys.stdlib_module_names)


def _foreign_import(source: RevisionSource) -> Iterator[Violation]:
    for node in ast.walk(source.tree):
        for name in _imported(node):
            if name.split(".")[0] not in _ALLOWED:
                yield Violation(getattr(node, "lineno", None), None, f"The revision imports {name}.")


def _imported(node: ast.AST) -> list[str]:
    """Return the modules that a node imports, by a statement or by a call."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            return ["." * node.level + (node.module or "")]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__")
            | ast.Attribute(attr="import_module" | "__import__"),
            args=[wanted, *_],
        ):
            return [str(wanted.value) if isinstance(wanted, ast.Constant) else f"({ast.unparse(wanted)})"]
    return []


def _todo_left(source: RevisionSource) -> Iterator[Violation]:
    for line in todo_lines(source.text):
        yield Violation(line, None, "A TODO is left.")


def _autocommit(source: RevisionSource) -> Iterator[Violation]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "autocommit_block":
            yield Violation(node.lineno, None, "The revision leaves its transaction with autocommit_block().")


def _escaped_colon(source: RevisionSource) -> Iterator[Violation]:
    directions = [rendered.direction for rendered in source.directions if rendered.escaped_colons]
    if not directions:
        return
    found = tuple(dict.fromkeys(escaped_colons.lines(source.text)))
    for each in found:
        yield Violation(each.line, None, f"A backslash stands before a colon. Instead: {each.instead}")
    for direction in () if found else directions:
        line = source.line_of(FUNCTIONS[direction])
        yield Violation(line, direction, "A backslash stands before a colon in its SQL.")


def _not_the_same(source: RevisionSource) -> Iterator[Violation]:
    for each in source.directions:
        here = tuple(call.sql for call in each.calls)
        there, failed = source.again.get(each.direction, (here, False))
        if each.failure or (here == there and not failed):
            continue
        differing = (call.line for call, text in zip(each.calls, there, strict=False) if call.sql != text)
        line = next(differing, source.line_of(FUNCTIONS[each.direction]))
        message = "The SQL is another one when it is rendered at another time, in another process or place."
        yield Violation(line, each.direction, message)


NO_APPLICATION_IMPORT = RevisionRule(
    "no-application-import",
    "A revision imports Alembic, SQLAlchemy and the standard library, and nothing else.",
    "A revision records what was done to existing databases. The application's code changes later, and would "
    "change or break an old revision.",
    "Write what the revision needs into the revision itself.",
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
    "No TODO is left in a comment, neither in Python nor in SQL.",
    "The template and autogenerate leave a TODO where a person has to decide. The pre-flight checks refuse "
    "such a revision, too.",
    "Decide, write the statement, and delete the comment.",
    '''\
op.execute("""
    -- TODO: which rows?
    DELETE FROM audit_logs WHERE id = '00000000-0000-4000-8000-000000000001'
""")''',
    "op.execute(\"DELETE FROM audit_logs WHERE id = '00000000-0000-4000-8000-000000000001'\")",
    _todo_left,
)

NO_AUTOCOMMIT_BLOCK = RevisionRule(
    "no-autocommit-block",
    "What runs outside the transaction is an online operation, not an `autocommit_block()`.",
    "When the SQL in such a block stops halfway, the tool cannot know what may be run again: the database "
    "stays dirty, and a person has to decide how to repair it.",
    "Use an online operation (docs/migrations.md, Online operations). An enum value needs none: "
    "`ALTER TYPE ... ADD VALUE IF NOT EXISTS` runs in a transaction.",
    """\
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'teams'")""",
    "op.execute(\"ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'teams'\")",
    _autocommit,
)

NO_ESCAPED_COLON = RevisionRule(
    "no-escaped-colon",
    "In the text of `op.execute`, no backslash stands before a colon and a word.",
    "`op.execute` runs text as it is written. In older releases, a colon before a word needed a backslash, "
    "which would reach the server now. The pre-flight checks refuse such a revision, too.",
    "Delete the backslash. Where the backslash is meant, as in a regular expression, pass the SQL through "
    '`sqlalchemy.text()`, in which two are one: `text(r"... \\\\:word ...")`.',
    """\
op.execute(r"ALTER TABLE schedules ALTER COLUMN description SET DEFAULT 'at\\:noon'")""",
    """\
op.execute("ALTER TABLE schedules ALTER COLUMN description SET DEFAULT 'at:noon'")""",
    _escaped_colon,
)

SAME_TWICE = RevisionRule(
    "same-twice",
    "A revision is the same SQL each time, whatever the environment, the clock, chance and the files are.",
    "The SQL is rendered at each run. Where it differs, the hash that production confirmed does not fit, the "
    "history says that the file was changed, and two databases of one version have different schemas.",
    "Write the value down, or let the server compute it when the statement runs: `now()`, "
    "`uuid_generate_v4()`, `current_setting(...)`. A set is sorted before a loop.",
    """\
import datetime

today = datetime.date.today()
op.execute(f"ALTER TABLE schedules ADD COLUMN IF NOT EXISTS valid_from date DEFAULT '{today}'")""",
    """\
op.execute("ALTER TABLE schedules ADD COLUMN IF NOT EXISTS valid_from date DEFAULT CURRENT_DATE")""",
    _not_the_same,
)

RULES = (NO_APPLICATION_IMPORT, NO_TODO, NO_AUTOCOMMIT_BLOCK, NO_ESCAPED_COLON, SAME_TWICE)
