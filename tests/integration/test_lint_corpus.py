"""Over the revisions kept as data: does lint give no false alarm and miss nothing, and is what is good so?"""

from __future__ import annotations

from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from guvnor.lint import harmless
from guvnor.postgres import connect
from guvnor.postgres.engine import connected
from tests.lint_corpus import cases
from tests.support.sample_data import fill
from tests.support.server import Database, Server

GOOD, BAD = cases.read("good"), cases.read("bad")

# The tables, each with its file: a table that is written anew gets another one.
FILES = """
    SELECT oid::bigint, pg_relation_filenode(oid)::bigint FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


def test_there_are_enough() -> None:
    assert len(GOOD) >= 40
    assert len(BAD) >= 40


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_no_false_alarm_and_no_miss(kind: str, server: Server) -> None:
    """An older server cannot read the newest SQL."""
    dsn = server.dsn if server.major >= 18 else ""
    wrong = {
        case.name: (sorted(rules - case.rules), sorted(case.rules - rules))
        for case, rules in cases.found(cases.read(kind), dsn)
        if rules != case.rules
    }
    assert wrong == {}, "name: (false alarms, misses)"


def test_the_good_ones_run_up_twice_down_and_up_with_data(server: Server, migrated: Database) -> None:
    fill(migrated)
    failed: dict[str, str] = {}
    with connected(lambda: connect(migrated.dsn)) as connection:
        for case in GOOD:
            if case.newest and server.major < 18:
                continue
            module = cases.source(case).module
            with (
                connection.begin() as transaction,
                Operations.context(MigrationContext.configure(connection)) as op,
            ):
                if case.before:
                    op.execute(case.before)
                before = _files(connection)
                for function in (module.upgrade, module.upgrade, module.downgrade, module.upgrade):
                    function()
                after = _files(connection)
                if written := [oid for oid, file in before.items() if after[oid] != file]:
                    failed[case.name] = f"writes {written} anew"
                transaction.rollback()
    assert failed == {}


def _files(connection: Any) -> dict[int, int]:
    return dict(tuple(row) for row in connection.exec_driver_sql(FILES))


def test_the_functions_that_lint_takes_for_computed_once_are_not_volatile(database: Database) -> None:
    volatile = database.execute(
        "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND proname = ANY (%s)",
        [sorted(harmless.SAME_FOR_ALL_ROWS)],
    )
    assert volatile == []
