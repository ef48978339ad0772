"""Does every end of a run leave a state from which the next one, of whatever kind, does the right thing?"""

from __future__ import annotations

import pytest

from tests.support.expect import AT_HEAD, ends, succeeds, versions

ONLINE = """
op.execute("CREATE TABLE IF NOT EXISTS t3 (i integer)")
op.create_index_concurrently("i3", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (i)")
"""
ONLINE_DOWN = 'op.execute("DROP TABLE IF EXISTS t3")'


@pytest.fixture
def half_done(guvnor, project, migrated):
    """A database in which revision 003 stopped at its index build: the rows are not unique."""
    project.add_revision(ONLINE, ONLINE_DOWN, python=True)
    migrated.execute("CREATE TABLE t3 (i integer); INSERT INTO t3 VALUES (1), (1)")
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1, "23505", "half done", "i3")
    assert versions(migrated) == (["002"], [(3, True)])
    return migrated


def test_a_second_failure_before_the_online_step_keeps_it_resumable(guvnor, project, half_done):
    half_done.execute("DELETE FROM t3 WHERE ctid = (SELECT min(ctid) FROM t3)")
    with half_done.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE alembic_version IN SHARE MODE")
        blocked = guvnor("migrate", "up", "--max-wait", "300ms", database=half_done, cwd=project.directory)
        cursor.execute("ROLLBACK")
    blocker.close()
    ends(blocked, 7, "the next run finishes the revision")
    assert versions(half_done) == (["002"], [(3, True)])
    succeeds(guvnor("migrate", "up", database=half_done, cwd=project.directory), "Applied 003")
    assert versions(half_done) == (["003"], [(3, False)])


def test_a_killed_second_attempt_keeps_it_resumable(guvnor, project, half_done):
    half_done.execute("DELETE FROM t3 WHERE ctid = (SELECT min(ctid) FROM t3)")
    half_done.execute(
        """
        INSERT INTO guvnor_migration_history
            (attempt, event, direction, revision, from_version, to_version, tool)
        VALUES (gen_random_uuid(), 'started', 'up', '003', '002', '003', 'killed before an online step')
        """
    )
    succeeds(guvnor("migrate", "up", database=half_done, cwd=project.directory), "Applied 003")
    assert versions(half_done) == (["003"], [(3, False)])


def test_stamp_runs_nothing_on_a_half_done_database(alembic, project, half_done):
    ends(alembic("stamp", "002", database=half_done, cwd=project.directory), 5, "guvnor migrate repair")
    assert versions(half_done) == (["002"], [(3, True)])
    assert half_done.execute("SELECT count(*) FROM t3") == [(2,)]


def test_up_does_not_pass_its_target(guvnor, project, half_done):
    half_done.execute("DELETE FROM t3 WHERE ctid = (SELECT min(ctid) FROM t3)")
    ends(
        guvnor("migrate", "up", "--to", "2", database=half_done, cwd=project.directory),
        5,
        "guvnor migrate repair",
    )
    assert versions(half_done) == (["002"], [(3, True)])


@pytest.mark.parametrize("arguments", [("up",), ("down",), ("down", "--to", "1")])
def test_a_release_that_does_not_know_the_half_done_revision_leaves_it_alone(guvnor, half_done, arguments):
    """The application was rolled back while its migration was half done."""
    ends(
        guvnor("migrate", *arguments, database=half_done),
        5,
        "Revision 003 (up) was started",
        "The migration files do not know that version (newest: 002)",
        "guvnor migrate history",
        "guvnor migrate force 2",
    )
    assert versions(half_done) == (["002"], [(3, True)])
    shown = succeeds(guvnor("migrate", "status", database=half_done))
    assert "finishes it" not in shown.plain
    succeeds(guvnor("migrate", "force", "2", database=half_done))
    succeeds(guvnor("migrate", "up", database=half_done))


def test_repair_takes_one_way_at_a_time(guvnor, project, half_done):
    words = ("migrate", "repair", "--forward", "--back")
    ends(
        guvnor(*words, database=half_done, cwd=project.directory),
        2,
        "--forward and --back exclude each other",
    )
    assert versions(half_done) == (["002"], [(3, True)])


def test_repair_goes_back_from_a_half_done_revision(guvnor, project, half_done):
    ends(guvnor("migrate", "repair", database=half_done, cwd=project.directory), 5, "--back", "revision 003")
    succeeds(
        guvnor("migrate", "repair", "--back", database=half_done, cwd=project.directory), "Rolled back 003"
    )
    assert versions(half_done) == AT_HEAD
    assert half_done.execute("SELECT to_regclass('t3')") == [(None,)]


def test_repair_when_golang_migrate_was_rolling_back_the_first_revision(guvnor, project, database):
    database.execute(
        """
        CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);
        INSERT INTO schema_migrations VALUES (-1, true)
        """
    )
    shown = ends(guvnor("migrate", "repair", database=database, cwd=project.directory), 5)
    assert "--forward  runs revision 001 down again" in shown.plain
    assert "--back     runs revision 001 up, all of it, and ends at version 1" in shown.plain
    succeeds(guvnor("migrate", "repair", "--forward", database=database, cwd=project.directory))
    assert versions(database) == ([], [])


@pytest.mark.parametrize("status", [0, 3])
def test_a_revision_that_leaves_the_process_has_failed(guvnor, project, migrated, status):
    project.add_revision(f'op.execute("SELECT 1")\nraise SystemExit({status})', ONLINE_DOWN, python=True)
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1, "SystemExit", "version 2")
    planned = succeeds(guvnor("migrate", "plan", database=migrated, cwd=project.directory))
    assert "revision 003 failed: SystemExit" in planned.plain
    assert versions(migrated) == AT_HEAD


