"""From a command to the SQL of a revision: how many calls of ours, in how many files?"""

from __future__ import annotations

import json

import pytest

from tests.support.expect import succeeds
from tests.support.forked import ForkedCommand
from tests.support.project import Project
from tests.support.server import Database

MOST_CALLS, MOST_FILES = 8, 4

WRITES_ITS_STACK = """
import json, traceback
from pathlib import Path
import guvnor
ours = Path(guvnor.__file__).parent
frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ours)]
calls = [(str(Path(frame.filename).relative_to(ours)), frame.name) for frame in frames]
Path("stack.json").write_text(json.dumps(calls))
op.execute("SELECT 1")
"""


# Afterwards the shadow would run the revision once more.
UNVERIFIED = {"GUVNOR_VERIFY": "no"}


def check(project: Project, entrance: tuple[str, str]) -> None:
    """Count the calls that lead to the revision, from the function that the command names on."""
    calls = [tuple(call) for call in json.loads((project.directory / "stack.json").read_text())]
    assert len(calls) <= MOST_CALLS, calls  # what reads the command line included
    spine = calls[calls.index(entrance) :]
    assert len({file for file, _ in spine}) <= MOST_FILES, spine
    assert ("migrate/engine.py", "migrate") in spine


@pytest.fixture
def watched(project: Project) -> Project:
    """A project whose last revision writes down who called it."""
    project.add_revision(WRITES_ITS_STACK, WRITES_ITS_STACK, python=True)
    return project


def test_guvnor(guvnor: ForkedCommand, watched: Project, migrated: Database) -> None:
    for direction in ("up", "down"):
        succeeds(guvnor("migrate", direction, database=migrated, cwd=watched.directory, env=UNVERIFIED))
        check(watched, ("cli/migrate.py", direction))
        (watched.directory / "stack.json").unlink()


def test_plain_alembic(alembic: ForkedCommand, watched: Project, migrated: Database) -> None:
    succeeds(alembic("upgrade", "head", database=migrated, cwd=watched.directory, env=UNVERIFIED))
    check(watched, ("cli/plain_alembic.py", "run"))
