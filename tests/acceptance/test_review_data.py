"""Does the report say what a revision does to data, and accept exactly what is done on purpose?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.acceptance.test_review import CHECKS, assert_current, signs, verdicts
from tests.support.clone import Clone
from tests.support.command import CHECKOUT
from tests.support.reports import report, review
from tests.support.server import Server


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    (directory := tmp_path / "clone").mkdir()
    return Clone(directory)


@pytest.fixture
def dsn(server: Server) -> str:
    return server.dsn


LOOP = """
    DO $$
    DECLARE r record;
    BEGIN
        FOR r IN SELECT id FROM notification_rules LOOP
            UPDATE notification_rules SET name = 'x' WHERE id = r.id;
        END LOOP;
        IF EXISTS (SELECT FROM signals) THEN
            DELETE FROM audit_logs;
        END IF;
    END
    $$
"""


def changes(out: str) -> list[str]:
    return re.findall(r"^Data that changes on the way (\w+: .*)\.$", out, re.MULTILINE)


def test_a_revision_that_changes_data_on_purpose(clone: Clone, dsn: str) -> None:
    result = report(clone, "on-purpose", dsn)
    assert result.code == 0, result.out + result.err
    assert signs(result) == {**dict.fromkeys(CHECKS, "✅"), "Round trip": "⚠️", "Data": "⚠️", "Locks": "⚠️"}
    words = "Not compared, as the revisions accept: notification_rules.active (the old channel is gone)."
    assert words in verdicts(result)["Round trip"][1]
    assert changes(result.out) == ["up: it overwrites column `notification_rules.active`", "back: none"]
    assert_current("on-purpose", result)


def test_what_happens_only_to_rows_is_seen_and_only_that_is_accepted(
    clone: Clone,
    dsn: str,
) -> None:
    path = clone.add_revision(
        f'''
op.execute("""{LOOP}""")
op.execute("UPDATE schedules SET timezone = 'UTC' WHERE timezone = 'nowhere'")
op.execute("INSERT INTO schedules (name, team_id) VALUES ('x', 'y')")
''',
        "op.execute(\"DELETE FROM schedules WHERE name = 'x'\")",
        python=True,
    )
    result = review(clone, dsn)
    assert result.code == 6, result.out
    assert changes(result.out) == [
        (
            "up: it overwrites column `schedules.timezone` and `notification_rules.name`; "
            "it adds rows to table `schedules`; it deletes rows of table `audit_logs`"
        ),
        (
            "back: it deletes rows of table `schedules`, `schedule_overrides`, `schedule_rotations` "
            "and `schedule_shifts`"
        ),
    ]
    assert "table notification_rules: 3 of 3 rows are not as they were in name" in result.out
    assert "table audit_logs: 3 of 3 rows are not as they were" in result.out
    text = path.read_text()
    for comments, code in (
        ("# changes data: audit_logs: old\n    # changes data: notification_rules.name: new", 0),
        ("# changes data: audit_logs: old", 6),
    ):
        path.write_text(text.replace("def upgrade() -> None:\n", f"def upgrade() -> None:\n    {comments}\n"))
        result = review(clone, dsn)
        assert result.code == (code or (3 if verdicts(result)["Lint"][0] == "❌" else 0)), result.out
        sign, summary = verdicts(result)["Round trip"]
        assert sign == ("❌" if code else "⚠️")
        if code:
            assert summary.endswith("table notification_rules: 3 of 3 rows are not as they were in name")
        else:
            assert "audit_logs (old), notification_rules.name (new)" in summary
            assert verdicts(result)["Data"][0] == "⚠️"


def test_a_comment_that_accepts_what_does_not_happen_is_refused(
    clone: Clone,
    dsn: str,
) -> None:
    clone.add_revision(
        """
# changes data: schedules.timezone: right
# changes data: schedules: too wide
# changes data: schedules.name: unused
# changes data: audit_logs.actor: rows go, not values
op.execute("UPDATE schedules SET timezone = timezone WHERE id = uuid_generate_v4()")
op.execute("DELETE FROM audit_logs WHERE id = uuid_generate_v4()")
""",
        """
