"""Is every state of a database told, and left alone where it needs a decision?"""

from __future__ import annotations

import json

import pytest

from tests.support.expect import AT_1, AT_HEAD, ends, events, succeeds, tables, versions

GOLANG = """
    CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL);
    INSERT INTO schema_migrations (version, dirty) VALUES ({}, {});
"""


def test_a_dirty_row_that_golang_migrate_left(at_version_1, guvnor, alembic):
    """It writes the target with dirty true before a file, and nothing else when the file fails."""
    at_version_1.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (2, true)")
    before = versions(at_version_1), events(at_version_1), tables(at_version_1)
    words = "Database is in dirty state at version 2."
    for command in (
        guvnor("migrate", "up", database=at_version_1),
        alembic("upgrade", "head", database=at_version_1),
    ):
        ends(command, 5, words, "golang-migrate left it", "guvnor migrate repair")
    ends(guvnor("migrate", "down", database=at_version_1), 5, words)
    ends(guvnor("migrate", "preflight", database=at_version_1), 5, "❌ Database is in dirty state")
    assert (versions(at_version_1), events(at_version_1), tables(at_version_1)) == before

    status = succeeds(guvnor("migrate", "status", database=at_version_1))
    assert status.out.startswith("Migration Status: Version 2 (DIRTY - needs manual intervention)\n")
    assert "⚠️  WARNING: Database is in dirty state.\n   This usually means a migration failed" in status.out
    assert "   Manual intervention may be required to fix the issue.\n" in status.out
    found = json.loads(
        ends(guvnor("migrate", "status", "--json", "--exit-code", database=at_version_1), 5).out
    )
    assert (found["dirty"], found["resumable"], found["golang_migrate_version"]) == (True, False, 2)

    succeeds(guvnor("migrate", "force", "1", database=at_version_1))
    succeeds(guvnor("migrate", "up", database=at_version_1))
    assert versions(at_version_1) == AT_HEAD


def test_on_the_way_to_no_version(at_version_1, guvnor):
    """golang-migrate writes -1 before it runs the last file down."""
    at_version_1.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (-1, true)")
    ends(guvnor("migrate", "down", database=at_version_1), 5, "dirty state at version 0")
    status = succeeds(guvnor("migrate", "status", database=at_version_1))
    assert status.out.startswith("Migration Status: Version 0 (DIRTY - needs manual intervention)\n")
    succeeds(guvnor("migrate", "force", "base", database=at_version_1))
    assert versions(at_version_1) == ([], [])


@pytest.mark.parametrize("dirty", ["false", "true"])
def test_a_database_that_only_golang_migrate_has_migrated(database, guvnor, alembic, dirty):
    database.execute(GOLANG.format(2, dirty))
    before = tables(database), database.execute("TABLE schema_migrations")
    word = (
        "Database is in dirty state"
        if dirty == "true"
        else "golang-migrate brought this database to version 2"
    )
    for result in (
        guvnor("migrate", "up", database=database),
        guvnor("migrate", "down", database=database),
        alembic("upgrade", "head", database=database),
        alembic("stamp", "head", database=database),
    ):
        ends(result, 5, word)
    assert (
        (tables(database), database.execute("TABLE schema_migrations"))
        == before
        == (
            ["schema_migrations"],
            [(2, dirty == "true")],
        )
    )
    ends(guvnor("migrate", "status", "--exit-code", database=database), 5, "Migration Status: Version 2")


def test_an_empty_table_of_golang_migrate_is_an_empty_database(database, guvnor):
    database.execute(GOLANG.format(2, "false") + "TRUNCATE schema_migrations")
    succeeds(guvnor("migrate", "status", database=database), "No migrations applied (empty database)")
    succeeds(guvnor("migrate", "up", database=database))
    assert versions(database) == AT_HEAD


@pytest.mark.parametrize(
    ("move", "word", "force"),
    [
        (
            "TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (1, false)",
            "golang-migrate",
            "1",
        ),
        ("UPDATE alembic_version SET version_num = '001'", "Alembic", "1"),
        ("TRUNCATE schema_migrations", "it is unknown which tool moved last", "2"),
        ("DROP TABLE schema_migrations", "it is unknown which tool moved last", "2"),
    ],
)
def test_tables_that_disagree_need_a_decision(migrated, guvnor, move, word, force):
    migrated.execute(move)
    before = tables(migrated), events(migrated)
    result = ends(guvnor("migrate", "up", database=migrated), 5, "The version tables disagree", word)
    assert f"guvnor migrate force {force} " in result.err
    assert (tables(migrated), events(migrated)) == before
    status = ends(guvnor("migrate", "status", "--exit-code", database=migrated), 5)
    assert "The version tables disagree" in status.out
    succeeds(guvnor("migrate", "force", force, database=migrated))
    succeeds(guvnor("migrate", "preflight", database=migrated))