@pytest.mark.parametrize(
    "body",
    [
        'run("COMMIT")',
        'run("COMMIT")\nop.execute("SELECT 1 / 0")',
        'run("CREATE TABLE t5 (i integer); COMMIT")\nraise ValueError("of its own")',
        'run("COMMIT")\nop.execute("CREATE TABLE t4 (i integer)")',
    ],
)
def test_a_revision_that_commits_by_itself_is_half_done(guvnor, project, migrated, body):
    """Its transaction is gone, so what comes next would be committed bit by bit, and no failure undone."""
    down = 'op.execute("DROP TABLE IF EXISTS t3, t4, t5")'
    # The driver's own cursor: what passes through Alembic is refused before it is run.
    run = "run = op.get_bind().connection.cursor().execute"
    body = f'op.execute("CREATE TABLE t3 (i integer)")\n{run}\n{body}'
    project.add_revision(body, down, python=True)
    failed = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(failed, 1, "ended its transaction by itself", "half done", "guvnor migrate repair")
    assert versions(migrated) == (["002"], [(3, True)])
    assert migrated.execute("SELECT to_regclass('t4')") == [(None,)]
    ends(
        guvnor("migrate", "up", database=migrated, cwd=project.directory), 5, "Revision 003 (up) was started"
    )
    succeeds(
        guvnor("migrate", "repair", "--back", database=migrated, cwd=project.directory), "Rolled back 003"
    )
    assert versions(migrated) == AT_HEAD
    assert migrated.execute("SELECT to_regclass('t3')") == [(None,)]


@pytest.mark.parametrize(
    ("end", "after", "again"), [("rollback", AT_HEAD, "up"), ("commit", (["002"], [(3, True)]), "repair")]
)
def test_a_revision_that_ends_its_transaction_by_python_has_failed(
    guvnor, project, migrated, end, after, again
):
    """Alembic commits the transaction that it began, which is gone, and says nothing."""
    body = f'op.execute("CREATE TABLE t3 (i integer)")\nop.get_bind().{end}()\nop.execute("SELECT 1")'
    project.add_revision(body, 'op.execute("DROP TABLE IF EXISTS t3")', python=True)
    failed = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(failed, 1, "ended its transaction by itself", f"Next:  guvnor migrate {again}")
    assert versions(migrated) == after


@pytest.mark.parametrize("way", ["--back", "--forward"])
def test_a_repair_that_fails_is_not_taken_for_the_work_of_golang_migrate(guvnor, project, migrated, way):
    project.add_revision(
        'with op.get_context().autocommit_block():\n    op.execute("SELECT 1 / 0")',
        'op.execute("SELECT 1 / 0")',
        python=True,
    )
    migrated.execute("UPDATE schema_migrations SET version = 3, dirty = true")  # this is its work
    refused = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(refused, 5, "golang-migrate left it")
    failed = guvnor("migrate", "repair", way, database=migrated, cwd=project.directory)
    ends(failed, 1, "22012", "half done", "guvnor migrate repair")
    refused = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(refused, 5, "Revision 003", "failed at the step", "guvnor migrate repair")
    assert "golang-migrate left it" not in refused.err
    ends(guvnor("migrate", "repair", database=migrated, cwd=project.directory), 5, "--back", "--forward")


def test_the_next_command_fits_what_happened(guvnor, project, migrated):
    project.add_revision(
        'with op.get_context().autocommit_block():\n    op.execute("SELECT 1 / 0")',
        'op.execute("SELECT 1 / 0")',
        python=True,
    )
    failed = ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1, "22012")
    assert "guvnor migrate repair" in failed.err
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 5)
    succeeds(guvnor("migrate", "force", "3", database=migrated, cwd=project.directory))
    failed = ends(
        guvnor("migrate", "down", database=migrated, cwd=project.directory), 1, "22012", "(version 3)"
    )
    assert "guvnor migrate down" in failed.err


def test_what_a_revision_sets_ends_with_it(guvnor, project, migrated, server):
    other = server.create_role("SUPERUSER")
    project.add_revision(
        f"SET lock_timeout = '300ms'; SET session_replication_role = replica; SET ROLE {other.name}",
        name="sets",
    )
    project.add_revision(
        """
        DO $$
        BEGIN
            IF current_setting('search_path') <> 'public' THEN
                RAISE EXCEPTION 'search_path is %', current_setting('search_path');
            END IF;
            IF current_setting('session_replication_role') <> 'origin' THEN
                RAISE EXCEPTION 'triggers are off';
            END IF;
            IF current_user <> session_user THEN
                RAISE EXCEPTION 'the role is %', current_user;
            END IF;
        END
        $$
        """,
        name="looks",
    )
    project.add_revision("SELECT set_config('search_path', '', false)", name="clears", number=5)
    project.add_revision(
        "CREATE TABLE found_public (i integer)", "DROP TABLE found_public", name="last", number=6
    )
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory), "Applied 006")
    assert migrated.execute("SELECT to_regclass('public.found_public')::text") == [("found_public",)]


def test_text_that_the_client_encoding_lacks(guvnor, project, migrated):
    project.add_revision("SELECT 'a → b'::integer")
    latin = {"PGCLIENTENCODING": "LATIN1"}
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory, env=latin), 1, "22P02", "a → b")
