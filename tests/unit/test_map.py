"""Does the map in README show the floors as they are, and does everything exist that it names?"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.support.command import CHECKOUT

MAP = (CHECKOUT / "README.md").read_text(encoding="utf-8").split("\n## Map\n")[1].split("\n## ")[0]
PLACES = re.findall(r"`([\w/]+\.py)` `([\w.]+)(?:\(\))?`", MAP)
PICTURE = MAP.split("```mermaid\n")[1].split("```")[0]
NODES = re.findall(r'^    (\w+)\["', PICTURE, re.MULTILINE)
ARROWS = [
    (start, end)
    for start, ends in re.findall(r'^    (\w+)(?:\["[^"]*"\])? --> (.*)$', PICTURE, re.MULTILINE)
    for end in ends.split(" & ")
]


def floors() -> list[set[str]]:
    """Return the packages and modules of each floor, from the top, as import-linter is told of them."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    (layers,) = [contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers"]
    return [set(re.findall(r"\w+", layer)) for layer in layers]


def names(path: Path) -> set[str]:
    """Return what a module defines: functions, classes and their methods."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, kinds)}
    return found


def imported(floor: str) -> set[str]:
    """Return the floors that a floor imports from."""
    path = CHECKOUT / "guvnor" / floor
    found = set()
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guvnor"):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name.split(".")[1] for name in whole}
    return found


@pytest.mark.parametrize(("file", "name"), PLACES, ids=[f"{file} {name}" for file, name in PLACES])
def test_every_place_exists(file: str, name: str) -> None:
    assert name in names(CHECKOUT / "guvnor" / file)


def test_every_question_has_two_hops() -> None:
    questions = [line for line in MAP.splitlines() if line.startswith(("| where ", "| what ", "| how "))]
    assert len(questions) == 10
    assert len(PLACES) == 2 * len(questions)


def test_every_file_and_folder_exists() -> None:
    files = [CHECKOUT / path for path in re.findall(r"(?:guvnor|alembic)/[\w/]+\.py", MAP)]
    folders = [CHECKOUT / path for path in re.findall(r"^\| `(\w+/)`", MAP, re.MULTILINE)]
    assert files
    assert folders
    assert [path for path in files + folders if not path.exists()] == []


def test_the_picture_shows_every_floor() -> None:
    assert set(NODES) - {"env"} == set().union(*floors())


def test_every_arrow_is_an_import_and_points_downwards() -> None:
    height = {floor: -number for number, level in enumerate(floors()) for floor in level}
    arrows = [(start, end) for start, end in ARROWS if start != "env"]
    assert [arrow for arrow in arrows if height[arrow[0]] <= height[arrow[1]]] == []
    assert [(start, end) for start, end in arrows if end not in imported(start)] == []
