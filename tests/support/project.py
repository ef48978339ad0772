"""A project of revision files that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import indent

from tests.support.command import FROZEN

REVISION = '''"""{title}

Revision ID: {number}
Revises: {before}
"""

from __future__ import annotations

from alembic import op

revision: str = "{number}"
down_revision: str | None = {down_revision}


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''


class Project:
    """A copy of ``alembic.ini`` and ``alembic/``; a command that is run in ``directory`` uses it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.versions = directory / "alembic" / "versions"
        shutil.copy(FROZEN / "alembic.ini", directory)
        shutil.copytree(
            FROZEN / "alembic", directory / "alembic", ignore=shutil.ignore_patterns("__pycache__")
        )

    def add_revision(
        self,
        upgrade: str,
        downgrade: str = "SELECT 1",
        *,
        name: str = "test",
        number: int | None = None,
        after: str | None = "",
        python: bool = False,
    ) -> Path:
        """Write a revision file.

        :param upgrade: SQL of one ``op.execute``; with ``python`` the body of the function.
        :param downgrade: the same for the way back.
        :param name: the rest of the file's name.
        :param number: the next one when left out.
        :param after: the revision before it (None for none) when that is not the highest one below it.
        :param python: whether the bodies are Python.
        :returns: the file.
        """
        numbers = sorted(int(path.name[:3]) for path in self.versions.glob("[0-9]*_*.py"))
        number = number if number is not None else max(numbers, default=0) + 1
        if after == "":
            below = [other for other in numbers if other < number]
            after = f"{below[-1]:03}" if below else None
        path = self.versions / f"{number:03}_{name}.py"
        path.write_text(
            REVISION.format(
                title=name.replace("_", " ").capitalize() + ".",
                number=f"{number:03}",
                before=after or "nothing",
                down_revision=f'"{after}"' if after else None,
                upgrade=body(upgrade, python),
                downgrade=body(downgrade, python),
            )
        )
        return path


def body(text: str, python: bool) -> str:
    return indent(text.strip() if python else f"op.execute({text!r})", "    ")
