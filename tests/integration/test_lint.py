"""Can the good examples of the lint rules be run twice on a real server?"""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations

from guvnor.lint.rules import REVISION_RULES
from guvnor.lint.source import Source
from guvnor.postgres.engine import connected
from tests.support.lint import EXAMPLES, written
from tests.support.sample_data import fill


def test_the_good_examples_can_be_run_twice(project, migrated):
    fill(migrated)
    with connected(migrated.dsn, "test") as connection:
        for rule in (*REVISION_RULES, *EXAMPLES):
            path = written(project, rule.good)
            upgrade = Source(path.name, str(path), path.read_text()).function("upgrade")
            with (
                connection.begin() as transaction,
                Operations.context(MigrationContext.configure(connection)),
            ):
                upgrade()
                upgrade()
                transaction.rollback()