def test_a_database_ahead_of_the_files_is_left_alone(migrated, project, guvnor, alembic):
    """The application was rolled back, and its migrations with it."""
    (project.versions / "002_add_schedules.py").unlink()
    here = {"database": migrated, "cwd": project.directory}
    before = versions(migrated), events(migrated), tables(migrated)
    up = succeeds(guvnor("migrate", "up", **here), "1 migration found, version 2")
    assert (up.out + up.err).count("ahead of the migration files") == 1
    assert "⚠️  WARNING: the database is at version 2, ahead of the migration files (newest: 001)." in up.out
    succeeds(alembic("upgrade", "head", **here), "ahead of the migration files")
    ends(guvnor("migrate", "up", "--strict", **here), 5, "ahead of the migration files (newest: 001)")
    ends(guvnor("migrate", "down", **here), 5, "ahead of the migration files", "guvnor migrate history")
    succeeds(guvnor("migrate", "plan", **here), "Nothing to do: the database is at version 002")
    ends(guvnor("migrate", "plan", "down", **here), 5, "ahead of the migration files")
    succeeds(guvnor("migrate", "deploy", "--dry-run", **here), "Dry run: 0 revisions would be applied")
    assert (versions(migrated), events(migrated), tables(migrated)) == before
    status = succeeds(guvnor("migrate", "status", "--exit-code", **here), "ahead of the migration files")
    assert "Pending Migrations: none" in status.out


def test_an_unknown_revision_in_the_database(migrated, guvnor, alembic):
    migrated.execute("UPDATE alembic_version SET version_num = 'ab12cd'")
    for result in (guvnor("migrate", "up", database=migrated), alembic("upgrade", "head", database=migrated)):
        ends(result, 5, "at revision ab12cd, which is not among the migration files (001 to 002)")
    migrated.execute("INSERT INTO alembic_version VALUES ('002')")
    ends(guvnor("migrate", "up", database=migrated), 5, "several revisions (002, ab12cd)")
    ends(guvnor("migrate", "status", "--exit-code", database=migrated), 5, "several revisions")
    succeeds(guvnor("migrate", "force", "2", database=migrated))
    assert versions(migrated) == AT_HEAD


def test_a_failing_revision_leaves_the_previous_version_and_nothing_else(at_version_1, project, guvnor):
    project.add_revision("CREATE TABLE third ()", "DROP TABLE third")
    project.add_revision(
        "op.execute('CREATE TABLE fourth ()')\nop.execute('INSERT INTO nowhere VALUES (1)')",
        "op.execute('DROP TABLE fourth')",
        python=True,
        name="broken",
    )
    here = {"database": at_version_1, "cwd": project.directory}
    result = ends(guvnor("migrate", "up", **here), 1, 'relation "nowhere" does not exist (SQLSTATE 42P01)')
    assert "Revision 004 (Broken.) failed going up" in result.err
    assert "rolled back; the database is as it was before it (version 3)" in result.err
    assert "INSERT INTO nowhere" in result.err
    assert versions(at_version_1) == (["003"], [(3, False)])
    assert "third" in tables(at_version_1)
    assert "fourth" not in tables(at_version_1)
    assert events(at_version_1)[-2:] == [("started", "up", "004"), ("failed", "up", "004")]
    ((sqlstate, error),) = at_version_1.execute(
        "SELECT sqlstate, error FROM guvnor_migration_history WHERE event = 'failed'"
    )
    assert sqlstate == "42P01"
    assert "nowhere" in error

    # The same again, and then it works.
    ends(guvnor("migrate", "up", **here), 1)
    at_version_1.execute("CREATE TABLE nowhere (a integer)")
    succeeds(guvnor("migrate", "up", **here), "completed: version 4")
    ends(guvnor("migrate", "up", "--to", "5", **here), 2)


@pytest.mark.parametrize("body", ["raise ValueError('no good')", "op.execute('SELECT 1'); nothing()"])
def test_a_revision_whose_code_fails(at_version_1, project, guvnor, body):
    project.add_revision(body, "op.execute('SELECT 1')", python=True)
    (project.versions / "002_add_schedules.py").unlink()
    (project.versions / "003_test.py").unlink()
    project.add_revision(f"op.execute('CREATE TABLE t ()')\n{body}", "op.execute('SELECT 1')", python=True)
    result = guvnor("migrate", "up", database=at_version_1, cwd=project.directory)
    ends(result, 1, "Revision 002 (Test.) failed going up", "database is as it was before it (version 1)")
    assert versions(at_version_1) == AT_1
    assert "t" not in tables(at_version_1)


def test_a_newer_layout_of_the_history_is_for_newer_tools(migrated, guvnor, alembic):
    migrated.execute(
        """
        COMMENT ON TABLE guvnor_migration_history IS 'layout 99';
        ALTER TABLE guvnor_migration_history RENAME COLUMN event TO what;
        """
    )
    for result in (
        guvnor("migrate", "up", database=migrated),
        guvnor("migrate", "status", database=migrated),
        guvnor("migrate", "history", database=migrated),
        guvnor("migrate", "force", "1", database=migrated),
        guvnor("db", "mark", database=migrated),
        alembic("upgrade", "head", database=migrated),
    ):
        ends(result, 5, "A newer release of guvnor", "layout 99")
    assert versions(migrated) == AT_HEAD


def test_the_events_of_a_run(at_version_1, guvnor):
    succeeds(guvnor("migrate", "up", database=at_version_1))
    found = at_version_1.execute(
        """
        SELECT event, from_version, to_version, database_bytes > 0, duration_ms >= 0, tries
        FROM guvnor_migration_history
        WHERE revision = '002' AND event <> 'online'
        ORDER BY id
        """
    )
    assert found == [
        ("started", "001", "002", True, None, None),
        ("succeeded", "001", "002", None, True, 1),
        ("measured", "001", "002", True, None, None),
    ]
    ((attempts, roles),) = at_version_1.execute(
        "SELECT count(DISTINCT attempt), count(*) FILTER (WHERE database_role = current_user AND host <> '') "
        "FROM guvnor_migration_history WHERE revision = '002' AND event <> 'online'"
    )
    assert (attempts, roles) == (1, 3)
