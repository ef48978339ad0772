"""The fence: is the database still where a step starts from?"""

from __future__ import annotations

import pytest

from guvnor.errors import ExitCode
from guvnor.migrate import fence
from guvnor.revisions.plan import Step
from guvnor.revisions.script import Direction


def step(from_version: str | None, to_version: str | None, direction: Direction = Direction.UP) -> Step:
    revision = (to_version if direction is Direction.UP else from_version) or ""
    return Step(None, direction, revision, "test", from_version, to_version)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "to", "versions", "golang"),
    [
        pytest.param(None, "001", [], (0, False), id="empty"),
        pytest.param("001", "002", ["001"], (1, False), id="clean"),
        pytest.param("001", "002", ["001"], (2, True), id="half done by an earlier run"),
        pytest.param("001", None, ["001"], (-1, True), id="half done on the way to no version"),
        pytest.param("001", "002", ["001"], None, id="golang-migrate is not kept in step"),
    ],
)
def test_a_database_where_the_step_starts(
    at: str | None, to: str | None, versions: list[str], golang: tuple[int, bool] | None
) -> None:
    assert fence.moved(step(at, to), versions, golang) is None


@pytest.mark.parametrize("versions", [["002"], [], ["001", "002"]])
def test_another_run_has_moved_the_version(versions: list[str]) -> None:
    error = fence.moved(step("001", "002"), versions, (2, False))
    assert error is not None
    assert error.exit_code == ExitCode.FAILED
    assert (versions[0] if versions else "no version") in error.message
    assert "starts from 001" in error.message


@pytest.mark.parametrize("golang", [(2, False), (0, False), (1, True), (3, True)])
def test_golang_migrate_has_moved_its_own(golang: tuple[int, bool]) -> None:
    error = fence.moved(step("001", "002"), ["001"], golang)
    assert error is not None
    assert error.exit_code == ExitCode.DECISION
    assert f"schema_migrations {golang[0]}" in error.message
