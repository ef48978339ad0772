"""Is what a rollback drops backed up first, where it has to be or is wanted, and else nothing rolled back?"""

from __future__ import annotations

import gzip
import re
import resource

import pytest

from tests.support import sample_data
from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, events, succeeds, versions
from tests.support.observe import running

PRODUCTION = {"GUVNOR_ENV": "production"}
# It cannot be told what is dropped, so the whole database is backed up.
NO_SHADOW = {"GUVNOR_SHADOW_DSN": "host=127.0.0.1 port=1 dbname=scratch user=nobody"}
QUESTION = "Type 'yes' to continue: "


@pytest.fixture
def filled(migrated, tools):  # noqa: ARG001 (skips where there is no pg_dump for this server)
    sample_data.fill(migrated)
    return migrated


def plan_hash(text: str) -> str:
    return re.findall(r"Plan hash: ([0-9a-f]{16})", text)[-1]


def backups(directory):
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".sha256")


def untouched(database, before):
    return (versions(database), events(database), sample_data.contents(database)) == before


def now(database):
    return versions(database), events(database), sample_data.contents(database)


def remarks(database, direction="down"):
    return [
        note
        for (note,) in database.execute(
            "SELECT note FROM guvnor_migration_history WHERE direction = %s AND event = 'succeeded'",
            [direction],
        )
    ]


def test_production_refuses_a_rollback_that_loses_data_without_a_word_about_its_backup(filled, guvnor):
    before = now(filled)
    refused = ends(
        guvnor("migrate", "down", database=filled, env=PRODUCTION),
        4,
        "no directory is named for it",
        "table audit_logs with 2 rows",
        "GUVNOR_BACKUP_DIR=DIR",
        "--backup DIR",
        "GUVNOR_BACKUP=no",
        "--no-backup",
        "State: Nothing was changed.",
    )
    assert "You are about to" not in refused.err, "it is of no use to confirm that"
    # The marked database is guarded from a laptop, too.
    succeeds(guvnor("db", "mark", database=filled))
    ends(guvnor("migrate", "down", database=filled), 4, "no directory is named for it")
    assert untouched(filled, before)


def test_production_takes_the_backup_once_it_is_confirmed(filled, guvnor, directory):
    before = now(filled)
    flags = ("migrate", "down", "--backup", directory)
    refused = ends(guvnor(*flags, database=filled, env=PRODUCTION), 4, "Backup:    of what is dropped, to ")
    assert f"to {directory}, not encrypted" in refused.err
    assert backups(directory) == []
    assert untouched(filled, before)
    done = guvnor(*flags, "--confirm", plan_hash(refused.err), database=filled, env=PRODUCTION)
    (name,) = backups(directory)
    assert name.endswith("-002-dropped.sql.gz")
    succeeds(done, f"✅ Backup taken: {directory / name}", "✅ Rolled back 002")
    assert '"msg": "backup taken"' in done.err
    assert versions(filled) == AT_1
    assert remarks(filled) == [f"backup: {directory / name}"]
    assert str(directory / name) in succeeds(guvnor("migrate", "history", database=filled)).out


@pytest.mark.parametrize("answer", ["no", "yes"])
def test_who_is_asked_sees_whether_and_where(filled, guvnor, directory, answer):
    shown = guvnor.terminal(
        "migrate",
        "down",
        database=filled,
        env={**PRODUCTION, "GUVNOR_BACKUP_DIR": str(directory)},
        answers=[(QUESTION, f"{answer}\n")],
    )
    assert re.search(rf"   Backup:    of what is dropped, to {directory}", shown.plain)
    assert shown.code == (0 if answer == "yes" else 4)
    assert len(backups(directory)) == (answer == "yes")
    assert versions(filled) == (AT_1 if answer == "yes" else AT_HEAD)


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_the_data_is_given_up_only_in_words(filled, guvnor, directory, how):
    flags = ["--no-backup"] if how == "flag" else []
    env = {**PRODUCTION, "GUVNOR_BACKUP_DIR": str(directory)} | ({} if flags else {"GUVNOR_BACKUP": "no"})
    refused = ends(
        guvnor("migrate", "down", *flags, database=filled, env=env), 4, "Backup:    none (--no-backup)"
    )
    confirm = ("--confirm", plan_hash(refused.err))
    succeeds(guvnor("migrate", "down", *flags, *confirm, database=filled, env=env), "Rolled back 002")
    assert backups(directory) == []
    assert remarks(filled) == [None]


