"""How long may a step make the application wait: as its revision says, else as the setting says?"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guvnor import config
from guvnor.migrate.stall_budget import budget
from guvnor.revisions.allowances import Allowance

FIVE = Allowance("max_stall", 5.0, "5s", "the table is small")


@pytest.mark.parametrize(
    ("environment", "marked", "setting", "said", "limit"),
    [
        ("development", False, None, None, 2.0),
        ("development", True, None, None, 0.5),  # a laptop, pointed at a production database
        ("production", False, None, None, 0.5),
        ("development", True, "3s", None, 3.0),
        ("production", True, "3s", None, 3.0),
        ("production", True, "off", None, None),
        ("production", True, None, FIVE, 5.0),
        ("production", True, "1min", FIVE, 5.0),
        ("development", False, "off", FIVE, None),
    ],
)
def test_the_budget(
    tmp_path: Path,
    environment: str,
    marked: bool,
    setting: str | None,
    said: Allowance | None,
    limit: float | None,
) -> None:
    settings = config.load({"max_stall": setting}, {"GUVNOR_ENV": environment}, tmp_path)
    step: Any = SimpleNamespace(max_stall=said)
    assert budget(settings, step, production=marked) == limit
