"""Is a revision file that cannot be loaded explained on every way in, without a traceback?"""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import pytest

from tests.support.expect import ends, next_step, succeeds

SYNTAX = "def upgrade(:\n    pass\n"
IMPORT = "import a_module_that_is_not_there\n"
NAMELESS = 'revision = "003"\n'

GUVNOR = (
    "migrate up",
    "migrate down",
    "migrate plan",
    "migrate create teams",
    "migrate preflight",
    "migrate deploy",
    "migrate adopt --at 2",
    "schema check",
    "schema check --against models",
)
ALEMBIC = (
    "history",
    "heads",
    "branches",
    "show 001",
    "current",
    "check",
    "upgrade head",
    "upgrade head --sql",
    "downgrade -1",
    "stamp 001",
    "revision -m teams",
    "revision --autogenerate -m teams",
)


@pytest.fixture
def installed(tmp_path):
    """The entry point by which Alembic finds our plugin, where an older install of the project lacks it."""
    if any(each.value == "guvnor.alembic_plugin" for each in entry_points(group="alembic.plugins")):
        return {}
    info = tmp_path / "installed" / "of_a_test-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-a-test\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[alembic.plugins]\nof_a_test = guvnor.alembic_plugin\n")
    return {"PYTHONPATH": f"{info.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("words", GUVNOR)
def test_guvnor_names_file_and_line(migrated, guvnor, project, words):
    path = project.versions / "003_teams.py"
    path.write_text(SYNTAX)
    result = ends(guvnor(*words.split(), database=migrated, cwd=project.directory), 3, "SyntaxError")
    assert "(003_teams.py, line 1)" in result.err
    assert "    def upgrade(:\n" in result.err
    assert next_step(result) == [f"$EDITOR {path}   # line 1"]


@pytest.mark.parametrize("words", ALEMBIC)
def test_plain_alembic_does_the_same(migrated, alembic, project, installed, words):
    path = project.versions / "003_teams.py"
    path.write_text(SYNTAX)
    here = {"database": migrated, "cwd": project.directory, "env": installed}
    result = ends(alembic.process(*words.split(), **here), 3, "SyntaxError")
    assert next_step(result) == [f"$EDITOR {path}   # line 1"]


@pytest.mark.parametrize(("text", "told"), [(IMPORT, "ModuleNotFoundError"), (NAMELESS, "down_revision")])
def test_other_reasons(migrated, guvnor, alembic, project, installed, text, told):
    path = project.versions / "003_teams.py"
    path.write_text(text)
    here = {"database": migrated, "cwd": project.directory}
    for result in (
        guvnor("migrate", "create", "teams", **here),
        alembic.process("history", **here),
        alembic.process("heads", env=installed, **here),
    ):
        ends(result, 3, told)
        assert next_step(result)[0].startswith(f"$EDITOR {path}")


def test_what_needs_no_files_still_works(migrated, guvnor, project):
    (project.versions / "003_teams.py").write_text(SYNTAX)
    for words in (("history",), ("status",)):
        succeeds(guvnor("migrate", *words, database=migrated, cwd=project.directory))


@pytest.mark.parametrize("words", [("create", "teams"), ("up",), ("plan",), ("status",)])
def test_two_files_of_a_number_lead_to_the_one_that_is_new(migrated, guvnor, project, words):
    project.add_revision("SELECT 1", name="teams", number=3)
    project.add_revision("SELECT 1", name="rooms", number=3, after="002")
    result = guvnor("migrate", *words, database=migrated, cwd=project.directory)
    ends(result, 3, "Two migration files have the number 3: 003_rooms.py, 003_teams.py.")
    assert next_step(result)[0].startswith("guvnor migrate renumber ")
