"""What a migration reports its progress to, and asks for confirmations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guvnor.migrate.guard import Risk
from guvnor.migrate.preflight import PreflightCheck
from guvnor.online.progress import Progress

if TYPE_CHECKING:
    from guvnor.backup.take import TakenBackup
    from guvnor.migrate.runner import Applied
    from guvnor.revisions.plan import Plan


class Observer:
    """Is told what happens, and asked for confirmations; this one ignores what it is told."""

    def checked(self, check: PreflightCheck) -> None:
        """Take note of a pre-flight check that has ended."""

    def ask(self, risk: Risk) -> bool | None:  # noqa: ARG002
        """Show a risk and ask for a confirmation; None without a terminal."""
        return None

    def progressed(self, progress: Progress) -> None:
        """Take note of how far a long step is."""

    def planned(self, plan: Plan) -> None:
        """Take note of the plan, under the run lock, before a backup is taken and anything is changed."""

    def backed_up(self, taken: TakenBackup | None) -> None:
        """Take note of the backup, None for none; the steps of the plan come next."""

    def executed(self, applied: Sequence[Applied]) -> None:
        """Take note of the steps that were run; the comparison of the schema comes next."""
