"""Is the expected schema built where a revision adds a value to an enum and uses it?"""

from __future__ import annotations

from tests.support.command import Command
from tests.support.project import Project
from tests.support.server import Database


def test_a_value_that_a_revision_adds_may_be_used_at_once(
    migrated: Database, guvnor: Command, project: Project
) -> None:
    """The shadow is one transaction, in which PostgreSQL refuses that."""
    project.add_revision(
        'op.add_enum_value("channel_type", "pager", after="sms")\n'
        'op.execute("ALTER TABLE notification_rules ADD COLUMN IF NOT EXISTS fallback channel_type")\n'
        "op.execute(\"ALTER TABLE notification_rules ALTER COLUMN fallback SET DEFAULT 'pager'\")",
        'op.execute("ALTER TABLE notification_rules DROP COLUMN IF EXISTS fallback")',
        name="pager",
        python=True,
    )
    project.add_revision("ALTER TYPE channel_type RENAME VALUE 'pager' TO 'beeper'", name="rename")
    project.add_revision("ALTER TYPE channel_type ADD VALUE IF NOT EXISTS 'fax'", name="fax")
    project.add_revision(
        """
        ALTER TABLE notification_rules ADD COLUMN IF NOT EXISTS last channel_type DEFAULT 'fax';
        ALTER TABLE notification_rules ADD CONSTRAINT last_is_new CHECK (last IN ('beeper', 'fax'))
        """,
        "ALTER TABLE notification_rules DROP COLUMN IF EXISTS last",
        name="use_fax",
    )
    plan = guvnor("migrate", "plan", database=migrated, cwd=project.directory)
    assert plan.code == 0, plan
    assert "notification_rules.last" in plan.out
    up = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    assert up.code == 0, up
    assert "expected schema" not in up.err
    check = guvnor("schema", "check", database=migrated, cwd=project.directory)
    assert check.code == 0, check
    migrated.execute("ALTER TYPE channel_type ADD VALUE 'telex'")
    check = guvnor("schema", "check", database=migrated, cwd=project.directory)
    assert check.code == 6, check
    assert "channel_type" in check.out
