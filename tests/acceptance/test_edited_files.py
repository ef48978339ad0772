"""Is the changed file of an applied revision refused by what relies on it, and how is it let through?"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions

TEAMS = ("CREATE TABLE teams (id integer)", "DROP TABLE teams")
REGIONS = ("CREATE TABLE regions (id integer)", "DROP TABLE regions")
AT_3 = (["003"], [(3, False)])
CHANGED = "The file of revision 003 (003_{name}.py) was changed after it was applied ("
COMMANDS = {
    "up": ("guvnor", "migrate", "up"),
    "down": ("guvnor", "migrate", "down"),
    "deploy": ("guvnor", "migrate", "deploy"),
    "alembic upgrade": ("alembic", "upgrade", "head"),
    "alembic downgrade": ("alembic", "downgrade", "-1"),
}


@pytest.fixture
def run(guvnor, alembic, migrated, project):
    """A command on a database, in the project."""

    def run(line, *words, env=None):
        program, *first = COMMANDS[line]
        command = {"guvnor": guvnor, "alembic": alembic}[program]
        every = (*words, *first) if program == "alembic" else (*first, *words)
        return command(*every, database=migrated, cwd=project.directory, env=env)

    return run


@pytest.fixture
def other_branch(run, project):
    """The database has revision 003 of one branch, and the files are another branch's."""
    applied = project.add_revision(*TEAMS, name="teams")
    succeeds(run("up"), "Migration completed: version 3")
    applied.unlink()
    return project.add_revision(*REGIONS, name="regions")


@pytest.mark.usefixtures("other_branch")
@pytest.mark.parametrize("line", COMMANDS)
def test_another_branchs_revision_of_the_same_number_is_refused(migrated, run, line):
    refused = ends(run(line), 5, CHANGED.format(name="regions"))
    assert "Nothing was changed; the database has what the file said when it was applied." in refused.err
    assert (versions(migrated), migrated.execute("SELECT to_regclass('teams')::text")) == (AT_3, [("teams",)])
    assert any("accept" in way and "003" in way for way in next_step(refused))
    if line == "deploy":
        ends(run(line, "--dry-run"), 5, CHANGED.format(name="regions"))


@pytest.mark.parametrize("how", ["flag", "variable", "alembic"])
def test_it_is_let_through_once_and_for_all(migrated, guvnor, run, other_branch, project, how):
    given = {
        "flag": lambda: run("up", "--accept-edited", "3"),
        "variable": lambda: run("deploy", env={"GUVNOR_ACCEPT_EDITED": "003"}),
        "alembic": lambda: run("alembic upgrade", "-x", "accept_edited=003"),
    }[how]
    succeeds(given(), "No change: version 3")
    succeeds(run("up"), "No change: version 3")
    (entry,) = [
        entry
        for entry in json.loads(guvnor("migrate", "history", "--json", database=migrated).out)
        if entry["direction"] == "accept"
    ]
    assert (entry["revision"], entry["outcome"]) == ("003", "accepted")
    assert entry["note"].startswith("the file was changed after it was applied (")
    assert "accept 003" in succeeds(guvnor("migrate", "history", database=migrated)).out
    assert json.loads(guvnor("migrate", "history", "--failed", "--json", database=migrated).out) == []
    # What was applied at first is no surprise either, nor is what comes after it.
    other_branch.unlink()
    project.add_revision(*TEAMS, name="teams")
    project.add_revision("SELECT 1")
    succeeds(run("up"), "Applied 004")
    project.versions.joinpath("003_teams.py").unlink()
    project.add_revision("CREATE TABLE others (id integer)", "DROP TABLE others", number=3, name="others")
    ends(run("up"), 5, CHANGED.format(name="others"))


def test_the_message_repeats_the_command_and_every_revision(run, project):
    for name in ("one", "two"):
        project.add_revision(f"CREATE TABLE {name} ()", f"DROP TABLE {name}", name=name)
    succeeds(run("up"))
    for path, name in ((project.versions / "003_one.py", "one"), (project.versions / "004_two.py", "two")):
        path.write_text(path.read_text().replace(f"TABLE {name}", f"TABLE other_{name}"))
    assert next_step(ends(run("up"), 5, "003_one.py", "004_two.py"))[-1].startswith(
        "guvnor migrate up --accept-edited 003,004   # "
    )
    refused = ends(run("alembic downgrade", "-x", "accept_edited=3"), 5)
    assert next_step(refused)[-1].startswith("alembic -x accept_edited=003,004 downgrade -1   # ")
    refused = ends(run("up", "--accept-edited", "3", "--max-wait", "1min"), 5)
    assert next_step(refused)[-1].startswith("guvnor migrate up --max-wait 1min --accept-edited 003,004   # ")
    ends(run("up", "--accept-edited", "9"), 2, "Unknown revision '9'")
    succeeds(run("up", "--accept-edited", "3", "--accept-edited", "004"), "No change")


def test_what_does_not_change_the_sql_is_no_change(run, project):
    path = project.add_revision(
        'op.execute("CREATE TABLE teams (id integer)")', "op.execute('DROP TABLE teams')", python=True
    )
    succeeds(run("up"))
    text = path.read_text()
    text = text.replace("def upgrade", "# A remark.\ndef upgrade").replace(
        "Revision ID", "Said of it\n\nRevision ID"
    )
    text = text.replace(
        '"CREATE TABLE teams (id integer)"', "'''\n    -- why\n    CREATE TABLE teams\n  (id integer)'''"
    )
    # The way back may be mended.
    path.write_text(text.replace("DROP TABLE teams", "DROP TABLE IF EXISTS teams"))
    succeeds(run("up"), "No change")
    succeeds(run("down"), "Rolled back 003")


