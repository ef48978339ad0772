"""Does lint find a value of an enum that is used in the transaction that adds it?"""

from __future__ import annotations

import pytest

from tests.support.lint import found, written
from tests.support.project import Project

RULE = "enum-value-used-at-once"
ADD = "op.execute(\"ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'matrix' AFTER 'sms'\")"

USES = (
    "ALTER TABLE notification_rules ALTER COLUMN channel_type SET DEFAULT 'matrix'",
    "ALTER TABLE notification_rules ALTER COLUMN ways SET DEFAULT '{sms,matrix}'",
    "ALTER TABLE incidents ADD COLUMN IF NOT EXISTS way channel_type DEFAULT 'matrix'",
    "CREATE OR REPLACE VIEW a AS SELECT id FROM notification_rules WHERE channel_type = 'matrix'",
    "UPDATE notification_rules SET channel_type = 'matrix' WHERE channel_type = 'sms'",
    "INSERT INTO notification_rules (channel_type) VALUES ('matrix') ON CONFLICT DO NOTHING",
    "SELECT 'matrix'::channel_type",
    (
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM notification_rules WHERE channel_type = 'matrix') THEN "
        "PERFORM 1; UPDATE notification_rules SET channel_type = 'matrix' WHERE name = 'a'; END IF; END $$"
    ),
)

NO_USES = (
    "ALTER TABLE notification_rules ALTER COLUMN channel_type SET DEFAULT 'sms'",
    "COMMENT ON TYPE channel_type IS 'matrix'",
    "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ''matrix''; END'",
    "UPDATE notification_rules SET name = 'a' WHERE channel_type::text = 'matrix'",
    "UPDATE notification_rules SET name = 'matrix'::text WHERE name = 'a'",
    "ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'irc' AFTER 'matrix'",
    "ALTER TABLE notification_rules ALTER COLUMN channel_type SET DEFAULT 'the matrix'",
)


def lines(project: Project, *calls: str) -> list[int | None]:
    """The lines on which the rule finds something, counted from the function's first one."""
    path = written(project, "\n".join(calls))
    first = path.read_text().splitlines().index("def upgrade() -> None:") + 1
    return [
        problem.line - first for problem in found(project).problems if problem.rule == RULE and problem.line
    ]


@pytest.mark.parametrize("statement", USES)
def test_a_use_in_the_same_transaction(project: Project, statement: str) -> None:
    assert set(lines(project, ADD, f"op.execute({statement!r})")) == {2}


@pytest.mark.parametrize("statement", USES)
def test_a_use_after_the_online_operation(project: Project, statement: str) -> None:
    added = 'op.add_enum_value("channel_type", "matrix", after="sms")'
    assert lines(project, added, f"op.execute({statement!r})") == []


def test_a_use_after_an_online_operation_that_commits(project: Project) -> None:
    online = 'op.drop_index_concurrently("idx_signals_source")'
    assert lines(project, ADD, online, f"op.execute({USES[0]!r})") == []


@pytest.mark.parametrize("statement", NO_USES)
def test_what_is_no_use(project: Project, statement: str) -> None:
    assert lines(project, ADD, f"op.execute({statement!r})") == []


def test_a_use_in_the_other_direction(project: Project) -> None:
    written(project, ADD, down=f"op.execute({USES[0]!r})")
    assert RULE not in {problem.rule for problem in found(project).problems}
