"""Are the project's own revisions as they should be, however many there are? What a server has to say."""

from __future__ import annotations

import contextlib

import pytest

from guvnor.review import effects, expected, roundtrip
from guvnor.review.files import plant
from guvnor.revisions import files
from tests.support import facts
from tests.support.command import CHECKOUT
from tests.support.expect import succeeds, versions

INI = CHECKOUT / "alembic.ini"
NEWEST = 3  # older revisions have made their round trip when they were new, and are never edited


@pytest.fixture(scope="module")
def numbers():
    return [revision.identifier for revision in files.read(files.directory(INI))]


def catalogs(database):
    with contextlib.closing(database.connect()) as connection:
        return facts.read(connection), facts.details(connection)


def test_they_make_what_the_models_say(database, guvnor, alembic, numbers):
    succeeds(alembic("upgrade", "head", database=database, real=True))
    assert versions(database) == ([numbers[-1]], [(int(numbers[-1]), False)])
    succeeds(alembic("check", database=database, real=True), "No new upgrade operations detected.")
    for side in ("revision", "models"):
        succeeds(guvnor("schema", "check", "--against", side, database=database, real=True))


def test_each_way_back_leaves_the_schema_of_the_revision_before(database, guvnor, numbers):
    before = {}
    for number in numbers:
        before[number] = catalogs(database)
        succeeds(guvnor("migrate", "up", "--to", number, database=database, real=True))
    at_head = catalogs(database)
    for number in reversed(numbers[1:]):
        succeeds(guvnor("migrate", "down", database=database, real=True))
        assert catalogs(database) == before[number], f"after the downgrade of {number}"
    succeeds(guvnor("migrate", "down", database=database, real=True))
    assert catalogs(database)[1] == before[numbers[0]][1]  # extensions stay
    succeeds(guvnor("migrate", "up", database=database, real=True))
    assert catalogs(database) == at_head


def test_the_newest_make_the_round_trip_with_rows_in_every_table(server, tmp_path):
    every = files.read(files.directory(INI))
    tree = plant(tmp_path / "tree", CHECKOUT / "alembic", files.texts(files.directory(INI)))
    found = effects.range_of(tree, [revision.path.name for revision in every[-NEWEST:]])
    observed, _ = effects.observe(server.dsn, found)
    trip = roundtrip.run(server.dsn, tree, found.base, found.head, expected.of_effects(observed))
    assert trip.problems == []
