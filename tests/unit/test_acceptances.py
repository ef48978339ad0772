"""Which direction a comment that accepts a change of data is about, and what a loss is called."""

from __future__ import annotations

import pytest

from guvnor.backup.losses import Loss
from guvnor.revisions import acceptances
from guvnor.revisions.script import Direction

FILE = """\
# changes data: a: before
def upgrade():
    # changes data: b: first
    op.execute("DELETE FROM b")  # changes data: c: beside
    # changes data: d: last

    # changes data: e: after a blank line


# changes data: f: between
def downgrade():
    op.execute("SELECT 1")
  # changes data: g: indented less, and the last line but one
# changes data: h: after


def helper():
    pass
    # changes data: i: elsewhere
"""


def test_a_comment_belongs_to_the_function_under_which_it_is_indented() -> None:
    found = {item.table: item.direction for item in acceptances.read(FILE)}
    up, down = Direction.UP, Direction.DOWN
    assert found == {
        "a": None, "b": up, "c": up, "d": up, "e": up, "f": None, "g": down, "h": None, "i": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "table"),
    [
        ("table", '"x.y"', '"x.y"'),
        ("column", "places.name", "places"),
        ("column", 'places."x.y"', "places"),
        ("column", '"Odd.Name"."x.y"', '"Odd.Name"'),
        ("column", '"a"".b"."c"".d"', '"a"".b"'),
    ],
)
def test_a_loss_knows_its_table_whatever_the_names_hold(kind: str, name: str, table: str) -> None:
    assert Loss(kind, name).table == table
