"""The reports in docs/reports/: made anew by ``python -m tests.support.reports``, on the local server."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from guvnor.database import local_server
from tests.support.clone import BRANCHES, Clone
from tests.support.command import CHECKOUT, Command, Result

FOLDER = CHECKOUT / "docs" / "reports"


def report(clone: Clone, branch: str, dsn: str) -> Result:
    """Make one of the branches in a clone, and its report.

    :param dsn: of the server to work on.
    """
    BRANCHES[branch](clone)
    return review(clone, dsn)


def review(clone: Clone, dsn: str, *options: str) -> Result:
    """Run ``guvnor schema review`` in a clone, with the code of that clone."""
    (home := clone.directory.parent / f"{clone.directory.name}-home").mkdir(exist_ok=True)
    # A workflow names the branch that a pull request goes to; here it is main.
    env = {"GUVNOR_SHADOW_DSN": dsn, "GITHUB_BASE_REF": None}
    return Command("guvnor", home)("schema", "review", *options, cwd=clone.directory, env=env, timeout=240)


def main() -> None:
    dsn = local_server()
    for name in BRANCHES:
        with tempfile.TemporaryDirectory() as folder:
            (directory := Path(folder) / "clone").mkdir()
            result = report(Clone(directory), name, dsn)
            if not result.out:
                sys.exit(result.err)
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{name}.md").write_text(result.out)
            print(f"{name}: exit {result.code}")


if __name__ == "__main__":
    main()
