"""Where golang-migrate, or another tool, has been at the database: is each state told, with the way out?"""

from __future__ import annotations

import pytest

from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, events, next_step, succeeds, tables, versions
from tests.support.golang import Golang, Imitation, our_statements
from tests.support.observe import running
from tests.support.server import run

UP, DOWN = 0, 1


def moved_by_golang(database, version, *statements):
    other = Imitation(database)
    for sql in statements:
        other.run(sql)
    other.write(version)
    other.end()


def differs(result, finding):
    """Expect a report of drift with a finding."""
    assert result.code == 6, result
    assert finding in result.out, result
    return result


# -- it has rolled back everything --


@pytest.fixture
def rolled_back(migrated):
    """A database from which golang-migrate has taken everything."""
    moved_by_golang(migrated, None, our_statements()[1][DOWN], our_statements()[0][DOWN])
    return migrated


def test_an_empty_schema_is_adopted(rolled_back, guvnor):
    refused = ends(guvnor("migrate", "up", database=rolled_back), 5, "The version tables disagree")
    commands = [line.partition("   #")[0] for line in next_step(refused)]
    assert commands == ["guvnor migrate adopt", "guvnor migrate force base", "guvnor migrate force 2"]
    succeeds(
        guvnor("migrate", "adopt", database=rolled_back),
        "Adopted as a database with no migrations applied; the schema was not changed",
    )
    assert versions(rolled_back) == AT_BASE
    succeeds(guvnor("schema", "check", database=rolled_back), "No drift")
    succeeds(guvnor("migrate", "up", database=rolled_back), "Migration completed: version 2")


def test_an_empty_schema_is_adopted_where_it_is_named(rolled_back, guvnor):
    ends(guvnor("migrate", "adopt", "--at", "2", database=rolled_back), 6, "is missing")
    succeeds(guvnor("migrate", "adopt", "--at", "base", database=rolled_back), "no migrations applied")
    assert versions(rolled_back) == AT_BASE


def test_of_two_schemas_that_differ_the_nearer_one_is_shown(rolled_back, guvnor):
    rolled_back.execute("CREATE TABLE left_over ()")
    shown = ends(guvnor("migrate", "adopt", database=rolled_back), 6, "table left_over is unexpected")
    assert "1 place" in shown.err
    accepted = guvnor("migrate", "adopt", "--accept-drift", database=rolled_back)
    assert accepted.code == 0, accepted
    assert "Adopted as a database with no migrations applied" in accepted.out
    assert versions(rolled_back) == AT_BASE


def test_a_lost_row_is_written_again(migrated, guvnor):
    """The table was emptied, but the schema is there."""
    migrated.execute("TRUNCATE schema_migrations")
    succeeds(guvnor("migrate", "adopt", database=migrated), "Adopted at version 2")
    assert versions(migrated) == AT_HEAD


def test_a_database_that_only_it_has_migrated_is_never_taken_for_an_empty_one(database, guvnor):
    moved_by_golang(database, 2)
    ends(guvnor("migrate", "adopt", database=database), 6, "not that of revision 002")
    assert tables(database) == ["schema_migrations"]


def test_the_real_one_rolls_back_everything(migrated, guvnor, golang: Golang):
    golang.use_our_statements()
    golang(migrated, "down", "-all")
    assert versions(migrated) == (["002"], [])
    succeeds(guvnor("migrate", "adopt", database=migrated), "no migrations applied")
    succeeds(guvnor("migrate", "up", database=migrated))
    assert golang(migrated, "version") == "2"


# -- it is ahead of the migration files --


def test_a_version_that_our_files_do_not_know(migrated, guvnor, alembic):
    moved_by_golang(migrated, 3, "CREATE TABLE theirs (id integer)")
    before = versions(migrated), events(migrated), tables(migrated)
    ahead = "the database is at version 3, ahead of the migration files (newest: 002)"
    succeeds(guvnor("migrate", "up", database=migrated), f"⚠️  WARNING: {ahead}. Nothing was done.")
    succeeds(alembic("upgrade", "head", database=migrated), ahead)
    succeeds(
        guvnor("migrate", "deploy", database=migrated), "Nothing to deploy: the database is at version 3"
    )
    succeeds(guvnor("migrate", "plan", database=migrated), "Nothing to do: the database is at version 003")
    for command in (
        ("migrate", "up", "--strict"),
        ("migrate", "down"),
        ("migrate", "adopt"),
        ("migrate", "adopt", "--accept-drift"),
        ("migrate", "adopt", "--at", "2"),
        ("schema", "check"),
    ):
        refused = ends(guvnor(*command, database=migrated), 5, ahead[4:], "alembic_version says 002")
        assert "force" not in refused.err
        assert "DROP" not in refused.out
    shown = succeeds(guvnor("migrate", "status", database=migrated), "Migration Status: Version 3")
    assert "ahead of the migration files (newest: 002). golang-migrate moved it there" in shown.out
    assert "Pending Migrations: none" in shown.out
    assert "disagree" not in shown.out
    assert (versions(migrated), events(migrated), tables(migrated)) == before
    succeeds(guvnor("migrate", "force", "2", database=migrated))
    assert versions(migrated) == AT_HEAD


