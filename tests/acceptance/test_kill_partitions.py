"""Killed at any message of an operation on partitions of two levels, or its session ended there.

One plain ``up`` finishes; the catalogs and the rows are those of the plain statement.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import parted
from tests.support.command import Command
from tests.support.expect import succeeds
from tests.support.parted import OPERATIONS
from tests.support.project import Project
from tests.support.proxy import Message, Proxy
from tests.support.server import Server

ENDS = ("killed", "session ended")
CHANGES = "COMMIT|CREATE (UNIQUE )?INDEX CONCURRENTLY|ALTER TABLE|WITH "


class Interrupter:
    """Interrupts an operation and looks at what one plain ``up`` makes of it."""

    def __init__(self, server: Server, guvnor: Command, project: Project, name: str) -> None:
        self.server = server
        self.guvnor = guvnor
        self.directory = project.directory
        operation = OPERATIONS[name]
        parted.fill(project, operation)
        self.template = server.create_database()
        succeeds(guvnor("migrate", "up", "--to", "001", database=self.template, cwd=self.directory))
        self.template.execute(parted.ROWS)
        self.template.execute("VACUUM ANALYZE")
        plain = server.create_database(self.template)
        plain.execute(operation.plain)
        self.expected = parted.catalogs(plain), parted.rows(plain)

    def __call__(self, end: str, stop_at: Callable[[Message], bool], *, sent: bool) -> Message | None:
        """Interrupt one run, and let the next one finish.

        :returns: the message at which it was interrupted; None when the run has ended without coming there.
        """
        database = self.server.create_database(self.template)
        with Proxy(database, stop_at, sent=sent) as proxy:
            process = self.guvnor.start(
                "migrate", "up", "--no-verify", database=proxy.dsn, cwd=self.directory
            )
            message = proxy.wait_until_stopped(lambda: process.poll() is None)
            if message is not None and end == "killed":
                process.send_signal(signal.SIGKILL)
            elif message is not None:
                proxy.terminate_backend()
                proxy.go_on()
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, f"{message}\n{out}\n{err}"
        result = self.guvnor("migrate", "up", "--no-verify", database=database, cwd=self.directory)
        assert result.code == 0, f"{message}\n{result.out}\n{result.err}"
        assert database.execute("SELECT version, dirty FROM schema_migrations") == [(2, False)]
        assert parted.catalogs(database) == self.expected[0], f"{message}"
        assert parted.rows(database) == self.expected[1], f"{message}"
        database.close()
        self.server.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')
        return message


@pytest.fixture(params=OPERATIONS)
def interrupter(
    server: Server, guvnor: Command, project: Project, request: pytest.FixtureRequest
) -> Interrupter:
    return Interrupter(server, guvnor, project, request.param)


def at(number: int) -> Callable[[Message], bool]:
    return lambda message: message.number == number


def nth(pattern: str, occurrence: int) -> Callable[[Message], bool]:
    found = itertools.count(1)
    return lambda message: bool(re.match(pattern, message.text)) and next(found) == occurrence


SAMPLE = [
    ("index", "killed", "CREATE INDEX ON ONLY", 1, True),
    ("index", "killed", "CREATE INDEX CONCURRENTLY", 2, True),
    ("index", "session ended", "CREATE INDEX CONCURRENTLY", 3, True),
    ("index", "killed", "ALTER INDEX", 3, False),
    ("unique constraint", "session ended", "ALTER TABLE .*USING INDEX", 2, True),
    ("primary key", "killed", "COMMIT", 4, True),
    ("foreign key", "killed", "ALTER TABLE", 2, True),
    ("not null", "session ended", "ALTER TABLE .*VALIDATE", 3, True),
    ("check", "killed", "ALTER TABLE .*VALIDATE", 2, False),
    ("backfill", "killed", "WITH ", 3, True),
    ("rows changed", "session ended", "WITH ", 4, True),
]


@pytest.mark.parametrize(
    ("interrupter", "end", "pattern", "occurrence", "sent"), SAMPLE, indirect=["interrupter"]
)
def test_interrupted_here_and_there(
    interrupter: Interrupter, end: str, pattern: str, occurrence: int, sent: bool
) -> None:
    assert interrupter(end, nth(pattern, occurrence), sent=sent)


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", ENDS)
def test_interrupted_at_every_message(
    interrupter: Interrupter, end: str, capsys: pytest.CaptureFixture[str], request: Any
) -> None:
    """At each message before it is sent, and at each that changes something while the server is at it."""
    points, failures = 0, []
    message: Message | None = None
    for number in itertools.count(1):
        try:
            if message is not None and re.match(CHANGES, message.text):
                points += 1
                interrupter(end, at(number - 1), sent=True)
            message = interrupter(end, at(number), sent=False)
        except AssertionError as failure:
            failures.append(str(failure))
            print(failure)
        else:
            if message is None:
                break
        points += 1
    with capsys.disabled():
        print(f"\n{request.node.callspec.id}: {points} points, {len(failures)} failures", flush=True)
    assert failures == []
    assert points > 50
