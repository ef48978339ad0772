"""What the engine is asked to do, whom it keeps informed, and what it has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guvnor import __version__
from guvnor.config import Settings
from guvnor.project import Project
from guvnor.revisions.script import Direction, FindSteps

if TYPE_CHECKING:
    from guvnor.backup.take import BackupOptions, TakenBackup
    from guvnor.migrate.guard import Risk
    from guvnor.migrate.preflight import PreflightCheck
    from guvnor.migrate.repair import Choice
    from guvnor.migrate.runner import Applied
    from guvnor.online.progress import Progress
    from guvnor.postgres import Identity
    from guvnor.revisions.plan import Plan, Step
    from guvnor.schema.drift import DriftReport


class Observer:
    """Is told what happens, and asked for confirmations; this base class ignores it all."""

    def checked(self, check: PreflightCheck) -> None:
        """Take note of a pre-flight check that has ended."""

    def connected(self, identity: Identity) -> None:
        """Take note of the database that is worked on, once the pre-flight checks have passed."""

    def ask(self, risk: Risk) -> bool | None:  # noqa: ARG002
        """Show a risk and ask for a confirmation; None without a terminal."""
        return None

    def instead(self, step: Step) -> tuple[str, ...]:  # noqa: ARG002
        """Return what to write instead of a step that would make the application wait, a line each."""
        return ()

    def progressed(self, progress: Progress) -> None:
        """Take note of how far a long step is."""

    def planned(self, plan: Plan) -> None:
        """Take note of the plan, under the run lock, before a backup is taken and anything is changed."""

    def backed_up(self, taken: TakenBackup | None) -> None:
        """Take note of the backup, None for none; the steps of the plan come next."""

    def executed(self, applied: Sequence[Applied]) -> None:
        """Take note of the steps that were run; the comparison of the schema comes next."""


@dataclass(frozen=True)
class Request:
    """What to do with which database, and whom to tell.

    :ivar find_steps: finds the steps from the revision that the database is at.
    :ivar observer: is told what happens, and asked for confirmations.
    :ivar environment: Alembic's environment that the request comes from (the module ``alembic.context``);
        None to let the engine make one.
    :ivar relative: whether the target counts from where the database is (``-1``).
    :ivar tool: which tool this is, for the log and the history.
    :ivar patience: seconds to wait for a server that is still starting.
    :ivar strict: refuse a database that is ahead of the files.
    :ivar repair: the way out of a dirty state that the user has taken; None for an ordinary command.
    :ivar backup: how the whole database is backed up first; None to back up only what a rollback drops, see
        :class:`guvnor.migrate.backup_policy.BackupPolicy`.
    """

    settings: Settings
    project: Project
    direction: Direction
    find_steps: FindSteps
    observer: Observer
    environment: Any = None
    relative: bool = False
    tool: str = f"guvnor {__version__}"
    patience: float = 0.0
    strict: bool = False
    repair: Choice | None = None
    backup: BackupOptions | None = None


@dataclass(frozen=True)
class Outcome:
    """What a command that moves the version has done.

    :ivar version: the number of the revision that the database is at now; 0 for none.
    :ivar newest: the number of the newest file.
    :ivar applied: the steps that were run.
    :ivar ahead: whether the database is at a later version than the newest file.
    :ivar backup: the backup that was taken first; None when none was.
    :ivar marked: whether this run has marked the database as production.
    :ivar drift: the differences from the expected schema that are new since the run; None when the schema was
        not compared.
    """

    version: int
    newest: int
    applied: tuple[Applied, ...] = ()
    ahead: bool = False
    backup: TakenBackup | None = None
    drift: DriftReport | None = None
    marked: bool = False
