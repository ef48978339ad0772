"""Does the server tell whether a column's type can change without USING, and whether values are cut then?"""

from __future__ import annotations

from contextlib import closing

import pytest

from guvnor import postgres
from guvnor.autogenerate import casts
from guvnor.autogenerate.casts import Cast
from guvnor.schema import shadow
from tests.support.server import Database

KEPT, LOST = Cast(assignable=True, loses=False), Cast(assignable=True, loses=True)

CHANGES = {
    # A value that does not fit is refused.
    ("character varying(400)", "character varying(255)"): KEPT,
    ("character varying(255)", "character varying(400)"): KEPT,
    ("text", "character varying(10)"): KEPT,
    ("bigint", "integer"): KEPT,
    ("integer", "bigint"): KEPT,
    ("integer", "text"): KEPT,
    ("numeric(10,2)", "numeric(12,4)"): KEPT,
    ("date", "timestamp with time zone"): KEPT,
    # The server rounds or cuts without a word.
    ("numeric(12,4)", "numeric(12,2)"): LOST,
    ("numeric", "integer"): LOST,
    ("double precision", "integer"): LOST,
    ("double precision", "real"): LOST,
    ("integer", "real"): LOST,
    ("bigint", "double precision"): LOST,
    ("timestamp without time zone", "date"): LOST,
    ("timestamp without time zone", "timestamp(0) without time zone"): LOST,
    # Without USING it is not possible.
    ("text", "integer"): Cast(assignable=False, loses=True),  # 007 becomes 7
    ("text", "numeric(12,2)"): Cast(assignable=False, loses=True),
}


def test_the_server_tells_what_a_change_of_type_does(database: Database) -> None:
    with (
        closing(postgres.connect(database.dsn)) as connection,
        shadow.build(connection, lambda _: None) as built,
    ):
        found = {
            (old, new): casts.try_out(
                built, {"type": old, "collation": None}, {"type": new, "collation": None}
            )
            for old, new in CHANGES
        }
    assert found == CHANGES


@pytest.mark.parametrize("kind", ["no_such_type", "integer[5"])
def test_a_type_that_cannot_be_tried_is_left_alone(database: Database, kind: str) -> None:
    with (
        closing(postgres.connect(database.dsn)) as connection,
        shadow.build(connection, lambda _: None) as built,
    ):
        old, new = {"type": kind, "collation": None}, {"type": "text", "collation": None}
        assert casts.try_out(built, old, new) == KEPT
