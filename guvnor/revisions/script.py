"""Alembic's view of the revision files, and the steps that it finds from one version to another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guvnor.errors import UsageError
from guvnor.revisions import files
from guvnor.revisions.files import Revision
from guvnor.revisions.identifiers import number

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationStep
    from alembic.script import ScriptDirectory


class Direction(StrEnum):
    """Which way a step goes: it applies a revision, rolls one back, or only moves the version."""

    UP = "up"
    DOWN = "down"
    STAMP = "stamp"


# Finds the steps that a command runs from the revision that a database is at (none, or one).
FindSteps = Callable[["ScriptDirectory", tuple[str, ...]], Sequence["MigrationStep"]]


def alembic_config(path: Path) -> Config:
    """Return Alembic's configuration of an ``alembic.ini``."""
    from alembic.config import Config

    return Config(str(path))


def script_directory(path: Path) -> ScriptDirectory:
    """Return Alembic's view of the revision files of an ``alembic.ini``."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(alembic_config(path))


def alembic_environment(given: Any, script: ScriptDirectory) -> contextlib.AbstractContextManager[Any]:
    """Provide the environment in which Alembic runs revisions (``alembic.context`` in a revision file).

    :param given: the environment that an Alembic command has made; None to make one.
    """
    from alembic.runtime.environment import EnvironmentContext

    if given is not None:
        return contextlib.nullcontext(given)
    return EnvironmentContext(alembic_config(files.configuration_file()), script)


def read_revisions() -> tuple[Revision, ...]:
    """Return the revision files in the order of their numbers."""
    return files.read(files.directory(files.configuration_file()))


def find_steps(
    script: ScriptDirectory, direction: Direction, heads: tuple[str, ...], to: str | None
) -> list[MigrationStep]:
    """Return the steps from one version to another.

    Alembic's own commands find them with these methods; there are no public ones.

    :param heads: the revision that the database is at, if any.
    :param to: the identifier of the revision to end at; None for the newest one, or downwards for base.
    """
    if direction is Direction.UP:
        return list(script._upgrade_revs(to or "head", heads))  # type: ignore[arg-type]
    return list(script._downgrade_revs(to or "base", heads))  # type: ignore[arg-type]


def upgrade_steps(to: str | None) -> FindSteps:
    """Return a function that asks Alembic for the steps of an ``up``.

    :param to: the last revision to apply; the newest one when left out.
    :raises UsageError: when the files do not know that revision.
    """
    target = files.find(read_revisions(), to or "head")
    if target is None:
        raise UsageError(
            "Every database starts at base; `up` cannot go there.", next_step="guvnor migrate down --to base"
        )

    def find(script: ScriptDirectory, heads: tuple[str, ...]) -> Sequence[MigrationStep]:
        if number(next(iter(heads), None)) >= target.number:
            return []
        return find_steps(script, Direction.UP, heads, target.identifier)

    return find


def downgrade_steps(to: str | None) -> FindSteps:
    """Return a function that asks Alembic for the steps of a ``down``.

    :param to: the last revision that remains applied, or ``base``; one step when left out.
    :raises UsageError: when the files do not know that revision; from the function, when it is ahead of the
        database.
    """
    target = files.find(read_revisions(), to) if to else None

    def find(script: ScriptDirectory, heads: tuple[str, ...]) -> Sequence[MigrationStep]:
        at = number(next(iter(heads), None))
        remaining = max(at - 1, 0) if to is None else (target.number if target else 0)
        if remaining > at:
            raise UsageError(
                f"The database is at version {at}; `down` cannot go up to {remaining}.",
                next_step="guvnor migrate up",
            )
        if remaining == at:
            return []
        return find_steps(script, Direction.DOWN, heads, f"{remaining:03d}" if remaining else None)

    return find
