"""Does a new revision get the next number, with all that goes with it? What is applied keeps its own."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions

TEAMS = ("CREATE TABLE IF NOT EXISTS teams (id integer)", "DROP TABLE IF EXISTS teams")
REGIONS = ("CREATE TABLE IF NOT EXISTS regions (id integer)", "DROP TABLE IF EXISTS regions")
ROOMS = ("CREATE TABLE IF NOT EXISTS rooms (id integer)", "DROP TABLE IF EXISTS rooms")


def git(project, *words):
    done = subprocess.run(["git", *words], cwd=project.directory, capture_output=True, text=True, check=True)
    return done.stdout


def commit(project):
    git(project, "add", "-A")
    git(project, "commit", "-m", "work")


@pytest.fixture
def taken(repository):
    """Main has revision 003 meanwhile, and the branch another one, which is not merged."""
    git(repository, "switch", "main")
    theirs = repository.add_revision(*TEAMS, name="teams")
    commit(repository)
    git(repository, "switch", "work")
    assert not theirs.exists()
    repository.add_revision(*REGIONS, name="regions")
    commit(repository)
    return repository


@pytest.fixture
def run(guvnor, repository):
    """A command in the project, without a database."""

    def run(*words, **more):
        return guvnor(*words, cwd=repository.directory, **more)

    return run


def names(project):
    return sorted(path.name for path in project.versions.glob("[0-9]*.py"))[2:]


def test_it_does_what_lint_explains(taken, run):
    assert "003_teams.py has the number 003 already." in run("schema", "lint").out
    result = succeeds(run("migrate", "renumber", "alembic/versions/003_regions.py"))
    assert result.out.splitlines() == [
        "✅ 003_regions.py is 004_regions.py now",
        "Next: git merge main   # which has what comes before it",
    ]
    text = (taken.versions / "004_regions.py").read_text()
    for line in (
        "Revision ID: 004",
        "Revises: 003",
        'revision: str = "004"',
        'down_revision: str | None = "003"',
    ):
        assert f"{line}\n" in text
    # A commit of what Git knows has the file under its new name.
    git(taken, "commit", "-am", "renumbered")
    assert git(taken, "status", "--porcelain") == ""
    succeeds(run("schema", "lint"))
    git(taken, "merge", "main")
    succeeds(run("schema", "lint"))
    assert names(taken) == ["003_teams.py", "004_regions.py"]
    succeeds(run("migrate", "renumber", "004_regions.py"), "No change: 004_regions.py has the right number")


def test_two_files_of_a_number_name_the_command(migrated, taken, run):
    git(taken, "merge", "main")
    for words in (("migrate", "up"), ("migrate", "create", "more"), ("migrate", "status")):
        refused = ends(run(*words, database=migrated), 3, "Two migration files have the number 3")
        assert next_step(refused) == ["guvnor migrate renumber 003_regions.py"]
    kept = ends(run("migrate", "renumber", "003_teams.py"), 2, "003_teams.py is on main already")
    assert next_step(kept) == ["guvnor migrate renumber 003_regions.py   # which is new"]
    succeeds(run("migrate", "renumber", "003_regions.py"))
    succeeds(run("migrate", "up", database=migrated), "Applied 003", "Applied 004")


def test_several_heads_name_the_command(migrated, taken, run):
    git(taken, "merge", "main")
    (taken.versions / "003_regions.py").rename(taken.versions / "004_regions.py")
    path = taken.versions / "004_regions.py"
    path.write_text(path.read_text().replace('revision: str = "003"', 'revision: str = "004"'))
    refused = ends(run("migrate", "up", database=migrated), 3, "There are several heads: 003, 004")
    assert next_step(refused) == ["guvnor migrate renumber 004_regions.py"]
    done = succeeds(run("migrate", "renumber", "004_regions"))
    assert "✅ 004_regions.py follows the others now" in done.out
    succeeds(run("migrate", "up", database=migrated), "Applied 004")


def test_several_new_files_follow_each_other(taken, run):
    path = taken.add_revision(*ROOMS, name="rooms")
    path.write_text(
        path.read_text().replace(
            "Rooms.\n",
            "Rooms.\n\nNeeds 003_regions and revision 003 (as 002 and 003_teams do); at 12:003 and 1.003.\n",
        )
    )
    done = succeeds(run("migrate", "renumber", "003_regions.py"))
    assert done.out.count("✅") == 2
    assert names(taken) == ["004_regions.py", "005_rooms.py"]
    text = (taken.versions / "005_rooms.py").read_text()
    assert "Needs 004_regions and revision 004 (as 002 and 003_teams do); at 12:003 and 1.003.\n" in text
    assert 'down_revision: str | None = "004"' in text


@pytest.mark.parametrize("later", ["a", "z"])
def test_of_two_new_files_the_named_one_comes_last(repository, run, later):
    repository.add_revision(*ROOMS, name=later)
    repository.add_revision(*REGIONS, name="middle", number=3)
    succeeds(run("migrate", "renumber", f"003_{later}.py"))
    assert names(repository) == ["003_middle.py", f"004_{later}.py"]


def test_the_main_branch_is_local_or_remote_whichever_is_ahead(taken, run):
    """The remote's one is as it was before the other branch was merged, or the local one is."""
    git(taken, "update-ref", "refs/remotes/origin/main", "main~1")
    git(taken, "merge", "main")
    succeeds(run("migrate", "renumber", "003_regions.py"))
    git(taken, "reset", "--hard")
    git(taken, "update-ref", "refs/remotes/origin/main", "main")
    git(taken, "branch", "--force", "main", "main~1")
    refused = ends(run("migrate", "renumber", "003_teams.py"), 2, "003_teams.py is on origin/main already")
    assert next_step(refused) == ["guvnor migrate renumber 003_regions.py   # which is new"]


