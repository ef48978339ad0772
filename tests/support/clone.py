"""A scratch clone of the project: a repository with a main branch and a branch that is under review."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.command import CHECKOUT, FROZEN
from tests.support.project import Project

PRIORITY = """
op.execute(\"\"\"
    DO $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = 'incidents'::regclass AND attname = 'priority' AND NOT attisdropped
        ) THEN
            ALTER TABLE incidents ADD COLUMN priority text;
        END IF;
    END
    $$
\"\"\")
op.create_index_concurrently(
    "idx_incidents_priority",
    \"\"\"
    CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_incidents_priority
    ON incidents (priority) WHERE priority IS NOT NULL
    \"\"\",
)
"""

NO_PRIORITY = """
op.execute("ALTER TABLE incidents DROP COLUMN IF EXISTS priority")
"""

_LAST_COLUMN = '    Column("escalation_policy_id", UUID, ForeignKey("escalation_policies.id")),\n'
PRIORITY_COLUMN = {_LAST_COLUMN: '    Column("priority", Text),\n'}
PRIORITY_INDEX = {
    '    where_set("idx_incidents_escalation_policy", "escalation_policy_id"),\n': (
        '    where_set("idx_incidents_priority", "priority"),\n'
    )
}


class Clone(Project):
    """A repository whose branch ``change`` is checked out beside ``main``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        shutil.copytree(CHECKOUT / "guvnor", directory / "guvnor")  # with what is compiled of it
        shutil.copy(FROZEN / "guvnor" / "models.py", directory / "guvnor")
        (directory / ".gitignore").write_text("__pycache__/\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.git("switch", "--quiet", "--create", "change")

    def git(self, *arguments: str) -> str:
        """Run git there."""
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.directory, check=True, capture_output=True, text=True
        )
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def change_models(self, *additions: Mapping[str, str]) -> None:
        """Write lines into the models, each behind another one."""
        path = self.directory / "guvnor" / "models.py"
        text = path.read_text()
        for after, addition in (pair for given in additions for pair in given.items()):
            assert text.count(after) == 1
            text = text.replace(after, after + addition)
        path.write_text(text)

    def add_priority(self) -> Path:
        """Add a revision as it should be; the models stay as they are."""
        return self.add_revision(PRIORITY, NO_PRIORITY, name="add_incident_priority", python=True)


def good(clone: Clone) -> None:
    """A column and an index, added so that nobody waits."""
    clone.add_priority()
    clone.change_models(PRIORITY_COLUMN, PRIORITY_INDEX)
    clone.commit()


def dangerous(clone: Clone) -> None:
    """A rewrite, an index built under a lock, a stored column dropped."""
    clone.add_revision(
        """
op.execute("ALTER TABLE events ALTER COLUMN description TYPE varchar(2000)")
op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_title ON incidents (title)")
op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")
""",
        """
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS payload jsonb DEFAULT '{}'")
op.execute("CREATE INDEX IF NOT EXISTS idx_signals_payload ON signals USING gin (payload)")
op.execute("DROP INDEX IF EXISTS idx_incidents_title")
op.execute("ALTER TABLE events ALTER COLUMN description TYPE text")
""",
        name="tidy_up",
        python=True,
    )
    models = clone.directory / "guvnor" / "models.py"
    before, signals = models.read_text().split("\nsignals = Table(")
    signals = signals.replace('    document("payload", nullable=True),\n', "", 1)
    index = '    gin("idx_signals_payload", "payload"),\n'
    signals = signals.replace(index, "", 1)
    before = before.replace(
        'Column("description", Text, nullable=False)',
        'Column("description", String(2000), nullable=False)',
        1,
    )
    models.write_text(f"{before}\nsignals = Table({signals}")
    clone.change_models(
        {'    Index("idx_incidents_status", "status"),\n': '    Index("idx_incidents_title", "title"),\n'}
    )
    clone.commit()


def two_heads(clone: Clone) -> None:
    """Meanwhile, the main branch has taken the same number."""
    good(clone)
    clone.git("switch", "--quiet", "main")
    clone.add_revision(
        "CREATE TABLE IF NOT EXISTS teams (id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), "
        "name text NOT NULL)",
        "DROP TABLE IF EXISTS teams",
        name="add_teams",
    )
    clone.commit()
    clone.git("switch", "--quiet", "change")


def disagreeing(clone: Clone) -> None:
    """The models have the column with another type, and not the index."""
    clone.add_priority()
    clone.change_models({_LAST_COLUMN: '    Column("priority", String(20)),\n'})
    clone.commit()


def on_purpose(clone: Clone) -> None:
    """Data is changed for good, and the revision says why."""
    clone.add_revision(
        """
# changes data: notification_rules.active: the old channel is gone
op.execute("UPDATE notification_rules SET active = false WHERE active")
""",
        """
# Which rules were active is not known any more; people switch on those that they need.
op.execute("SELECT 1")
""",
        name="switch_rules_off",
        python=True,
    )
    clone.commit()


BRANCHES = {
    "good": good,
    "dangerous": dangerous,
    "two-heads": two_heads,
    "disagreeing": disagreeing,
    "on-purpose": on_purpose,
}
"""The branches whose reports are shown in docs/reports/, by the name of the page."""