READS = """
rows = op.get_bind().exec_driver_sql("SELECT count(*) FROM incidents").scalar()
op.execute(f"CREATE TABLE {name} (n integer DEFAULT {rows})")
"""


def test_a_revision_that_reads_from_the_database(migrated, run, project):
    """Its SQL is not known without one, so its Python counts; an older release did not record that."""
    path = project.add_revision(
        READS.replace("{name}", "teams"), "op.execute('DROP TABLE teams')", python=True
    )
    succeeds(run("up"))
    text = path.read_text()
    path.write_text(
        text.replace("def upgrade", "# A remark.\n\n\ndef upgrade").replace("scalar()", "scalar( )")
    )
    # As another version of Python would have rendered it.
    migrated.execute("UPDATE guvnor_migration_history SET checksum = 'other' WHERE revision = '003'")
    assert "changed after" not in succeeds(run("up"), "No change").out
    path.write_text(text.replace("TABLE teams (n", "TABLE others (n"))
    ends(run("down"), 5, CHANGED.format(name="test"))
    migrated.execute("ALTER TABLE guvnor_migration_history DROP COLUMN source, DROP COLUMN checkout")
    succeeds(run("up"), "No change", "the file of revision 003 was changed after it was applied")


def test_sql_that_is_another_one_each_time(run, project):
    path = project.add_revision(
        "import uuid\nop.execute(f\"CREATE TABLE teams (id text DEFAULT '{uuid.uuid4()}')\")",
        "op.execute('DROP TABLE teams')",
        python=True,
    )
    succeeds(run("up", "--no-verify"))
    succeeds(run("up"), "No change", "the SQL of revision 003 is another one than when it was applied")
    path.write_text(path.read_text().replace("TABLE teams (id", "TABLE others (id"))
    ends(run("up"), 5, CHANGED.format(name="test"))


@pytest.mark.usefixtures("other_branch")
@pytest.mark.parametrize("mover", ["force", "stamp", "golang-migrate"])
def test_what_no_file_applied_is_not_compared(migrated, guvnor, alembic, run, project, mover):
    """The version was moved over the revision by another tool, or by hand: nobody knows from which file."""
    here = {"database": migrated, "cwd": project.directory}
    if mover == "force":
        succeeds(guvnor("migrate", "force", "2", **here))
        succeeds(guvnor("migrate", "force", "3", **here))
    elif mover == "stamp":
        succeeds(alembic("stamp", "002", **here))
        succeeds(alembic("stamp", "003", **here))
    else:
        migrated.execute("DELETE FROM guvnor_migration_history WHERE revision = '003'")
    succeeds(run("up"), "No change: version 3")


MEANWHILE = """
    UPDATE alembic_version SET version_num = '003';
    UPDATE schema_migrations SET version = 3;
    INSERT INTO guvnor_migration_history
        (attempt, event, direction, revision, from_version, to_version, checksum, rendering, tool)
    SELECT gen_random_uuid(), event, 'up', '003', '002', '003', 'x', 2, 'guvnor 0.1.0'
    FROM unnest(ARRAY['started', 'succeeded']) AS event
"""
RUN_LOCK = 113754195783538


def test_a_run_that_waited_looks_again(migrated, guvnor, project):
    """Two branches deploy at once: the second one finds its number taken by the other's file."""
    project.add_revision(*REGIONS, name="regions")
    with migrated.connect() as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (RUN_LOCK,))
        process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
        assert any("waiting for another migration" in line for line in process.stderr)
        migrated.execute(MEANWHILE)
        cursor.execute("SELECT pg_advisory_unlock(%s)", (RUN_LOCK,))
        _, err = process.communicate(timeout=30)
    other.close()
    assert process.returncode == 5, err
    assert CHANGED.format(name="regions") in err
    assert migrated.execute("SELECT to_regclass('regions')") == [(None,)]


def test_a_database_ahead_of_other_files(run, other_branch, project):
    """A rolled-back application finds its own files; another branch's are refused."""
    other_branch.unlink()
    path = project.add_revision(*TEAMS, name="teams")
    last = project.add_revision("SELECT 1")
    succeeds(run("up"), "Applied 004")
    last.unlink()
    succeeds(run("up"), "ahead of the migration files")
    path.write_text(path.read_text().replace("TABLE teams", "TABLE others"))
    ends(run("up"), 5, CHANGED.format(name="teams"))


# Who applied it


def git(folder, *words):
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_git_names_the_commit_and_the_branch(migrated, run, repository):
    folder = repository.directory
    git(folder, "switch", "-c", "add-teams")
    repository.add_revision(*TEAMS, name="teams")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "teams")
    succeeds(run("up"))
    git(folder, "switch", "-c", "add-regions", "main")
    repository.add_revision(*REGIONS, name="regions")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "add-teams"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    refused = ends(run("down"), 5, f"Git has what was applied as 003_teams.py, in commit {commit}")
    assert ", on branch add-teams." in refused.err
    assert "from branch add-teams, commit " in refused.err
    first, *_ = next_step(refused)
    assert first == "git switch add-teams   # there, take it back: guvnor migrate down --to 002"
    (repository.versions / "003_regions.py").unlink()
    git(folder, *first.partition("   #")[0].split()[1:])
    succeeds(run("down", "--to", "002"), "Rolled back 003")
    assert versions(migrated) == AT_HEAD


def test_an_edit_on_the_same_branch_names_its_commit(run, repository):
    folder = repository.directory
    path = repository.add_revision(*TEAMS, name="teams")
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "teams")
    succeeds(run("up"))
    path.write_text(path.read_text().replace("TABLE teams", "TABLE others"))
    git(folder, "commit", "-am", "others")
    first, *_ = next_step(ends(run("up"), 5, "Git has what was applied as 003_teams.py"))
    assert first.startswith("git diff ")