def test_a_version_that_our_files_do_not_know_and_that_only_it_has_recorded(database, guvnor):
    moved_by_golang(database, 3)
    succeeds(guvnor("migrate", "up", database=database), "at version 3, ahead of the migration files")
    ends(guvnor("migrate", "adopt", database=database), 5, "alembic_version says nothing applied")
    assert tables(database) == ["schema_migrations"]


def test_force_is_offered_only_where_it_is_accepted(migrated, guvnor):
    """Both are ahead of the files, and disagree."""
    migrated.execute(
        "UPDATE alembic_version SET version_num = '005'; UPDATE schema_migrations SET version = 4"
    )
    refused = ends(guvnor("migrate", "up", database=migrated), 5, "The version tables disagree")
    assert "force" not in refused.err
    ends(guvnor("migrate", "adopt", database=migrated), 5, "ahead of the migration files")
    assert versions(migrated) == (["005"], [(4, False)])


# -- a role that does not own the schema --


@pytest.fixture
def granted(server, database):
    """The role of the README: it may use the schema and create in it, as pre-flight demands."""
    role = server.create_role()
    database.execute(f'GRANT CREATE ON DATABASE "{database.name}" TO "{role.name}"')
    database.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role.name}"')
    return role


def test_what_preflight_demands_is_no_drift(database, guvnor, granted):
    dsn = database.dsn_with(granted)
    succeeds(guvnor("migrate", "up", database=dsn))
    succeeds(guvnor("schema", "check", database=dsn), "No drift")
    succeeds(guvnor("schema", "check", database=database), "No drift")  # whoever looks
    database.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (1, false)")
    succeeds(guvnor("migrate", "adopt", database=dsn), "Adopted at version 2")


def test_what_preflight_demands_may_come_from_a_group(server, database, guvnor, granted):
    group = server.create_role()
    database.execute(f'REVOKE ALL ON SCHEMA public FROM "{granted.name}"')
    database.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{group.name}"')
    database.execute(f'GRANT "{group.name}" TO "{granted.name}"')
    dsn = database.dsn_with(granted)
    succeeds(guvnor("migrate", "up", database=dsn))
    succeeds(guvnor("schema", "check", database=dsn), "No drift")


def test_nobody_is_told_to_revoke_their_own_rights(server, database, guvnor, granted):
    dsn = database.dsn_with(granted)
    succeeds(guvnor("migrate", "up", database=dsn))
    other = server.create_role()
    database.execute(
        f'GRANT CREATE ON SCHEMA public TO "{other.name}"; '
        f'GRANT CREATE ON SCHEMA public TO "{granted.name}" WITH GRANT OPTION'
    )
    shown = differs(guvnor("schema", "check", database=dsn), "privilege schema public is unexpected")
    assert f"REVOKE CREATE ON SCHEMA public FROM {other.name};" in shown.out
    assert f"FROM {granted.name}" not in shown.out
    assert "schema.grantees" in shown.out


def test_nobody_is_told_to_revoke_what_they_have_through_public(database, guvnor, granted):
    database.execute(f'REVOKE ALL ON SCHEMA public FROM "{granted.name}"')
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    dsn = database.dsn_with(granted)
    succeeds(guvnor("migrate", "up", database=dsn))
    assert "REVOKE" not in guvnor("schema", "check", database=dsn).out


# -- what is in the database is read before anything is said of it --


def test_a_dirty_row_says_nothing_of_the_schema(at_version_1, guvnor):
    """Its file has committed its first half (x-multi-statement)."""
    other = Imitation(at_version_1)
    other.write(2, dirty=True)
    other.run("CREATE TABLE audit_logs ()")
    other.end()
    refused = ends(guvnor("migrate", "up", database=at_version_1), 5, "golang-migrate left it")
    assert "as a whole or not at all" not in refused.err
    assert "Of revision 002:" in refused.err
    assert "missing: " in refused.err