# changes data: schedules.timezone: the upgrade does, the downgrade does not
op.execute("SELECT 1")
""",
        python=True,
    )
    result = review(clone, dsn)
    assert result.code == 3, result.out
    assert signs(result) == {**dict.fromkeys(CHECKS, "✅"), "Data": "❌", "Locks": "⚠️"}
    (first,) = {
        int(line) for line in re.findall(r"^- .*003_test.py:(\d+): .* wide", result.out, re.MULTILINE)
    }
    summary = verdicts(result)["Data"][1]
    assert summary.endswith(
        "is too wide: no rows go, only values of schedules.timezone change. And 3 more: see below."
    )
    assert f"003_test.py:{first + 1}: `changes data: schedules.name` accepts nothing" in result.out
    assert "`changes data: audit_logs.actor` accepts values of a column, but rows of audit_logs" in result.out
    assert "`changes data: schedules.timezone` accepts nothing: the downgrade does not" in result.out
    assert "$EDITOR alembic/versions/003_test.py" in result.out


def test_the_example_of_the_documentation_passes(clone: Clone, dsn: str) -> None:
    page = (CHECKOUT / "docs" / "migrations.md").read_text()
    section = page.split("### `op.set_not_null(table, column)`")[1].split("\n### ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    path = clone.add_revision("SELECT 1")
    path.write_text(path.read_text().partition("def upgrade")[0] + code)
    models = clone.directory / "guvnor" / "models.py"
    before, schedules = models.read_text().split("\nschedules = Table(")
    column = 'Column("description", Text'
    schedules = schedules.replace(column, f"{column}, nullable=False", 1)
    models.write_text(f"{before}\nschedules = Table({schedules}")
    clone.commit()
    result = review(clone, dsn)
    assert result.code == 0, result.out + result.err
    assert {name for name, sign in signs(result).items() if sign == "❌"} == set()
    assert changes(result.out) == ["up: it fills NULL in column `schedules.description`", "back: none"]
    found = verdicts(result)
    assert "values stay where NULL was in schedules.description" in found["Round trip"][1]
    assert "SELECT * FROM schedules WHERE description IS NULL;" in result.out


def test_rows_that_the_report_invents_break_no_new_constraint(clone: Clone, dsn: str) -> None:
    clone.add_revision(
        """
op.execute("ALTER TABLE incidents ADD CONSTRAINT only_low CHECK (severity = 'low')")
op.execute("ALTER TABLE schedules ALTER COLUMN description SET NOT NULL")
op.execute("ALTER TABLE events ADD CONSTRAINT by_team "
           "FOREIGN KEY (actor) REFERENCES team_preferences (team_id)")
op.execute("CREATE UNIQUE INDEX IF NOT EXISTS one_title ON incidents (severity, title)")
op.execute("UPDATE escalation_policies SET name = 'b' WHERE name = 'a'")
op.execute("ALTER TABLE escalation_policies ADD CONSTRAINT short CHECK (length(name) < 2)")
""",
        """
op.execute("ALTER TABLE escalation_policies DROP CONSTRAINT short")
op.execute("DROP INDEX one_title")
op.execute("ALTER TABLE events DROP CONSTRAINT by_team")
op.execute("ALTER TABLE schedules ALTER COLUMN description DROP NOT NULL")
op.execute("ALTER TABLE incidents DROP CONSTRAINT only_low")
""",
        python=True,
    )
    result = review(clone, dsn)
    found = verdicts(result)
    assert found["Round trip"][0] == "⚠️", result.out
    assert "up to 003 failed with rows that break a new constraint" in found["Round trip"][1]
    assert "stayed empty" not in result.out
    assert found["Data"][0] == "⚠️"
    for query in (
        "SELECT * FROM incidents WHERE NOT (",
        "SELECT * FROM schedules WHERE description IS NULL;",
        "SELECT * FROM events AS t WHERE (t.actor IS NOT NULL) AND NOT EXISTS (SELECT FROM team_preferences",
        "SELECT severity, title, count(*) FROM incidents WHERE severity IS NOT NULL AND title IS NOT NULL",
        "SELECT * FROM escalation_policies WHERE NOT ((length(",
    ):
        assert query in result.out
