"""A project whose new revision is linted, alone or as a branch beside the main branch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import indent

from guvnor.lint import LintReport, lint_revisions
from tests.support.project import REVISION, Project

GOOD = 'op.execute("CREATE TABLE IF NOT EXISTS teams (id uuid PRIMARY KEY)")'


def written(project: Project, text: str, name: str = "003_test.py", *, down: str = "") -> Path:
    """Write a revision from an example: the body of upgrade(), or a file that defines functions."""
    number = name[:3]
    before = f"{int(number) - 1:03}"
    whole = REVISION.format(
        title="Test.",
        number=number,
        before=before,
        down_revision=f'"{before}"',
        upgrade=indent(text, "    "),
        downgrade=indent(down or 'op.execute("SELECT 1")', "    "),
    )
    if "def upgrade" in text:
        whole = whole[: whole.index("def upgrade")] + text + "\n"
    path = project.versions / name
    path.write_text(whole)
    return path


def found(project: Project, since: str = "002") -> LintReport:
    """Lint what comes after a revision."""
    return lint_revisions(project.directory / "alembic.ini", since)


def git(folder: Path, *arguments: str) -> str:
    """Run git there."""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def commit(project: Project) -> None:
    """Commit all there is."""
    git(project.directory, "add", "--all")
    git(project.directory, "commit", "--message", "Next")


def in_branch(project: Project) -> LintReport:
    """Lint what the branch brings."""
    return lint_revisions(project.directory / "alembic.ini")
