"""An example database: its first revision, its rows, and the models that a second revision shall reach.

Both schemas are plain SQL. The models' metadata runs theirs, so they may hold whatever PostgreSQL has.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg2

from guvnor.lint import lint_revisions
from guvnor.lint.problem import LintProblem
from guvnor.schema import catalog
from tests.support import sample_data
from tests.support.command import Command, Result
from tests.support.expect import succeeds
from tests.support.project import Project
from tests.support.server import Database

ENVIRONMENT = """
from alembic import context
from sqlalchemy import MetaData, event

from guvnor.cli.plain_alembic import run
from guvnor.project import Project

metadata = MetaData()


@event.listens_for(metadata, "after_create")
def create(target, connection, **_):
    connection.exec_driver_sql({models!r})


run(context, Project(lambda: metadata))
"""


@dataclass
class Example:
    """A database at revision 001 with rows in it, and a project whose models are ahead of it.

    :ivar text: the revision that autogenerate wrote.
    :ivar problems: what lint says of it.
    :ivar result: how the command ended.
    """

    database: Database
    project: Project
    guvnor: Command
    alembic: Command
    text: str = ""
    problems: tuple[LintProblem, ...] = ()
    result: Any = None

    def begin(self, first: str, rows: str, models: str) -> Example:
        """Apply the first revision, insert rows, and change the models."""
        for path in self.project.versions.glob("*.py"):
            path.unlink()
        self.project.add_revision(
            f"op.execute({first!r})", 'op.execute("SELECT 1")', name="first", python=True
        )
        self.become(models)
        succeeds(self.run("upgrade", "head"))
        if rows:
            self.database.execute(rows)
        return self

    def become(self, models: str) -> None:
        """Change the models."""
        (self.project.directory / "alembic" / "env.py").write_text(
            ENVIRONMENT.replace("{models!r}", repr(models))
        )

    def run(self, *words: str) -> Result:
        """Run plain Alembic."""
        return self.alembic(*words, database=self.database, cwd=self.project.directory)

    def generate(self) -> str:
        """Let autogenerate write the second revision, and lint it."""
        self.result = self.run("revision", "--autogenerate", "-m", "change")
        succeeds(self.result)
        path = self.project.versions / "002_change.py"
        self.text = path.read_text() if path.exists() else ""
        if self.text:
            compile(self.text, path.name, "exec")
            self.problems = lint_revisions(self.project.directory / "alembic.ini", since="001").problems
        return self.text

    @property
    def path(self) -> Any:
        """The file of the second revision."""
        return self.project.versions / "002_change.py"

    @property
    def rules(self) -> set[str]:
        """The lint rules that the second revision breaks."""
        return {problem.rule for problem in self.problems}

    def up(self) -> Result:
        """Apply the second revision."""
        return succeeds(self.run("upgrade", "head"))

    def down(self) -> Result:
        """Roll it back."""
        return succeeds(self.run("downgrade", "-1"))

    def there_and_back(self, *, unknown: bool = False) -> dict[str, Any]:
        """Run the second revision up, down and up; the schema must come out right each time.

        :param unknown: whether the database holds what the models do not know.
        :returns: all rows after the first upgrade.
        """
        before = self.schema()
        self.up()
        if not unknown:
            succeeds(self.run("check"), "No new upgrade operations detected.")
        after, rows = self.schema(), self.rows()
        self.down()
        assert self.schema() == before
        self.up()
        assert self.schema() == after
        return rows

    def rows(self) -> dict[str, Any]:
        """All rows, by table."""
        return sample_data.contents(self.database)

    def schema(self) -> dict[str, Any]:
        """All that is compared of the schema, privileges included, and column order left out."""
        with contextlib.closing(psycopg2.connect(self.database.dsn)) as connection:
            found = catalog.read(connection)
        return {
            key: (
                {name: value for name, value in item.attributes.items() if name != "column order"},
                item.granted,
                item.revoked,
            )
            for key, item in found.objects.items()
        }
