"""Several runners at once: do all succeed, and is each revision applied once?"""

from __future__ import annotations

import itertools
import random
import subprocess

import pytest

from tests.support import facts, sample_data
from tests.support.command import Command
from tests.support.proxy import Proxy
from tests.support.server import Database, Server


class Race:
    """Starts runners at the same moment and checks what they made together."""

    def __init__(self, server: Server, template_at_head: Database, guvnor: Command, alembic: Command):
        self.server = server
        self.guvnor = guvnor
        self.alembic = alembic
        connection = template_at_head.connect()
        self.target_details = facts.details(connection)
        template_at_head.close()

    def start(self, database: Database, tool: str) -> subprocess.Popen[str]:
        if tool == "guvnor":
            return self.guvnor.start("migrate", "up", database=database)
        return self.alembic.start("upgrade", "head", database=database)

    def run(self, start: Database | None, tools: list[str]) -> None:
        """Run one round.

        :param start: what the database is a copy of; None for an empty one.
        """
        database = self.server.create_database(start)
        before = sample_data.contents(database)
        runners = [self.start(database, tool) for tool in tools]
        for tool, runner in zip(tools, runners, strict=True):
            out, err = runner.communicate(timeout=60)
            assert runner.returncode == 0, f"{tools}: {tool}\n{out}\n{err}"
            assert "Traceback" not in err, err
        connection = database.connect()
        assert facts.read(connection) == facts.expected(connection, 2)
        assert facts.details(connection) == self.target_details
        assert database.execute("SELECT version, dirty FROM schema_migrations") == [(2, False)]
        applied = database.execute(
            "SELECT revision FROM guvnor_migration_history WHERE event = 'succeeded' ORDER BY id"
        )
        assert applied == [("001",), ("002",)]
        # Nobody began what another one had done already.
        assert database.execute(
            "SELECT count(*) FROM guvnor_migration_history WHERE event IN ('started', 'failed')"
        ) == [(2,)]
        after = sample_data.contents(database)
        for table, rows in before.items():
            assert [without_link(row) for row in after[table]] == rows
        database.close()
        self.server.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')


def without_link(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != "escalation_policy_id"}


@pytest.fixture
def race(server: Server, template_at_head: Database, guvnor: Command, alembic: Command) -> Race:
    return Race(server, template_at_head, guvnor, alembic)


@pytest.fixture(scope="module")
def filled(server: Server, template_at_version_1: Database) -> Database:
    """Version 1, with rows in every table."""
    database = server.create_database(template_at_version_1, keep=True)
    sample_data.fill(database)
    return database


def test_two_at_once_from_empty(race: Race) -> None:
    race.run(None, ["guvnor", "alembic"])


def test_four_at_once_from_version_1(race: Race, filled: Database) -> None:
    race.run(filled, ["alembic", "guvnor", "guvnor", "alembic"])


@pytest.mark.exhaustive
def test_fifty_rounds(race: Race, filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    order = random.Random(50)
    for number, start in zip(range(50), itertools.cycle((None, filled)), strict=False):
        tools = order.choices(("guvnor", "alembic"), k=2 + number % 3)
        race.run(start, tools)
    with capsys.disabled():
        print("\n50 rounds of two to four runners", flush=True)


def test_the_second_waits_and_says_for_whom(
    at_version_1: Database, guvnor: Command, alembic: Command
) -> None:
    """The first one is held up in its transaction, so that the second one has to wait for sure."""
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        first = alembic.start("upgrade", "head", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        ((holder,),) = at_version_1.execute(
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'guvnor % control'"
        )
        impatient = guvnor("migrate", "up", "--lock-wait", "300ms", database=at_version_1)
        second = guvnor.start("migrate", "up", "--lock-wait", "30s", database=at_version_1)
        assert second.stderr is not None
        waiting = next(line for line in second.stderr if "waiting for another migration" in line)
        proxy.go_on()
        first.communicate(timeout=30)
        second.communicate(timeout=30)
    assert impatient.code == 7
    assert f"pid {holder}" in impatient.err
    assert "Nothing was changed" in impatient.err
    assert f"pid {holder}" in waiting
    assert (first.returncode, second.returncode) == (0, 0)
    assert at_version_1.execute(
        "SELECT count(*) FROM guvnor_migration_history WHERE event = 'started' AND revision = '002'"
    ) == [(1,)]