def test_a_rollback_that_loses_nothing_needs_none(at_version_1, guvnor, directory):
    env = PRODUCTION | {"GUVNOR_BACKUP_DIR": str(directory)}
    words = ("migrate", "down", "--to", "base")
    for variables in (PRODUCTION, env):
        refused = ends(guvnor(*words, database=at_version_1, env=variables), 4, "none, since no data is lost")
    succeeds(guvnor(*words, "--confirm", plan_hash(refused.err), database=at_version_1, env=env))
    assert backups(directory) == []
    assert versions(at_version_1) == AT_BASE


def test_rows_that_come_while_somebody_thinks_are_not_lost(migrated, guvnor):
    """The prompt said that nothing is lost; what is true when the run begins counts."""

    def rolled_back(database, env):
        refused = ends(
            guvnor("migrate", "down", database=database, env=env), 4, "none, since no data is lost"
        )
        sample_data.fill(database)
        confirm = ("--confirm", plan_hash(refused.err))
        return guvnor("migrate", "down", *confirm, database=database, env=env)

    ends(rolled_back(migrated, PRODUCTION), 4, "no directory is named for it")
    assert versions(migrated) == AT_HEAD


def test_elsewhere_it_is_taken_when_asked_for(filled, guvnor, alembic, directory):
    succeeds(guvnor("migrate", "down", "--backup", directory, database=filled), "Backup taken")
    succeeds(guvnor("migrate", "up", database=filled))
    sample_data.fill(filled)
    plain = alembic("-x", f"backup_directory={directory}", "downgrade", "-1", database=filled)
    succeeds(plain, "Backup taken", "Rolled back 002")
    assert len(backups(directory)) == 2
    succeeds(guvnor("migrate", "up", database=filled))
    sample_data.fill(filled)
    succeeds(guvnor("migrate", "down", database=filled), "Rolled back 002")
    assert len(backups(directory)) == 2, "nobody asked for another one"
    ends(
        guvnor("migrate", "down", "--backup", directory, "--no-backup", database=filled),
        2,
        "exclude each other",
    )


def test_plain_alembic_is_held_to_it(filled, alembic, directory):
    ends(alembic("downgrade", "base", database=filled, env=PRODUCTION), 4, "no directory is named for it")
    env = {**PRODUCTION, "GUVNOR_BACKUP_DIR": str(directory)}
    refused = ends(alembic("downgrade", "base", database=filled, env=env), 4, "Backup:    of what is dropped")
    assert versions(filled) == AT_HEAD
    confirm = ("-x", f"confirm={plan_hash(refused.err)}")
    succeeds(alembic(*confirm, "downgrade", "base", database=filled, env=env), "Rolled back 001")
    (name,) = backups(directory)
    with gzip.open(directory / name, "rt", encoding="utf-8") as script:
        assert "COPY public.audit_logs (" in script.read()
    assert remarks(filled) == [f"backup: {directory / name}"] * 2
    assert versions(filled) == AT_BASE


ONLINE = """
op.execute("CREATE TABLE IF NOT EXISTS t3 (i integer)")
op.create_index_concurrently("i3", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (i)")
"""


@pytest.fixture
def half_done(guvnor, project, filled):
    """Revision 003 stopped at its index build, and its table has rows."""
    project.add_revision(ONLINE, 'op.execute("DROP TABLE IF EXISTS t3")', python=True)
    filled.execute("CREATE TABLE t3 (i integer); INSERT INTO t3 VALUES (1), (1)")
    ends(guvnor("migrate", "up", database=filled, cwd=project.directory), 1, "half done")
    return filled


def test_a_repair_that_goes_back_is_held_to_it(half_done, guvnor, project, directory):
    def repair(*flags):
        words = ("migrate", "repair", "--back", *flags)
        return guvnor(*words, database=half_done, env=PRODUCTION, cwd=project.directory)

    ends(repair(), 4, "table t3 with 2 rows", "no directory is named for it")
    refused = ends(repair("--backup", directory), 4, "Backup:    of what is dropped")
    assert backups(directory) == []
    assert versions(half_done) == (["002"], [(3, True)])
    succeeds(repair("--backup", directory, "--confirm", plan_hash(refused.err)), "Backup taken")
    assert len(backups(directory)) == 1
    assert versions(half_done) == AT_HEAD


def test_what_cannot_be_saved_by_key_is_saved_with_everything(filled, guvnor, project, directory):
    project.add_revision("CREATE TABLE notes (a text)", "DROP TABLE notes")
    project.add_revision("ALTER TABLE notes ADD COLUMN b text", "ALTER TABLE notes DROP COLUMN b")
    succeeds(guvnor("migrate", "up", database=filled, cwd=project.directory))
    filled.execute("INSERT INTO notes VALUES ('a', 'b')")
    words = ("migrate", "down", "--backup", directory)
    ends(
        guvnor(*words, database=filled, cwd=project.directory, env=PRODUCTION),
        4,
        "Backup:    of the whole database (The values of public.notes.b cannot be saved by key",
    )
    succeeds(guvnor(*words, database=filled, cwd=project.directory), "Rolled back 004")
    (name,) = backups(directory)
    assert name.endswith("-004.dump")


