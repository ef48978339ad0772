"""The rules about rows that a revision keeps: whether they can be kept, and come back."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.lint import squawk
from guvnor.lint.parsing import ParsedStatement
from guvnor.lint.problem import Violation
from guvnor.lint.revision import FUNCTIONS, RevisionSource
from guvnor.lint.rule import RevisionRule


def _without_key(source: RevisionSource) -> Iterator[Violation]:
    for table, statement in _keeping(source).items():
        if squawk.schema_before(source, statement).has_key(table[1]) is False:
            message = f"Table {table[1]} has no key, so its rows cannot be kept."
            yield Violation(statement.call.line, statement.call.direction, message)


def _not_brought_back(source: RevisionSource) -> Iterator[Violation]:
    back = {
        (call.direction, call.kept.table): call
        for rendered in source.directions
        for call in rendered.calls
        if call.kept is not None and not call.kept.makes
    }
    keeping = _keeping(source)
    for (direction, table), statement in keeping.items():
        other = _other(direction)
        if (other, table) not in back:
            message = f"{FUNCTIONS[other]}() does not bring the rows of {table} back."
            yield Violation(statement.call.line, direction, message)
    for (direction, table), call in back.items():
        if (_other(direction), table) not in keeping:
            message = f"{FUNCTIONS[_other(direction)]}() keeps no rows of {table}, so nothing comes back."
            yield Violation(call.line, direction, message)


def _keeping(source: RevisionSource) -> dict[tuple[str, str], ParsedStatement]:
    """Return the first statement that keeps rows, for each direction and table."""
    found: dict[tuple[str, str], ParsedStatement] = {}
    for statement in source.statements:
        kept = statement.call.kept
        if kept is not None and kept.makes:
            found.setdefault((statement.call.direction, kept.table), statement)
    return found


def _other(direction: str) -> str:
    return next(other for other in FUNCTIONS if other != direction)


NEEDS_KEY = RevisionRule(
    "kept-rows-have-a-key",
    "A table whose rows are kept has a primary key, or a unique index on columns that are NOT NULL.",
    "Without a key nothing says which row a kept one was: the server refuses the revision.",
    "Give the table a key in an earlier revision. Where it cannot have one, accept that the data goes: "
    "`# changes data: TABLE: reason`.",
    """\
def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS audit_notes (note text)")
    op.delete_rows("audit_notes", where="note = ''", keep=True)


def downgrade() -> None:
    op.bring_back("audit_notes")""",
    """\
def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS audit_notes (id bigint PRIMARY KEY, note text)")
    op.delete_rows("audit_notes", where="note = ''", keep=True)


def downgrade() -> None:
    op.bring_back("audit_notes")""",
    _without_key,
)

COME_BACK = RevisionRule(
    "kept-rows-come-back",
    "What one direction of a revision keeps, the other brings back: `op.bring_back`.",
    "The rows are kept for the way back. Without it, the downgrade leaves the data changed.",
    "Write `op.bring_back(TABLE)` into the other direction.",
    """\
def upgrade() -> None:
    op.change_rows("schedules", set={"active": "false"}, where="timezone = 'CET'", keep=True)


def downgrade() -> None:
    op.execute("SELECT 1")""",
    """\
def upgrade() -> None:
    op.change_rows("schedules", set={"active": "false"}, where="timezone = 'CET'", keep=True)


def downgrade() -> None:
    op.bring_back("schedules")""",
    _not_brought_back,
)

RULES = (NEEDS_KEY, COME_BACK)