def test_on_the_main_branch_itself_the_remote_one_counts(taken, run):
    git(taken, "update-ref", "refs/remotes/origin/main", "main")
    git(taken, "switch", "main")
    git(taken, "merge", "work")
    ends(run("migrate", "renumber", "003_teams.py"), 2, "is on origin/main already")
    succeeds(run("migrate", "renumber", "003_regions.py"))


def test_without_git_the_named_file_is_the_new_one(project, guvnor, tmp_path):
    project.add_revision(*TEAMS, name="teams")
    path = project.add_revision(*REGIONS, name="regions", number=3)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    here = {"cwd": project.directory, "env": {"GIT_CEILING_DIRECTORIES": str(tmp_path)}}
    succeeds(guvnor("migrate", "renumber", "003_regions.py", **here))
    assert names(project) == ["003_teams.py", "004_regions.py"]
    raw = (project.versions / "004_regions.py").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert raw.count(b"\n") == raw.count(b"\r\n")
    ends(guvnor("migrate", "renumber", "005_none.py", **here), 2, "005_none.py is not a migration file of")
    ends(guvnor("migrate", "renumber", "../alembic.ini", **here), 2)


def test_what_is_applied_keeps_its_number_until_it_is_taken_back(migrated, taken, run):
    succeeds(run("migrate", "up", database=migrated), "Applied 003")
    git(taken, "merge", "main")
    refused = ends(
        run("migrate", "renumber", "003_regions.py", database=migrated),
        5,
        "003_regions.py cannot get another number",
        f"database {migrated.name} ",
        "is at version 3, and has it.",
    )
    assert names(taken) == ["003_regions.py", "003_teams.py"]
    for line in next_step(refused):
        program, *words = line.split()
        if program == "guvnor":
            succeeds(run(*words, database=migrated))
        else:
            subprocess.run([program, *words], check=True)
    assert names(taken) == ["003_teams.py", "004_regions.py"]
    assert versions(migrated) == AT_HEAD
    succeeds(run("migrate", "up", database=migrated), "Applied 003", "Applied 004")


def test_a_database_that_has_the_other_file_is_no_obstacle(migrated, taken, run):
    git(taken, "switch", "main")
    succeeds(run("migrate", "up", database=migrated), "Applied 003")
    git(taken, "switch", "work")
    git(taken, "merge", "main")
    succeeds(run("migrate", "renumber", "003_regions.py", database=migrated))
    succeeds(run("migrate", "up", database=migrated), "Applied 004")


def test_a_database_that_cannot_be_asked_is_named(taken, run):
    result = succeeds(run("migrate", "renumber", "003_regions.py", database="host=127.0.0.1 port=1 user=a"))
    assert "it is not known whether a database has the revision" in result.err
    assert names(taken) == ["004_regions.py"]


def test_completion_offers_the_files(taken, guvnor):
    env = {
        "_GUVNOR_COMPLETE": "bash_complete",
        "COMP_WORDS": "guvnor migrate renumber 003",
        "COMP_CWORD": "3",
    }
    assert guvnor.process(env=env, cwd=taken.directory).out.splitlines() == ["plain,003_regions.py"]