def test_where_it_cannot_be_told_what_is_dropped_everything_is_saved(filled, guvnor, directory):
    env = {**PRODUCTION, **NO_SHADOW}
    words = ("migrate", "down", "--backup", directory)
    refused = ends(
        guvnor(*words, database=filled, env=env),
        4,
        "Lost:      unknown",
        "Backup:    of the whole database (it is unknown what is dropped)",
    )
    succeeds(guvnor(*words, "--confirm", plan_hash(refused.err), database=filled, env=env))
    (name,) = backups(directory)
    assert name.endswith("-002.dump")


def test_a_table_that_could_not_be_counted_is_no_empty_one(migrated, guvnor):
    with migrated.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        refused = guvnor("migrate", "down", database=migrated, env=PRODUCTION)
        cursor.execute("ROLLBACK")
    blocker.close()
    ends(refused, 4, "table audit_logs, which could not be counted", "no directory is named for it")
    assert versions(migrated) == AT_HEAD


def fake_pg_dump(path, server, *, works_at_first):
    """A pg_dump that cannot do it, from the start or once it is to dump something."""
    path.mkdir()
    tried = 'case "$*" in *exclude-schema*) exit 0;; esac\n' if works_at_first else ""
    for name in ("pg_dump", "pg_restore"):
        (path / name).write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} (PostgreSQL) {server.major}.0" && exit 0\n'
            f"{tried}echo the tape is torn >&2\nexit 1\n"
        )
        (path / name).chmod(0o700)
    return str(path)


def test_a_pg_dump_that_cannot_do_it_is_said_before_anybody_is_asked(
    server, filled, guvnor, directory, tmp_path
):
    before = now(filled)
    programs = fake_pg_dump(tmp_path / "broken", server, works_at_first=False)
    env = {**PRODUCTION, **NO_SHADOW, "GUVNOR_PG_BIN": programs, "GUVNOR_BACKUP_DIR": str(directory)}
    refused = ends(guvnor("migrate", "down", database=filled, env=env), 3, "the tape is torn", "unchanged")
    assert "You are about to" not in refused.err
    missing = {**env, "GUVNOR_BACKUP_DIR": str(directory / "missing")}
    ends(guvnor("migrate", "down", database=filled, env=missing), 3, "mkdir -m 700")
    assert untouched(filled, before)


def test_a_backup_that_fails_stops_the_rollback(server, filled, guvnor, directory, tmp_path):
    before = now(filled)
    env = {**NO_SHADOW, "GUVNOR_PG_BIN": fake_pg_dump(tmp_path / "broken", server, works_at_first=True)}
    failed = guvnor("migrate", "down", "--backup", directory, database=filled, env=env)
    ends(failed, 1, "the tape is torn", "The database is unchanged; the unfinished backup was removed")
    assert list(directory.iterdir()) == []
    assert untouched(filled, before)


def test_a_backup_that_cannot_be_written_stops_the_rollback(filled, guvnor, directory):
    filled.execute(
        "INSERT INTO audit_logs (entity_type, entity_id, action, actor) "
        "SELECT 'x', 'x', 'x', md5(random()::text) FROM generate_series(1, 5000)"
    )
    before = now(filled)
    with filled.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        process = guvnor.start("migrate", "down", "--backup", directory, database=filled)
        running(filled, "pg_table_size")  # the backup has begun
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (65536, 65536))
        cursor.execute("ROLLBACK")
        out, err = process.communicate(timeout=30)
    blocker.close()
    assert process.returncode == 1, out + err
    assert "no room left" in out + err
    assert list(directory.iterdir()) == []
    assert untouched(filled, before)


def test_a_signal_while_values_are_read_stops_at_once(filled, guvnor, directory):
    before = now(filled)
    with filled.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
        process = guvnor.start("migrate", "down", "--backup", directory, database=filled)
        running(filled, "^COPY")
        process.send_signal(15)
        out, err = process.communicate(timeout=10)
        cursor.execute("ROLLBACK")
    blocker.close()
    assert process.returncode == 143, out + err
    assert "Interrupted by SIGTERM" in err
    assert "Traceback" not in err
    assert list(directory.iterdir()) == []
    assert untouched(filled, before)
