"""Does plain alembic work with the same settings, and leave the same state, as guvnor does?"""

from __future__ import annotations

import contextlib
import json
import subprocess

import psycopg2
import pytest

from guvnor.embedded import binaries
from tests.support import facts
from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, events, succeeds, tables, versions

HISTORY = """
    SELECT event, direction, revision, from_version, to_version, step, resumable, checksum,
           database_role, os_user, host, job, tries, sqlstate, error
    FROM guvnor_migration_history
    ORDER BY id
"""


def state(database):
    """All that the tools leave behind but times, sizes and their own names."""
    return versions(database), database.execute(HISTORY), tables(database)


def catalogs(database):
    with contextlib.closing(psycopg2.connect(database.dsn)) as connection:
        return facts.read(connection), facts.details(connection)


def test_both_leave_the_same_state(server, guvnor, alembic):
    ours, theirs = server.create_database(), server.create_database()
    for words, alembic_words in (
        (("up", "--to", "1"), ("upgrade", "001")),
        (("up",), ("upgrade", "head")),
        (("down",), ("downgrade", "-1")),
    ):
        succeeds(guvnor("migrate", *words, database=ours))
        result = succeeds(alembic(*alembic_words, database=theirs), "✅ Pre-flight checks passed")
        assert "✅ Migration completed: version" in result.out
        assert state(theirs) == state(ours)
    assert versions(theirs) == AT_1
    assert catalogs(theirs) == catalogs(ours)
    succeeds(guvnor("migrate", "down", "--to", "base", database=ours))
    succeeds(alembic("downgrade", "base", database=theirs))
    assert state(theirs) == state(ours)
    ((tool,),) = theirs.execute("SELECT DISTINCT tool FROM guvnor_migration_history")
    assert tool.startswith("alembic 1.")


def test_commands_that_look_change_nothing(database, migrated, alembic):
    before = state(migrated)
    assert succeeds(alembic("current", database=migrated)).out == "002 (head)\n"
    assert "001 -> 002 (head), add schedules" in succeeds(alembic("history", database=migrated)).out
    assert succeeds(alembic("check", database=migrated)).out == "No new upgrade operations detected.\n"
    assert succeeds(alembic("heads")).out == "002 (head)\n"
    assert state(migrated) == before
    assert succeeds(alembic("current", database=database)).out == ""
    assert tables(database) == []


def test_check_finds_a_difference(migrated, alembic):
    migrated.execute("ALTER TABLE incidents ADD COLUMN extra text")
    result = alembic("check", database=migrated)
    assert result.code == 255
    assert "('unexpected', 'column', 'incidents.extra'" in result.out + result.err


def test_check_sees_what_the_drift_check_sees(migrated, alembic, guvnor):
    migrated.execute("ALTER TABLE incidents DISABLE TRIGGER update_incidents_updated_at")
    migrated.execute("DROP INDEX idx_incidents_assignee_id")
    migrated.execute("CREATE INDEX idx_incidents_assignee_id ON incidents (assignee_id)")
    migrated.execute("ALTER TYPE channel_type ADD VALUE 'matrix'")
    found = json.loads(guvnor("schema", "check", "--against", "models", "--json", database=migrated).out)[
        "findings"
    ]
    result = alembic("check", database=migrated)
    assert result.code == 255
    assert len(found) == 3
    for finding in found:
        told = f"('{finding['change']}', '{finding['kind']}', '{finding['object']}'"
        assert told in result.out + result.err


def test_stamp_moves_the_version_alone(migrated, alembic):
    before = tables(migrated)
    succeeds(alembic("stamp", "001", database=migrated), "✅ Stamped 001", "version 1")
    assert versions(migrated) == AT_1
    assert events(migrated)[-2:] == [("started", "stamp", "001"), ("succeeded", "stamp", "001")]
    succeeds(alembic("stamp", "base", database=migrated))
    assert versions(migrated) == AT_BASE
    succeeds(alembic("stamp", "head", database=migrated))
    assert (versions(migrated), tables(migrated)) == (AT_HEAD, before)


