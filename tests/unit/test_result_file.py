"""Does Kubernetes keep the whole result of a deployment, however much there is to say?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from guvnor.cli.result_file import shortened, write_result
from guvnor.errors import ExitCode


def record(stages: int = 2, text: str = "short") -> dict[str, Any]:
    passed = {"name": "pre-flight", "outcome": "done", "seconds": 0.1, "detail": {"text": text}}
    failed = {"name": "up", "outcome": "failed", "seconds": 0.1, "detail": {"error": text}}
    return {
        "exit_code": ExitCode.LOCKED,
        "summary": text,
        "applied": ["001"],
        "stages": [passed] * stages + [failed],
        "error": {"message": text, "state": text, "next": None},
    }


@pytest.mark.parametrize(
    ("given", "stages"),
    [(record(), 3), (record(40), 41), (record(400), 1), (record(400, "é" * 9000), 1)],
    ids=["short", "without details", "without the stages that passed", "with short texts"],
)
def test_the_result_fits_and_keeps_its_keys(given: dict[str, Any], stages: int) -> None:
    text = shortened(given)
    assert len(text.encode()) <= 4096
    read = json.loads(text)
    assert (read.keys(), read["exit_code"], len(read["stages"])) == (given.keys(), 7, stages)
    assert read["stages"][-1]["name"] == "up"
    assert read["error"].keys() == given["error"].keys()


def test_the_termination_log_is_written_in_place(tmp_path: Any) -> None:
    """It is mounted by itself, in a directory that cannot be written."""
    path = tmp_path / "termination-log"
    path.write_text("x" * 9000)
    before = path.stat().st_ino
    write_result(path, record())
    assert path.stat().st_ino == before
    assert json.loads(path.read_text("utf-8"))["exit_code"] == 7
    assert list(tmp_path.iterdir()) == [path]
