"""What a run is going to do: made first, shown if asked, then executed."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep

from guvnor.migrate import (
    guard,
    operations,  # noqa: F401 - makes the online operations known to Alembic
)
from guvnor.postgres import Identity


@dataclass(frozen=True)
class Step:
    """One step of a plan: a revision in one direction, or a move of the version alone (stamp).

    :ivar alembic: the step as Alembic runs it.
    :ivar direction: ``up``, ``down`` or ``stamp``.
    """

    alembic: MigrationStep
    direction: str
    revision: str
    description: str
    from_version: str | None
    to_version: str | None

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """The SQL of the step, statement by statement."""
        return statements(self.alembic.migration_fn) if self.direction != "stamp" else ()

    @cached_property
    def checksum(self) -> str:
        """A checksum over the statements; comments, white space and line ends do not count."""
        return checksum(self.statements)

    @property
    def drops_data(self) -> bool:
        """Whether running the step by nature loses what the schema held: a rollback."""
        return self.direction == "down"


@dataclass(frozen=True)
class Plan:
    """The steps from the current version to the target, in order."""

    database: Identity
    current: str | None
    steps: tuple[Step, ...]

    @property
    def target(self) -> str | None:
        """The version after the last step."""
        return self.steps[-1].to_version if self.steps else self.current

    @cached_property
    def hash(self) -> str:
        """What a confirmation refers to: a hash over database, versions and statements."""
        content = [text for step in self.steps for text in (step.direction, step.revision, *step.statements)]
        return guard.digest(self.database, self.current, self.target, content)

    def remaining(self, version: str | None) -> Plan | None:
        """Return what remains of the plan from a version on; None when that is not on its way."""
        on_the_way = [self.current, *(step.to_version for step in self.steps)]
        if version not in on_the_way:
            return None
        return Plan(self.database, version, self.steps[on_the_way.index(version) :])


def make(database: Identity, current: str | None, steps: Sequence[MigrationStep]) -> Plan:
    """Make a plan from the steps that Alembic has found.

    :param database: which database the plan is for.
    :param current: the version it is at.
    """
    return Plan(database, current, tuple(_step(step) for step in steps))


def _step(step: MigrationStep) -> Step:
    to_version = step.to_revisions_no_deps[0] if step.to_revisions_no_deps else None
    from_version = step.from_revisions_no_deps[0] if step.from_revisions_no_deps else None
    if isinstance(step, RevisionStep):
        direction, revision = ("up" if step.is_upgrade else "down"), step.revision.revision
    else:
        direction, revision = "stamp", to_version or "base"
    return Step(step, direction, revision, step.doc or "", from_version, to_version)


class _Collector(io.StringIO):
    """Takes Alembic's offline output apart again: it is written statement by statement."""

    def __init__(self) -> None:
        super().__init__()
        self.statements: list[str] = []

    def write(self, text: str) -> int:
        if text.strip():
            self.statements.append(text.strip())
        return len(text)


def statements(function: Any) -> tuple[str, ...]:
    """Render a revision's ``upgrade`` or ``downgrade`` as SQL, without a database.

    Online operations keep their online form, between COMMIT and BEGIN. A function that reads from the
    database cannot be rendered; what it would have run up to there is followed by a line that says so.
    """
    output = _Collector()
    context = offline_context(output)
    with Operations.context(context):
        try:
            function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may do anything
            code = getattr(function, "__code__", None)
            digest = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest() if code else ""
            output.statements.append(
                f"-- from here on the revision needs the database ({type(error).__name__}); code "
                f"{digest[:16]}"
            )
    return tuple(output.statements)


def offline_context(output: io.TextIOBase) -> MigrationContext:
    """Return a migration context that writes SQL instead of running it."""
    return MigrationContext.configure(
        dialect_name="postgresql",
        # "named" keeps the driver's doubling of percent signs out of the text.
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": output, "literal_binds": True, "transactional_ddl": True},
    )


# Quoted text is matched as a whole, so that only what stands outside is evened out; comments may nest.
_TOKEN = re.compile(
    r"""
    (?P<quoted>
        (?<!\w)[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
        | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    )
    | (?P<blank> (?: \s | --[^\n]* | /\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*.*?\*/)*\*/ )+ )
    """,
    re.DOTALL | re.VERBOSE,
)


def checksum(texts: Sequence[str]) -> str:
    """Return a checksum over SQL statements in which comments, white space and line ends do not count."""

    def even(match: re.Match[str]) -> str:
        return match["quoted"].replace("\r\n", "\n") if match["quoted"] else " "

    evened = (_TOKEN.sub(even, text).strip() for text in texts)
    return hashlib.sha256("\0".join(evened).encode()).hexdigest()