def test_relative_and_unknown_targets(database, alembic):
    succeeds(alembic("upgrade", "+1", database=database), "completed: version 1")
    result = alembic("upgrade", "007", database=database)
    assert result.code == 255
    assert "Can't locate revision" in result.out + result.err
    assert versions(database) == AT_1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_revision_makes_the_next_number_in_the_house_template(project, alembic, elsewhere):
    where = ("-c", project.directory / "alembic.ini") if elsewhere else ()
    cwd = None if elsewhere else project.directory
    if elsewhere:  # the fixture would name the checkout's own
        alembic.directory.joinpath("alembic.ini").write_text("")
        cwd = alembic.directory
    succeeds(alembic(*where, "revision", "-m", "Add teams", cwd=cwd))
    text = (project.versions / "003_add_teams.py").read_text()
    assert text.startswith('"""Add teams\n\nRevision ID: 003\nRevises: 002\n"""\n\nfrom __future__')
    assert 'revision: str = "003"\ndown_revision: str | None = "002"\n' in text
    assert text.count('op.execute("""') == 2
    succeeds(alembic(*where, "revision", "-m", "more", cwd=cwd))
    assert (project.versions / "004_more.py").exists()
    for words in ((), ("-m", "Größe")):
        ends(alembic(*where, "revision", *words, cwd=cwd), 2, "cannot name a migration file")
    assert len(list(project.versions.glob("*.py"))) == 4


def test_autogenerate_writes_what_the_models_lack(migrated, project, alembic):
    project.add_revision("ALTER TABLE incidents ADD COLUMN extra text", name="extra")
    succeeds(alembic("upgrade", "head", database=migrated, cwd=project.directory))
    migrated.execute("ALTER TABLE incidents ADD COLUMN by_hand text")
    result = alembic("revision", "--autogenerate", "-m", "tidy", database=migrated, cwd=project.directory)
    succeeds(result)
    assert "Left out: column incidents.by_hand, which neither the models nor the revisions know" in result.err
    text = (project.versions / "004_tidy.py").read_text()
    assert 'op.execute("ALTER TABLE incidents DROP COLUMN IF EXISTS extra")' in text
    assert "by_hand" not in text
    assert "guvnor_migration_history" not in text


def psql(database, script):
    """Apply a script as somebody would who may not run this tool there."""
    return subprocess.run(
        [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", database.dsn],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


def applies(database, script):
    result = psql(database, script)
    assert result.returncode == 0, result.stderr


def test_the_script_for_psql_leaves_the_same_as_a_run(database, server, template_at_head, alembic, guvnor):
    up = succeeds(alembic("upgrade", "head", "--sql"))
    applies(database, up.out)
    online = server.create_database(template_at_head)
    assert catalogs(database) == catalogs(online)
    assert versions(database) == AT_HEAD
    assert events(database) == events(online)
    succeeds(guvnor("migrate", "preflight", database=database), "Database state is clean (version 2)")
    (entry,) = json.loads(succeeds(guvnor("migrate", "history", "--json", database=database)).out)[:1]
    assert (entry["direction"], entry["revision"], entry["outcome"]) == ("up", "001", "succeeded")

    applies(database, succeeds(alembic("downgrade", "002:001", "--sql")).out)
    succeeds(guvnor("migrate", "down", database=online))
    assert catalogs(database) == catalogs(online)
    assert versions(database) == AT_1
    assert events(database) == events(online)

    # And on from there, with either.
    applies(database, succeeds(alembic("upgrade", "001:head", "--sql")).out)
    assert versions(database) == AT_HEAD
    succeeds(guvnor("migrate", "down", database=database))
    applies(database, succeeds(alembic("downgrade", "001:base", "--sql")).out)
    assert versions(database) == AT_BASE
    succeeds(guvnor("migrate", "up", database=database))


def test_the_script_stops_where_the_database_is_at_another_version(database, migrated, alembic):
    script = succeeds(alembic("upgrade", "001:002", "--sql")).out
    before = state(migrated)
    result = psql(migrated, script)
    assert result.returncode != 0
    assert "this script starts from version 1, the database is at version 2" in result.stderr
    assert state(migrated) == before

    # golang-migrate has been here, and Alembic has not.
    database.execute(
        "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
    )
    database.execute("INSERT INTO schema_migrations VALUES (2, false)")
    assert (
        "the database is at version 2"
        in psql(database, succeeds(alembic("upgrade", "head", "--sql")).out).stderr
    )
    assert database.execute("TABLE schema_migrations") == [(2, False)]
    assert "incidents" not in tables(database)
