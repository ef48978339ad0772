"""What remains of a plan under the run lock, when another run was at work meanwhile."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from guvnor.errors import GuvnorError
from guvnor.migrate.planner import reconfirm
from guvnor.revisions.plan import Plan, Step
from guvnor.revisions.script import Direction


def down(start: int, end: int) -> Plan:
    names = [f"{number:03d}" for number in range(start, end - 1, -1)]
    steps = [
        Step(None, Direction.DOWN, above, "test", above, below)  # type: ignore[arg-type]
        for above, below in pairwise(names)
    ]
    return Plan(None, names[0], tuple(steps))  # type: ignore[arg-type]


def under_the_lock(plan: Plan, at: int, *, relative: bool) -> Plan | None:
    current: Any = SimpleNamespace(version=f"{at:03d}", number=at, dirty=False, alembic=(), unfinished=None)
    request: Any = SimpleNamespace(relative=relative)
    return reconfirm(request, SimpleNamespace(), plan, current)  # type: ignore[arg-type]


def test_an_untouched_database_gets_the_plan_as_it_was_confirmed() -> None:
    assert under_the_lock(down(3, 1), 3, relative=True) == down(3, 1)


@pytest.mark.parametrize(("at", "steps"), [(2, ["002"]), (1, [])])
def test_a_relative_target_is_resolved_once(at: int, steps: list[str]) -> None:
    """Another run has done a part of it, or all: one step back does not become a second one."""
    remaining = under_the_lock(down(3, 1), at, relative=True)
    assert remaining is not None
    assert [step.revision for step in remaining.steps] == steps


def test_a_relative_target_is_given_up_when_another_run_has_left_its_way() -> None:
    with pytest.raises(GuvnorError, match="Another run moved the database to version 4"):
        under_the_lock(down(3, 1), 4, relative=True)
