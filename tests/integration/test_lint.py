"""Can the good examples of the lint rules be run twice on a real server?"""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations

from guvnor.lint.engine import REVISION_RULES
from guvnor.lint.enum_rules import ENUM_VALUE_USED
from guvnor.lint.revision import RevisionSource
from guvnor.postgres import connect
from guvnor.postgres.engine import connected
from tests.support.lint import written
from tests.support.sample_data import fill
from tests.support.squawk_examples import SQUAWK_EXAMPLES


def upgrade_of(project, code):
    path = written(project, code)
    return RevisionSource(path.name, str(path), path.read_text()).module.upgrade


def test_the_good_examples_can_be_run_twice(project, migrated):
    fill(migrated)
    with connected(lambda: connect(migrated.dsn)) as connection:
        for good in (
            *(rule.good for rule in REVISION_RULES if rule is not ENUM_VALUE_USED),
            *(good for _, good in SQUAWK_EXAMPLES.values()),
        ):
            upgrade = upgrade_of(project, good)
            with (
                connection.begin() as transaction,
                Operations.context(MigrationContext.configure(connection)),
            ):
                upgrade()
                upgrade()
                transaction.rollback()


def test_the_good_example_that_commits_can_be_run_twice(project, migrated):
    upgrade = upgrade_of(project, ENUM_VALUE_USED.good)
    with connected(lambda: connect(migrated.dsn)) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with Operations.context(MigrationContext.configure(connection)):
            upgrade()
            upgrade()
