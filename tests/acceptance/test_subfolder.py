"""Do commands find the project from its subfolders, as git does?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guvnor import folder
from tests.support.expect import AT_HEAD, ends, succeeds, versions


@pytest.fixture
def below(project) -> Path:
    place = project.directory / "docs" / "pages"
    place.mkdir(parents=True)
    return place


def test_the_revisions_and_settings_of_the_project_count(database, guvnor, alembic, project, below):
    project.add_revision("CREATE TABLE teams (id integer PRIMARY KEY)", "DROP TABLE teams")
    (project.directory / ".env").write_text(f"GUVNOR_STORAGE_DSN={database.dsn}\n")
    up = succeeds(guvnor("migrate", "up", cwd=below), "Migration completed: version 3")
    assert "Applied 003" in up.out
    succeeds(guvnor("migrate", "status", cwd=below), "Migration Status: Version 3")
    made = succeeds(guvnor("migrate", "create", "add rooms", cwd=below))
    assert str(project.versions / "004_add_rooms.py") in made.out
    assert list(below.iterdir()) == []
    # Plain alembic has to be told where the project is.
    plain = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", "../../alembic.ini", "upgrade", "head"],
        cwd=below,
        env=alembic._environment(None, None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "004_add_rooms.py is not finished" in plain.stderr


def test_no_second_server_is_started(guvnor, project, below):
    """The local server lives in one place, seen from everywhere in the project."""
    seen = [
        json.loads(succeeds(guvnor("db", "status", "--json", cwd=place)).out)
        for place in (project.directory, below, project.versions)
    ]
    assert seen[0] == seen[1] == seen[2]
    assert str(project.directory) in json.dumps(seen[0])


def test_without_a_project_the_nearest_server_is_found(guvnor, tmp_path):
    place = tmp_path / "deployed"
    (place / ".guvnor").mkdir(parents=True)
    (place / "a" / "b").mkdir(parents=True)
    seen = [succeeds(guvnor("db", "status", "--json", cwd=each)).out for each in (place, place / "a" / "b")]
    assert seen[0] == seen[1]


def test_a_nearer_project_counts(migrated, guvnor, below):
    (below / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/nowhere\n")
    result = ends(
        guvnor("migrate", "status", database=migrated, cwd=below), 3, "nowhere/versions does not exist"
    )
    assert versions(migrated) == AT_HEAD
    assert "Next:" in result.err


def test_what_a_stranger_left_above_does_not_count(tmp_path, monkeypatch):
    """Its env.py would be run: anybody can write to /tmp."""
    place = tmp_path / "mine"
    place.mkdir()
    (tmp_path / "alembic.ini").write_text("[alembic]\n")
    assert folder.project(place) == tmp_path
    monkeypatch.setattr(folder.os, "geteuid", lambda: 4711)
    owner = place.stat().st_uid
    if owner == 0:
        pytest.skip("root's files are trusted")
    assert folder.project(place) == tmp_path  # it belongs to the owner of the folder to start from


def test_settings_above_the_project_do_not_count(project, below):
    above = project.directory.parent / ".env"
    above.write_text("GUVNOR_STORAGE_TYPE=embedded\n")
    try:
        assert folder.of_project(".env", below) == below / ".env"
    finally:
        above.unlink()
