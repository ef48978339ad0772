"""Does --json give one document on standard output, whatever happens?"""

from __future__ import annotations

import json

import pytest

from guvnor import __version__
from tests.support.expect import ends, succeeds

NOBODY = "host=/nowhere dbname=x user=y"


def document(result, code=0):
    ends(result, code)
    found = json.loads(result.out)
    assert found["exit_code"] == code
    assert (found["error"] is None) == (code == 0)
    return found


def test_up_down_and_preflight(database, guvnor):
    up = document(guvnor("migrate", "up", "--json", database=database))
    assert (up["version"], up["newest"], up["ahead"], up["backup"]) == (2, 2, False, None)
    assert [(step["revision"], step["direction"], step["tries"]) for step in up["applied"]] == [
        ("001", "up", 1),
        ("002", "up", 1),
    ]
    assert [check["outcome"] for check in up["checks"]] == ["done"] * 6
    again = document(guvnor("migrate", "up", "--json", database=database))
    assert (again["version"], again["applied"]) == (2, [])
    down = document(guvnor("migrate", "down", "--json", database=database))
    assert (down["version"], down["applied"][0]["direction"]) == (1, "down")
    checked = document(guvnor("migrate", "preflight", "--json", database=database))
    assert [check["name"] for check in checked["checks"]][:2] == ["configuration", "connection"]


@pytest.mark.parametrize("command", ["up", "down", "preflight", "repair", "adopt"])
def test_an_error_is_in_the_document(guvnor, command):
    found = document(guvnor("migrate", command, "--json", database=NOBODY), 3)
    assert "database connection failed" in found["error"]["message"]
    assert found["error"]["state"]
    assert found["error"]["next"].startswith("pg_isready ")


def test_a_deployment(at_version_1, guvnor):
    found = document(guvnor("migrate", "deploy", "--json", database=at_version_1))
    assert found["applied"] == ["002"]
    assert [stage["name"] for stage in found["stages"]][-1] == "verification"
    assert (
        document(guvnor("migrate", "deploy", "--wait-only", "--json", database=at_version_1))["version"] == 2
    )
    dry = document(guvnor("migrate", "deploy", "--dry-run", "--json", database=at_version_1))
    assert dry["plan"]["steps"] == []
    failed = json.loads(ends(guvnor("migrate", "deploy", "--json", database=NOBODY), 3).out)
    assert failed["exit_code"] == 3
    assert failed["error"]["next"]


def test_a_repair_and_an_adoption(at_version_1, guvnor):
    assert document(guvnor("migrate", "repair", "--json", database=at_version_1))["exit_code"] == 0
    at_version_1.execute("UPDATE schema_migrations SET version = 2, dirty = true")
    dirty = json.loads(ends(guvnor("migrate", "repair", "--json", database=at_version_1), 5).out)
    assert [way["name"] for way in dirty["choices"]] == ["forward", "back", "as-is"]
    assert dirty["choices"][0]["command"] == "guvnor migrate repair --forward"
    taken = document(guvnor("migrate", "repair", "--forward", "--json", database=at_version_1))
    assert taken["version"] == 2
    at_version_1.execute("DELETE FROM alembic_version")
    adopted = document(guvnor("migrate", "adopt", "--json", database=at_version_1))
    assert (adopted["adopted"], adopted["version"], adopted["differences"]) == (True, 2, [])


def test_the_versions(guvnor):
    found = json.loads(succeeds(guvnor("version", "--json")).out)
    assert found["guvnor"] == __version__
    assert found.keys() >= {"alembic", "SQLAlchemy", "psycopg2-binary", "Python"}
    assert succeeds(guvnor("--version")).out == f"guvnor {__version__}\n"
