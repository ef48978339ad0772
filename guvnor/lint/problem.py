"""What lint finds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """A place in a revision file that breaks a rule.

    :ivar line: the line in that file; None for the file as a whole.
    :ivar direction: ``up`` or ``down``; None where the rule concerns neither.
    :ivar message: what was found.
    """

    line: int | None
    direction: str | None
    message: str


@dataclass(frozen=True)
class LintProblem:
    """A violation as a report shows it.

    :ivar rule: the name of the rule, as an ignore names it.
    :ivar file: the revision file, relative to the folder of ``alembic.ini``.
    :ivar help: what to write instead.
    """

    rule: str
    file: str
    line: int | None
    direction: str | None
    message: str
    help: str

    @property
    def place(self) -> str:
        """File, line and direction: ``alembic/versions/003_add_teams.py:17 (up)``."""
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}" + (f" ({self.direction})" if self.direction else "")


@dataclass(frozen=True)
class LintReport:
    """The result of a lint run.

    :ivar revisions: the names of the revision files that were checked.
    :ivar problems: sorted by file and line.
    """

    revisions: tuple[str, ...]
    problems: tuple[LintProblem, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no problem."""
        return not self.problems
