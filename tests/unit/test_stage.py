"""How far a step is: which commit marks the database dirty, and which is the last one."""

from __future__ import annotations

from guvnor.migrate.stage import Stage


def test_the_commit_after_the_version_is_the_last_one() -> None:
    stage = Stage()
    stage.version_written = True
    assert not stage.commit()
    assert stage.finished
    assert stage.resumable


def test_a_commit_before_an_online_step_marks_dirty_and_resumable() -> None:
    stage = Stage()
    stage.online_step = "build index x"
    assert stage.commit()
    assert stage.resumable
    assert not stage.finished


def test_any_other_early_commit_cannot_be_resumed() -> None:
    stage = Stage()
    assert stage.commit()
    assert not stage.resumable


def test_one_part_that_cannot_be_resumed_spoils_the_step() -> None:
    stage = Stage()
    stage.commit()
    stage.online_step = "build index x"
    assert stage.commit()
    assert not stage.resumable


def test_a_further_try_keeps_what_is_committed() -> None:
    stage = Stage()
    stage.committed = stage.version_written = stage.finished = True
    stage.retry()
    assert stage.committed
    assert not stage.version_written
    assert not stage.finished