@pytest.mark.parametrize("forced", [1, 2])
def test_a_force_of_theirs_in_our_online_step(at_version_1, guvnor, forced):
    """All of the revision is there but for its version; nothing was rolled back."""
    fill(at_version_1)
    snapshot = at_version_1.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
    process = guvnor.start("migrate", "up", database=at_version_1)
    running(at_version_1, "CREATE INDEX CONCURRENTLY")
    moved_by_golang(at_version_1, forced)
    run(snapshot, "ROLLBACK")
    out, err = process.communicate(timeout=30)
    if forced == 1:  # the version that the revision starts from
        assert process.returncode == 0, out + err
        assert versions(at_version_1) == AT_HEAD
        return
    assert process.returncode == 5, out + err
    assert "rolled back" not in err
    assert "What came before the online part of revision 002 is committed." in err
    assert "Of revision 002:\n     in place: " in err
    assert "missing" not in err
    assert "   Next:  guvnor migrate adopt" in err
    succeeds(guvnor("migrate", "adopt", database=at_version_1), "Adopted at version 2")


def fill(database):
    """Fill incidents, so that its index is built outside of the revision's transaction."""
    database.execute(
        "INSERT INTO incidents (title, status, severity, team_id) "
        "SELECT repeat('x', 200), 'triggered', 'low', 'a' FROM generate_series(1, 5000)"
    )


# -- the comparison, where the version is in dispute --


def test_the_drift_check_says_first_that_the_tables_disagree(migrated, guvnor):
    migrated.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (1, false)")
    refused = ends(guvnor("schema", "check", database=migrated), 5, "The version tables disagree")
    assert next_step(refused)[0].startswith("guvnor migrate adopt ")
    assert refused.out == ""


def test_the_extensions_that_stay_are_no_drift(migrated, guvnor):
    succeeds(guvnor("migrate", "down", "--to", "base", database=migrated))
    succeeds(guvnor("schema", "check", database=migrated), "No drift", "matches an empty database")
    migrated.execute("CREATE TABLE left_over ()")
    differs(guvnor("schema", "check", database=migrated), "table left_over is unexpected")


# -- words --


def test_a_stopped_rollback_is_not_taken_for_done(migrated, guvnor):
    """Everything of 002 is in place, so it is still at version 2: going back is the way, not as it is."""
    migrated.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (1, true)")
    shown = ends(guvnor("migrate", "repair", database=migrated), 5, "in place: ")
    (as_is,) = [line for line in shown.out.splitlines() if "--as-is" in line]
    assert "when everything of revision 002 is missing" in as_is
    (back,) = [line for line in shown.out.splitlines() if "--back" in line]
    assert "when everything of revision 002 is in place" in back
    assert "None" not in shown.out + shown.err
    succeeds(guvnor("migrate", "repair", "--back", database=migrated))
    assert versions(migrated) == AT_HEAD


# -- a table of another tool --

RAILS = "CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY)"
DBMATE = "CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)"


@pytest.mark.parametrize("table", [RAILS, DBMATE], ids=["Rails", "dbmate"])
def test_a_table_of_another_tool_is_named_by_every_command(server, database, guvnor, alembic, table):
    owner = server.create_role()
    database.execute(f"{table}; INSERT INTO schema_migrations VALUES ('20240101120000')")
    database.execute(f'ALTER TABLE schema_migrations OWNER TO "{owner.name}"')
    for words in (
        ("migrate", "up"), ("migrate", "down"), ("migrate", "status"), ("migrate", "preflight"),
        ("migrate", "plan"), ("migrate", "repair"), ("migrate", "force", "1"), ("migrate", "adopt"),
        ("migrate", "adopt", "--at", "1"), ("migrate", "deploy"), ("schema", "check"), ("db", "mark"),
    ):  # fmt: skip
        refused = ends(guvnor(*words, database=database), 5, "schema_migrations in schema public belongs to")
        assert "version character varying" in refused.err, words
    ends(alembic("upgrade", "head", database=database), 5, "belongs to another tool")
    assert database.execute("TABLE schema_migrations") == [("20240101120000",)]
    assert tables(database) == ["schema_migrations"]
    rename = next_step(refused)[-1].partition("   --")[0]
    database.execute(rename)
    succeeds(guvnor("migrate", "up", database=database))
    assert versions(database) == AT_HEAD


def test_a_table_of_another_tool_keeps_its_grants(server, database, guvnor):
    """Where another tool's table has come beside our own tables, nothing of it is changed or revoked."""
    reader = server.create_role()
    database.execute(f'{RAILS}; GRANT INSERT ON schema_migrations TO "{reader.name}"')
    ends(guvnor("db", "mark", database=database), 5, "belongs to another tool")
    assert database.execute(
        "SELECT has_table_privilege(%s, 'schema_migrations', 'INSERT')", [reader.name]
    ) == [(True,)]


def test_a_version_table_at_version_1_is_left(at_version_1, guvnor):
    succeeds(guvnor("migrate", "adopt", database=at_version_1), "Nothing to adopt")
    assert versions(at_version_1) == AT_1
