"""A copy of the checkout, on a branch with three more revisions and their models, made as the guide says.

Run as ``python -m tests.support.more_revisions DIRECTORY``; then ``cd DIRECTORY && scripts/test``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.choice import chosen_server
from tests.support.command import CHECKOUT, Command, Result
from tests.support.lint import commit, git
from tests.support.project import Project

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".guvnor", ".env", "*.egg-info", ".*_cache", "build", "dist"
)

IMPORTS = """

from sqlalchemy import Column, ForeignKey, Index, String, Table, text  # noqa: E402
from sqlalchemy.dialects.postgresql import UUID  # noqa: E402
"""

# A table, by hand.
RUNBOOKS = """
op.execute(\"\"\"
    CREATE TABLE IF NOT EXISTS runbooks (
        id uuid DEFAULT uuid_generate_v4() PRIMARY KEY,
        title varchar(200) NOT NULL
    )
\"\"\")
op.execute("CREATE INDEX IF NOT EXISTS idx_runbooks_title ON runbooks (title)")
"""
NO_RUNBOOKS = 'op.execute("DROP TABLE IF EXISTS runbooks")'
RUNBOOKS_MODEL = """
runbooks = Table(
    "runbooks",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("uuid_generate_v4()")),
    Column("title", String(200), nullable=False),
    Index("idx_runbooks_title", "title"),
)
"""

# A reference to it from the busiest table; autogenerate writes the revision.
REFERENCE_MODEL = """
incidents.append_column(Column("runbook_id", UUID, ForeignKey("runbooks.id")))
Index("idx_incidents_runbook_id", incidents.c.runbook_id)
"""

# Online steps, by hand: they run in the background of the application.
KIND = """
op.execute(\"\"\"
    DO $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = 'signals'::regclass AND attname = 'source_kind' AND NOT attisdropped
        ) THEN
            ALTER TABLE signals ADD COLUMN source_kind varchar(20);
            ALTER TABLE signals ALTER COLUMN source_kind SET DEFAULT 'unknown';
        END IF;
    END
    $$
\"\"\")
op.backfill("signals", "source_kind = 'unknown'", "source_kind IS NULL")
op.create_index_concurrently(
    "idx_signals_source_kind",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_source_kind ON signals (source_kind)",
)
"""
NO_KIND = 'op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS source_kind")'
KIND_MODEL = """
signals.append_column(Column("source_kind", String(20), server_default="unknown"))
Index("idx_signals_source_kind", signals.c.source_kind)
"""


class Checkout(Project):
    """A copy of the checkout in a repository of its own, on a branch ``more`` beside ``main``."""

    def __init__(self, directory: Path, dsn: str) -> None:
        """Copy the checkout.

        :param directory: a folder that does not exist yet.
        :param dsn: of an empty database, for autogenerate and to try the revisions on.
        """
        self.directory = directory
        self.versions = directory / "alembic" / "versions"
        self._dsn = dsn
        shutil.copytree(CHECKOUT, directory, ignore=NOT_COPIED, symlinks=True)  # with what is compiled of it
        git(directory, "init", "--quiet", "--initial-branch=main")
        commit(self)
        git(directory, "switch", "--quiet", "--create", "more")

    def add_three(self) -> None:
        """Add the revisions and their models, draw the diagram, and commit."""
        self._run("alembic", "upgrade", "head")
        self._change_models(IMPORTS + RUNBOOKS_MODEL)
        self.add_revision(RUNBOOKS, NO_RUNBOOKS, name="add_runbooks", python=True)
        self._run("alembic", "upgrade", "head")
        self._change_models(REFERENCE_MODEL)
        self._run("alembic", "revision", "--autogenerate", "-m", "link runbooks")
        self._run("alembic", "upgrade", "head")
        self._change_models(KIND_MODEL)
        self.add_revision(KIND, NO_KIND, name="add_source_kind", python=True)
        self._run("guvnor", "migrate", "up")
        self._run("alembic", "check")
        self._run("guvnor", "schema", "lint")
        diagram = self._run("guvnor", "schema", "diagram").out
        (self.directory / "docs" / "schema.md").write_text(diagram, encoding="utf-8")
        commit(self)

    def _change_models(self, addition: str) -> None:
        with (self.directory / "guvnor" / "models.py").open("a", encoding="utf-8") as file:
            file.write(addition)

    def _run(self, module: str, *words: str) -> Result:
        """Run a command there; it has to succeed."""
        with tempfile.TemporaryDirectory() as home:
            result = Command(module, Path(home))(
                *words, database=self._dsn, env={"GITHUB_BASE_REF": None}, cwd=self.directory, timeout=300
            )
        assert result.code == 0, f"{module} {' '.join(words)}\n{result.out}{result.err}"
        return result


def main() -> None:
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("usage: python -m tests.support.more_revisions DIRECTORY   # one that does not exist yet")
    directory = Path(sys.argv[1]).resolve()
    with chosen_server() as server:
        try:
            checkout = Checkout(directory, server.create_database().dsn)
            checkout.add_three()
        finally:
            server.drop_all()
            server.disconnect()
    print(f"{directory}: {', '.join(sorted(path.name for path in checkout.versions.glob('*.py')))}")


if __name__ == "__main__":
    main()
