"""Does a developer's next revision leave the suite green?

Three more are made in a copy of the checkout, where a part of the suite runs; the workflow runs all of it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.more_revisions import Checkout

PARTS = (
    "tests/unit/test_this_project.py",
    "tests/unit/test_lint.py",
    "tests/unit/test_diagram.py",
    "tests/unit/test_sql_revisions.py",
    "tests/acceptance/test_this_project.py",
)


def test_the_suite_passes_with_three_more_revisions(server, database, tmp_path):
    before = len(list((checkout := Checkout(tmp_path / "checkout", database.dsn)).versions.glob("*.py")))
    checkout.add_three()
    assert len(list(checkout.versions.glob("*.py"))) == before + 3
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *PARTS],
        cwd=checkout.directory,
        env={**kept, "GUVNOR_TEST_DSN": server.dsn},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
