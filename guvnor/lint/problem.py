"""What lint finds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Problem:
    """Something in a revision file that a reviewer should not let pass.

    :ivar rule: the name of the rule, as an ignore names it.
    :ivar file: the revision file, relative to the folder of ``alembic.ini``.
    :ivar line: in that file; None where it is the file as a whole.
    :ivar direction: which way of the revision; None where it is not about one of them.
    :ivar message: what was found.
    :ivar help: what to do instead.
    """

    rule: str
    file: str
    line: int | None
    direction: Direction | None
    message: str
    help: str

    @property
    def place(self) -> str:
        """Where it is: ``alembic/versions/003_add_teams.py:17 (up)``."""
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}" + (f" ({self.direction})" if self.direction else "")


@dataclass(frozen=True)
class Report:
    """What lint has found.

    :ivar revisions: the names of the revision files that were looked at.
    :ivar problems: in the order of files and lines.
    """

    revisions: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no problem."""
        return not self.problems
