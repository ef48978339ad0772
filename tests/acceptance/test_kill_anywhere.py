"""Killed at any message to the server, or its session ended there: does one plain `up` bring all in order?"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import facts, sample_data
from tests.support.command import Command
from tests.support.proxy import Message, Proxy
from tests.support.server import Database, Server, run


@dataclass(frozen=True)
class Way:
    """A migration to be interrupted: from where, and how it is called."""

    start: str
    guvnor: tuple[str, ...]
    alembic: tuple[str, ...]


WAYS = {
    "empty to 2": Way("empty", ("up",), ("upgrade", "head")),
    "1 to 2": Way("1", ("up",), ("upgrade", "head")),
    "2 to 1": Way("2", ("down",), ("downgrade", "-1")),
    "1 to 0": Way("1", ("down",), ("downgrade", "base")),
}
TOOLS = ("guvnor", "alembic")
ENDS = ("killed", "session ended")
ONLY_IN_VERSION_2 = {
    "audit_logs",
    "escalation_policies",
    "escalation_steps",
    "schedule_overrides",
    "schedule_rotations",
    "team_preferences",
}


@dataclass(frozen=True)
class Point:
    """Where a run is interrupted.

    :ivar stop_at: tells the message.
    :ivar sent: after that message was sent and before its answer arrives; else before it is sent.
    """

    name: str
    stop_at: Callable[[Message], bool]
    sent: bool = False


def at_message(number: int, *, sent: bool = False) -> Point:
    return Point(
        f"message {number}{', sent' if sent else ''}", lambda message: message.number == number, sent
    )


def at_statement(pattern: str, occurrence: int = 1, *, sent: bool) -> Point:
    found = itertools.count(1)
    return Point(
        f"{pattern} {occurrence}{', sent' if sent else ''}",
        lambda message: bool(re.match(pattern, message.text)) and next(found) == occurrence,
        sent,
    )


class Harness:
    """Interrupts runs and looks at what one plain ``guvnor migrate up`` makes of it."""

    def __init__(self, server: Server, starts: dict[str, Database | None], guvnor: Command, alembic: Command):
        self.server = server
        self.starts = starts
        self.guvnor = guvnor
        self.alembic = alembic
        self.used: list[Database] = []
        target = starts["2"]
        assert target is not None
        self.target_details = facts.details(target.connect())
        target.close()

    def interrupt(
        self, way: Way, tool: str, end: str, point: Point, *, verify: bool = True
    ) -> Message | None:
        """Interrupt one run at one point, run ``up`` and check everything.

        :param verify: whether the run looks at the schema afterwards, as it does by default.
        :returns: the message at which it was interrupted; None when the run has ended without coming there.
        """
        database = self.server.create_database(self.starts[way.start])
        before = rows_of(database)
        message = self._run_and_interrupt(database, way, tool, end, point, verify)
        result = self.guvnor("migrate", "up", "--no-verify", database=database)
        assert result.code == 0, f"{point.name}: {message}\n{result.out}\n{result.err}"
        self._check(database, before)
        database.close()
        self._drop_later(database)
        return message

    def _drop_later(self, database: Database) -> None:
        """Drop it a round later: DROP DATABASE sleeps when a session is just leaving."""
        self.used.append(database)
        if len(self.used) > 2:
            self.server.execute(f'DROP DATABASE "{self.used.pop(0).name}" WITH (FORCE)')

    def _run_and_interrupt(
        self, database: Database, way: Way, tool: str, end: str, point: Point, verify: bool
    ) -> Message | None:
        env = {"GUVNOR_VERIFY": "yes" if verify else "no"}
        with Proxy(database, point.stop_at, sent=point.sent) as proxy:
            if tool == "guvnor":
                process = self.guvnor.start("migrate", *way.guvnor, database=proxy.dsn, env=env)
            else:
                process = self.alembic.start(*way.alembic, database=proxy.dsn, env=env)
            message = proxy.wait_until_stopped(lambda: process.poll() is None)
            if message is not None and end == "killed":
                process.send_signal(signal.SIGKILL)
            elif message is not None:
                proxy.terminate_backend()
                proxy.go_on()
            out, err = process.communicate(timeout=60)
        if message is None or end == "session ended":
            explained = f"{point.name}: {message}\n{out}\n{err}"
            assert process.returncode in ((0,) if message is None else (0, 1, 3)), explained
            assert "Traceback" not in err, explained
            assert process.returncode == 0 or "Next:" in err, explained
        return message

    def _check(self, database: Database, before: dict[str, Any]) -> None:
        connection = database.connect()
        assert facts.read(connection) == facts.expected(connection, 2)
        assert facts.details(connection) == self.target_details  # the validity of indexes included
        assert database.execute("SELECT version, dirty FROM schema_migrations") == [(2, False)]
        assert database.execute("SELECT version_num FROM alembic_version") == [("002",)]
        moves = database.execute(
            "SELECT direction, from_version, to_version FROM guvnor_migration_history "
            "WHERE event = 'succeeded' ORDER BY id"
        )
        for (_, _, reached), (_, left, _) in itertools.pairwise(moves):
            assert reached == left, (
                moves
            )  # every move begins where the one before it ended: none was done twice
        rolled_back = {left for direction, left, _ in moves if direction == "down"}
        after = rows_of(database)
        assert {table: after[table] for table in before} == kept(before, rolled_back)


def rows_of(database: Database) -> dict[str, Any]:
    """Read all rows through one connection."""
    connection = database.connect()
    rows = sample_data.contents(SimpleNamespace(execute=lambda sql: run(connection, sql)))
    connection.close()
    return rows


def kept(before: dict[str, Any], rolled_back: set[str]) -> dict[str, Any]:
    """Return the rows that must still be there: a rollback that was completed takes its own with it."""
    if "001" in rolled_back:
        return {table: [] for table in before}
    rows = {
        table: [] if "002" in rolled_back and table in ONLY_IN_VERSION_2 else list(found)
        for table, found in before.items()
    }
    link = "escalation_policy_id"
    if "incidents" in rows:
        rows["incidents"] = [
            row | {link: None if "002" in rolled_back else row.get(link)} for row in rows["incidents"]
        ]
    return rows


@pytest.fixture(scope="module")
def starts(
    server: Server, template_at_version_1: Database, template_at_head: Database
) -> dict[str, Database | None]:
    """The databases that runs start from, with rows in every table."""
    found: dict[str, Database | None] = {"empty": None}
    for version, template in (("1", template_at_version_1), ("2", template_at_head)):
        filled = found[version] = server.create_database(template, keep=True)
        sample_data.fill(filled)
    return found


@pytest.fixture
def harness(server: Server, starts: dict[str, Database | None], guvnor: Command, alembic: Command) -> Harness:
    return Harness(server, starts, guvnor, alembic)


# How many transactions of each way write anything. From empty, the index of 002 is built in that of 002.
COMMITS = {"empty to 2": 2, "1 to 2": 2, "2 to 1": 1, "1 to 0": 1}


def around_the_commits(way: str, end: str) -> Iterator[Point]:
    for occurrence in range(1, COMMITS[way] + 1):
        if end == "killed":
            yield at_statement("COMMIT", occurrence, sent=False)
        yield at_statement("COMMIT", occurrence, sent=True)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_interrupted_around_a_commit(harness: Harness, way: str, end: str) -> None:
    for point, tool in zip(around_the_commits(way, end), itertools.cycle(TOOLS), strict=False):
        assert harness.interrupt(WAYS[way], tool, end, point), f"{point.name} never came"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("tool", TOOLS)
def test_interrupted_while_an_index_is_being_built(harness: Harness, tool: str, end: str) -> None:
    point = at_statement("CREATE INDEX CONCURRENTLY", sent=True)
    assert harness.interrupt(WAYS["1 to 2"], tool, end, point)


# At least so many messages each way takes; how many exactly depends on timing.
MESSAGES = {"empty to 2": 420, "1 to 2": 340, "2 to 1": 85, "1 to 0": 90}
EVERYWHERE = [(way, end, number) for way in WAYS for end in ENDS for number in range(1, MESSAGES[way] + 1)]
HERE_AND_THERE = [
    (*point, tool) for point, tool in zip(EVERYWHERE[20::101], itertools.cycle(TOOLS), strict=False)
]


@pytest.mark.parametrize(("way", "end", "number", "tool"), HERE_AND_THERE)
def test_interrupted_here_and_there(harness: Harness, way: str, end: str, number: int, tool: str) -> None:
    assert harness.interrupt(WAYS[way], tool, end, at_message(number))


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("way", WAYS)
def test_interrupted_at_every_message(
    harness: Harness, way: str, tool: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, and each commit and index build once more while the server is at it.

    The look at the schema after an `up` only reads and takes as many messages again: one way does with it.
    """
    points, failures = 0, []
    verify = (way, tool) == ("1 to 2", "guvnor")
    message: Message | None = None
    for number in itertools.count(1):
        changes = message is not None and re.match("COMMIT|CREATE INDEX CONCURRENTLY", message.text)
        try:
            if changes:
                harness.interrupt(WAYS[way], tool, end, at_message(number - 1, sent=True), verify=False)
                points += 1
            message = harness.interrupt(WAYS[way], tool, end, at_message(number), verify=verify)
        except AssertionError as failure:
            failures.append(str(failure))
            print(failure)
        else:
            if message is None:
                break
        points += 1
    with capsys.disabled():
        print(f"\n{way}, {tool}, {end}: {points} points, {len(failures)} failures", flush=True)
    assert failures == []
    assert points > 70
