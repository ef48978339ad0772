"""What may a revision allow itself, and does it have to say why?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from guvnor.revisions import allowances


@pytest.fixture
def module(tmp_path: Path) -> Any:
    def write(text: str, encoding: str = "utf-8") -> ModuleType:
        path = tmp_path / "003_test.py"
        path.write_text(f'"""Test."""\n\nrevision = "003"\n{text}\n', encoding)
        specification = importlib.util.spec_from_file_location("r003", path)
        assert specification
        assert specification.loader
        found = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(found)
        return found

    return write


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('max_stall = "5s"  # the table is small', "the table is small"),
        ('max_stall = "5s"#the table is small', "the table is small"),
        ('max_stall: str = "5s"  # the table is small', "the table is small"),
        ('# the table is small\nmax_stall = "5s"', "the table is small"),
        ('# the table\n#   is small\nmax_stall = "5s"', "the table is small"),
        ('x = 1  # no\nmax_stall = "5s"  # the table is small', "the table is small"),
        ('# the table is small\nmax_stall = "5s"  # noqa: E501', "the table is small"),
        ('max_stall = (\n    "5s"\n)  # the table is small', "the table is small"),
        ('# above\nmax_stall = "5s"  # beside', "beside"),
        ('max_stall = "5s"  # Größe: klein # 1', "Größe: klein # 1"),
    ],
)
def test_the_reason_stands_beside_it_or_directly_above(module: Any, text: str, reason: str) -> None:
    found = allowances.max_stall(module(text))
    assert found == allowances.Allowance("max_stall", 5.0, "5s", reason)
    assert str(found) == f"max_stall 5s: {reason}"


@pytest.mark.parametrize(
    "text",
    [
        'max_stall = "5s"',
        'max_stall = "5s"  #',
        'max_stall = "5s"  # --',
        'max_stall = "5s"  # noqa: E501',
        '# too far away\n\nmax_stall = "5s"',
        'x = 1  # of another line\nmax_stall = "5s"',
        'max_stall = "5s"\n# below',
        'for max_stall in ["5s"]:  # hidden\n    pass',
    ],
)
def test_without_a_reason_it_is_refused(module: Any, text: str) -> None:
    with pytest.raises(
        allowances.AllowanceError, match=r"does not say why it needs max_stall.*max_stall = \"5s\"  # why"
    ):
        allowances.max_stall(module(text))


@pytest.mark.parametrize("value", ['"soon"', '"off"', '"10ms"', '"0"', "5", "None", '""'])
def test_what_is_no_limit_is_refused(module: Any, value: str) -> None:
    with pytest.raises(
        allowances.AllowanceError, match=r"says max_stall = .*Write max_stall = \"5s\"  # why"
    ):
        allowances.max_stall(module(f"max_stall = {value}  # because"))


def test_a_revision_that_says_nothing_has_the_limits_of_all(module: Any) -> None:
    assert allowances.max_stall(module("")) is None
    assert allowances.max_idle(module("")) == 60
    assert (allowances.max_stall(None), allowances.max_idle(None)) == (None, 60)


def test_max_idle_needs_a_reason_too(module: Any) -> None:
    assert allowances.max_idle(module('max_idle = "10min"  # reads a file')) == 600
    with pytest.raises(allowances.AllowanceError, match="does not say why it needs max_idle"):
        allowances.max_idle(module('max_idle = "10min"'))
    with pytest.raises(allowances.AllowanceError, match="too short: 1ms"):
        allowances.max_idle(module('max_idle = "0"  # never'))


def test_a_file_that_is_edited_during_the_run_changes_nothing(module: Any) -> None:
    loaded = module('max_stall = "5s"  # the table is small')
    before = allowances.max_stall(loaded)
    Path(loaded.__file__).write_text("")
    assert allowances.max_stall(loaded) == before


def test_a_file_with_a_byte_order_mark_can_be_read(module: Any) -> None:
    assert allowances.max_stall(module('max_stall = "5s"  # small', "utf-8-sig"))
