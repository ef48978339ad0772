"""The plan of a run: made first, shown on request, then executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType

from alembic.runtime.migration import MigrationStep, RevisionStep

from guvnor.postgres import Identity
from guvnor.revisions import acceptances, allowances
from guvnor.revisions.acceptances import Acceptance
from guvnor.revisions.allowances import Allowance
from guvnor.revisions.confirmation import confirmation_hash
from guvnor.revisions.script import Direction
from guvnor.revisions.statements import checksum, render


@dataclass(frozen=True)
class Step:
    """One step of a plan: a revision in one direction, or a move of the version alone (stamp).

    :ivar alembic: the step as Alembic runs it.
    """

    alembic: MigrationStep
    direction: Direction
    revision: str
    description: str
    from_version: str | None
    to_version: str | None

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """The SQL of the step, statement by statement."""
        return render(self.alembic.migration_fn).statements if self.direction is not Direction.STAMP else ()

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The same with online operations in their plain form; nothing where that is not known."""
        return (
            (render(self.alembic.migration_fn).plain or ()) if self.direction is not Direction.STAMP else ()
        )

    @property
    def max_idle(self) -> float:
        """The seconds for which the server lets the transaction of the step be idle."""
        return allowances.max_idle(self._module)

    @cached_property
    def max_stall(self) -> Allowance | None:
        """How long the revision says that it may make the application wait; None when it says nothing."""
        return allowances.max_stall(self._module)

    @cached_property
    def acceptances(self) -> tuple[Acceptance, ...]:
        """The changes of data that the revision accepts in this direction."""
        return acceptances.of_file(self.file, self.direction)

    @property
    def file(self) -> Path | None:
        """The revision file; None for a step that runs none."""
        return Path(self._module.__file__) if self._module is not None and self._module.__file__ else None

    @property
    def _module(self) -> ModuleType | None:
        return self.alembic.revision.module if isinstance(self.alembic, RevisionStep) else None

    @cached_property
    def checksum(self) -> str:
        """A checksum over the statements; comments, white space and line ends do not count."""
        return checksum(self.statements)


@dataclass(frozen=True)
class Plan:
    """The steps from the current version to the target, in order.

    :ivar lost: what data the plan may lose, by kind and name, and whether it gives up its backup; empty until
        that is known. A confirmation covers it.
    """

    database: Identity
    current: str | None
    steps: tuple[Step, ...]
    lost: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The version after the last step."""
        return self.steps[-1].to_version if self.steps else self.current

    @cached_property
    def hash(self) -> str:
        """What a confirmation refers to: a hash over database, versions, statements and what is lost.

        What the revisions allow themselves and accept counts, too. Numbers of rows, times and paths do not.
        """
        content: list[str] = []
        for step in self.steps:
            content += (step.direction, step.revision, *step.statements)
            content += [str(step.max_stall)] if step.max_stall else []
            content += map(str, step.acceptances)
        return confirmation_hash(self.database, self.current, self.target, (*content, *self.lost))

    def remaining(self, version: str | None) -> Plan | None:
        """Return the rest of the plan from a version on; None when the plan does not pass that version."""
        on_the_way = [self.current, *(step.to_version for step in self.steps)]
        if version not in on_the_way:
            return None
        return replace(self, current=version, steps=self.steps[on_the_way.index(version) :])


def make(database: Identity, current: str | None, steps: Sequence[MigrationStep]) -> Plan:
    """Make a plan from the steps that Alembic has found for a database at a version."""
    return Plan(database, current, tuple(_step(step) for step in steps))


def _step(step: MigrationStep) -> Step:
    to_version = next(iter(step.to_revisions_no_deps), None)
    from_version = next(iter(step.from_revisions_no_deps), None)
    if isinstance(step, RevisionStep):
        direction = Direction.UP if step.is_upgrade else Direction.DOWN
        revision = step.revision.revision
    else:
        direction, revision = Direction.STAMP, to_version or "base"
    return Step(step, direction, revision, step.doc or "", from_version, to_version)
