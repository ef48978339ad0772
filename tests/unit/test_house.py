"""Does the house keep its measures: short modules, no package that holds it all, one name for one thing?"""

from __future__ import annotations

import ast
from collections import Counter

from tests.support.command import CHECKOUT

LONGEST_MODULE = 400  # lines
HOUSE = CHECKOUT / "guvnor"
TEXTS = {path.relative_to(HOUSE): path.read_text(encoding="utf-8") for path in HOUSE.rglob("*.py")}
LINES = {path: len(text.splitlines()) for path, text in TEXTS.items()}


def test_every_module_is_short_but_that_of_the_tables() -> None:
    assert [str(path) for path, lines in LINES.items() if lines > LONGEST_MODULE] == ["models.py"]


def test_no_package_holds_more_than_a_fifth() -> None:
    packages: Counter[str] = Counter()
    for path, lines in LINES.items():
        if len(path.parts) > 1:
            packages[path.parts[0]] += lines
    assert packages
    assert {name: lines for name, lines in packages.items() if lines > sum(LINES.values()) / 5} == {}


def test_no_two_modules_define_a_public_class_of_the_same_name() -> None:
    names = Counter(
        node.name
        for text in TEXTS.values()
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []
