"""What a revision leaves in its session does not reach the next revision, another try, or the shadow."""

from __future__ import annotations

from tests.support.expect import succeeds
from tests.support.forked import ForkedCommand
from tests.support.project import Project
from tests.support.server import Database, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back

LEAVES = """
    CREATE TEMP TABLE notes AS SELECT 1 AS i;
    PREPARE plan AS SELECT 1;
    DECLARE c CURSOR WITH HOLD FOR SELECT 1;
    LISTEN channel;
    SELECT pg_advisory_lock(4711);
    SET work_mem = '1MB'
"""
LOOKS = """
    DO $$
    BEGIN
        IF to_regclass('pg_temp.notes') IS NOT NULL
           OR EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'plan')
           OR EXISTS (SELECT FROM pg_cursors WHERE name = 'c')
           OR EXISTS (SELECT FROM pg_listening_channels())
           OR EXISTS (SELECT FROM pg_locks
                      WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 4711)
           OR current_setting('work_mem') = '1MB'
        THEN
            RAISE EXCEPTION 'something is left';
        END IF;
    END
    $$
"""


def test_a_temporary_table_does_not_hide_a_table_from_the_next_revision(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision("CREATE TEMP TABLE schedules AS SELECT * FROM incidents", name="keeps")
    project.add_revision("ALTER TABLE schedules ADD COLUMN extra text", name="alters")
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory), "Applied 004")
    assert migrated.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'schedules'::regclass AND attname = 'extra'"
    ) == [("extra",)]
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))


def test_the_session_is_as_new_for_each_revision(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(LEAVES, name="leaves")
    project.add_revision(LOOKS, name="looks")
    project.add_revision(LEAVES, name="again", number=5)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory), "Applied 005")
    # In the shadow, which the check builds, they run in one transaction.
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))


def test_in_the_shadow_python_finds_the_session_as_new(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    asks = "op.get_bind().exec_driver_sql('SELECT 1').scalar()\n"  # so its Python is run in the shadow
    project.add_revision(f"{asks}op.execute({LEAVES!r})", downgrade=BACK, python=True, name="leaves")
    project.add_revision(f"{asks}op.execute({LOOKS!r})", downgrade=BACK, python=True, name="looks")
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory), "Applied 004")
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))


def test_the_session_is_as_new_for_each_try(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    reader = migrated.connect()
    run(reader, "BEGIN; SELECT count(*) FROM incidents")
    project.add_revision(
        f"op.execute({LOOKS!r})\nop.execute('PREPARE plan AS SELECT 1')\n"
        "op.execute('SELECT pg_advisory_lock(4711)')\nop.execute('LOCK TABLE incidents')",
        downgrade=BACK,
        python=True,
    )
    process = guvnor.start("migrate", "up", "--no-verify", database=migrated, cwd=project.directory)
    assert any("could not get a lock" in line for line in process.stderr)
    run(reader, "ROLLBACK")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err


def test_a_rehearsal_runs_each_revision_in_a_session_as_new(
    guvnor: ForkedCommand, migrated: Database, database: Database, project: Project
) -> None:
    project.add_revision(LEAVES, name="leaves")
    project.add_revision(LOOKS, name="looks")
    words = ("migrate", "plan", "up", "--shadow-dsn", database.dsn)
    succeeds(guvnor(*words, database=migrated, cwd=project.directory), "004")
