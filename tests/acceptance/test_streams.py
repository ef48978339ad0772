"""Does a migration do its work, and say how it ended, when nobody takes what it prints?"""

from __future__ import annotations

import subprocess

import pytest

from tests.support.command import Result
from tests.support.expect import AT_1, AT_HEAD, ends, succeeds, versions

UP = {"guvnor": ("migrate", "up"), "alembic": ("upgrade", "head")}


@pytest.fixture(params=UP)
def tool(request):
    """Each of the two tools, and the words of its ``up``."""
    return request.getfixturevalue(request.param).process, UP[request.param]


def redirected(command, redirection, *words, database, **env):
    """Run a command with its streams redirected by the shell."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command._words(words, None)],
        cwd=command.directory,
        env=command._environment(database, env, command.directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_reader_that_has_seen_enough_stops_no_migration(at_version_1, tool):
    command, up = tool
    process = command.start(*up, database=at_version_1)
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(60), "Traceback" in err) == (0, False), err
    assert versions(at_version_1) == AT_HEAD


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_streams_that_lead_nowhere_stop_no_migration(at_version_1, tool, redirection):
    command, up = tool
    succeeds(redirected(command, redirection, *up, database=at_version_1))
    assert versions(at_version_1) == AT_HEAD


def test_output_that_is_lost_is_told(migrated, guvnor):
    shown = redirected(guvnor.process, ">/dev/full", "migrate", "status", database=migrated)
    assert shown.err == "⚠️  WARNING: the output cannot be written and is lost: No space left on device.\n"


@pytest.mark.parametrize(
    "words", [("migrate", "status"), ("migrate", "history"), ("schema", "check"), ("version",)]
)
def test_commands_that_look_take_a_closed_output(migrated, guvnor, words):
    assert redirected(guvnor.process, ">&-", *words, database=migrated) == Result(0, "", "")


def test_a_closed_input_is_no_terminal_to_ask_on(migrated, guvnor):
    words = ("migrate", "down", "--no-backup")
    shown = redirected(guvnor.process, "<&-", *words, database=migrated, GUVNOR_ENV="production")
    ends(shown, 4, "there is no terminal to ask on")
    assert versions(migrated) == AT_HEAD != AT_1
