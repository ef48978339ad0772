"""Does each message lead on: with the command that was typed, a flag that exists, the right reason first?"""

from __future__ import annotations

import os
import signal
import subprocess

import psycopg2
import pytest

from tests.support.command import CHECKOUT
from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions
from tests.support.observe import wait_for

PRODUCTION = {"GUVNOR_ENV": "production"}
FAILS = "SELECT 1 / 0"


def test_next_repeats_the_command_that_was_typed(migrated, guvnor, alembic, project):
    project.add_revision(FAILS)
    here = {"database": migrated, "cwd": project.directory}
    for command, words in (
        (guvnor, ("migrate", "up", "--to", "3", "--max-wait", "1min")),
        (guvnor, ("migrate", "deploy", "--no-verify")),
        (alembic, ("-x", "max_wait=1min", "upgrade", "head")),
        (alembic, ("upgrade", "+1")),
    ):
        result = ends(command(*words, **here), 1, "22012")
        assert next_step(result)[0].endswith(f"then: {command.module} {' '.join(words)}")
    # Two steps on, it would not stop at the same revision.
    project.add_revision("SELECT 1")
    assert next_step(ends(alembic("upgrade", "+2", **here), 1))[0].endswith("then: guvnor migrate up")


def test_a_script_is_repeated_as_a_script(migrated, project, tmp_path):
    project.add_revision(FAILS)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "guvnor").write_text(f'#!/bin/sh\nexec {os.sys.executable} -m guvnor "$@"\n')
    (programs / "guvnor").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GUVNOR_")}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GUVNOR_STORAGE_DSN": migrated.dsn,
    }
    script = CHECKOUT / "scripts" / "deploy"
    ended = subprocess.run(
        [script, "--wait-for-server", "2s"],
        cwd=project.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert f"then: {script} --wait-for-server 2s" in ended.stderr


def test_a_refusal_names_the_whole_command(migrated, guvnor, alembic):
    here = {"database": migrated, "env": {**PRODUCTION, "GUVNOR_BACKUP": "no"}}
    refused = ends(guvnor("migrate", "down", "--to", "1", **here), 4)
    (line,) = next_step(refused)
    assert line.startswith("GUVNOR_ENV=production guvnor migrate down --to 1 --confirm ")
    command = line.partition("   #")[0].split()
    refused = ends(alembic("downgrade", "001", **here), 4)
    assert " downgrade 001" in next_step(refused)[0]
    assert "-x confirm=" in next_step(refused)[0]
    assert next_step(refused)[0].startswith("GUVNOR_ENV=production alembic ")
    succeeds(guvnor(*command[2:], **here), "Rolled back 002")


@pytest.mark.parametrize("name", ["production", "prod"])
def test_the_next_step_stays_in_production(at_version_1, guvnor, alembic, project, name):
    """The variable may have been set for this command alone, and the database is not marked yet."""
    at_version_1.execute("INSERT INTO incidents (title, severity, team_id) VALUES ('a', 'low', 'x')")
    project.add_revision("DROP TABLE incidents CASCADE", "SELECT 1")
    env = {"GUVNOR_ENV": name}
    here = {"database": at_version_1, "cwd": project.directory, "env": env}
    for command, words in ((guvnor, ("migrate", "up")), (alembic, ("upgrade", "head"))):
        shown = command.terminal(*words, answers=[("Type 'yes' to continue: ", "no\n")], columns=200, **here)
        (line,) = next_step(ends(shown, 4, "Operation cancelled."))
        assert line.startswith(f"GUVNOR_ENV={name} {command.module} {' '.join(words)}   # ")
    elsewhere = ends(guvnor("up", **here), 2).err
    assert f"Next:  GUVNOR_ENV={name} guvnor migrate up\n" in elsewhere
    # Commands that a message names by itself are guarded alike, those that only read need nothing.
    at_version_1.execute("UPDATE schema_migrations SET version = 2")
    ways = next_step(ends(guvnor("migrate", "up", **here), 5, "The version tables disagree"))
    assert all(way.startswith(f"GUVNOR_ENV={name} guvnor migrate ") for way in ways)
    assert f"   Next: GUVNOR_ENV={name} guvnor migrate adopt" in guvnor("migrate", "status", **here).out
    at_version_1.execute("UPDATE schema_migrations SET version = 2, dirty = true")
    assert next_step(ends(guvnor("migrate", "up", **here), 5)) == [f"GUVNOR_ENV={name} guvnor migrate repair"]
    shown = guvnor.terminal("migrate", "repair", columns=80, **here).plain
    assert f"   GUVNOR_ENV={name} guvnor migrate repair --forward\n" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_backup_that_is_missing_is_asked_for_with_the_command(migrated, guvnor):
    migrated.execute("INSERT INTO escalation_policies (name, team_id) VALUES ('all', 'team')")
    refused = ends(guvnor("migrate", "down", database=migrated, env=PRODUCTION), 4, "no directory is named")
    where, without = next_step(refused)
    assert where.startswith("GUVNOR_ENV=production GUVNOR_BACKUP_DIR=DIR guvnor migrate down ")
    assert without.startswith("GUVNOR_ENV=production GUVNOR_BACKUP=no guvnor migrate down ")


def test_adopt_keeps_the_revision_that_it_was_told(migrated, guvnor):
    migrated.execute("ALTER TABLE incidents ADD COLUMN extra text; DELETE FROM alembic_version")
    result = ends(guvnor("migrate", "adopt", "--at", "002", database=migrated), 6, "differs in 1 place")
    assert next_step(result)[0].endswith("guvnor migrate adopt --at 002 --accept-drift")


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        ("mysql://me:s3cret@db.example/guvnor", "begins with mysql://"),
        ("jdbc:postgresql://db.example/guvnor", "begins with jdbc:postgresql://"),
        ("postgresql+psycopg2://me:s3cret@db.example/guvnor", "begins with postgresql+psycopg2://"),
    ],
)
def test_the_string_of_another_database_is_told(guvnor, dsn, told):
    result = ends(guvnor("migrate", "up", database=dsn), 2, told, "PostgreSQL")
    assert "s3cret" not in result.out + result.err


def test_a_role_that_may_not_log_in_is_told_what_to_use(server, migrated, guvnor):
    role = server.create_role()
    migrated.execute(f"ALTER ROLE {role.name} NOLOGIN")
    result = ends(
        guvnor("migrate", "up", database=migrated.dsn_with(role)), 3, f"role {role.name} may not log in"
    )
    assert next_step(result)[0].startswith(f"export GUVNOR_STORAGE_ROLE={role.name} ")


def test_a_production_run_that_changes_nothing_says_that_it_marks(migrated, guvnor):
    first = succeeds(guvnor("migrate", "up", database=migrated, env=PRODUCTION), "No change: version 2")
    assert "is marked as production now" in first.out
    assert "guvnor db mark --not-production" in first.out
    assert "marked" not in succeeds(guvnor("migrate", "up", database=migrated, env=PRODUCTION)).out


def test_the_question_before_a_mark_goes_says_what_it_does(migrated, guvnor):
    succeeds(guvnor("db", "mark", database=migrated))
    refused = ends(guvnor("db", "mark", "--not-production", database=migrated), 4)
    assert "You are about to take away the mark that guards this database in production.\n" in refused.err
    assert "data loss" not in refused.err
    assert "   Version:" not in refused.err


@pytest.mark.parametrize("words", [("up",), ("plan",), ("deploy",)])
def test_the_error_of_a_revision_comes_first(migrated, guvnor, project, words):
    path = project.add_revision("ALTER TABLE incidents DROP COLUMN no_such_column", "SELECT 1")
    result = guvnor("migrate", *words, database=migrated, cwd=project.directory, env=PRODUCTION)
    ends(result, 1, 'Revision 003 (Test.) fails going up: column "no_such_column"')
    assert "unknown (" not in result.out + result.err
    assert next_step(result)[0] == f"$EDITOR {path}"
    assert versions(migrated) == AT_HEAD


GUARDED = """
op.execute(\"\"\"
    DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'said') THEN
            ALTER TABLE incidents ADD CONSTRAINT said CHECK (title <> 'x') NOT VALID;
        END IF;
    END
    $$
\"\"\")
op.validate_constraint("incidents", "said")
"""


def test_a_guard_that_finds_what_the_live_schema_has_stops_no_run(migrated, guvnor, project):
    """As after a kill: the expected schema is built beside the live one, and the catalogs hold both."""
    migrated.execute("ALTER TABLE incidents ADD CONSTRAINT said CHECK (title <> 'x') NOT VALID")
    project.add_revision(GUARDED, 'op.execute("ALTER TABLE incidents DROP CONSTRAINT said")', python=True)
    here = {"database": migrated, "cwd": project.directory}
    refused = ends(guvnor("migrate", "deploy", env=PRODUCTION, **here), 4, "--confirm")
    assert "fails going up" not in refused.out + refused.err
    succeeds(guvnor("migrate", "deploy", **here), "Applied 003")
    assert migrated.execute("SELECT convalidated FROM pg_constraint WHERE conname = 'said'") == [(True,)]


def test_a_check_without_a_database_is_for_a_person(guvnor):
    lost = ends(guvnor("schema", "check"), 2, "No database is configured")
    assert next_step(lost)[1].startswith("guvnor schema check --against models")
    ends(guvnor("schema", "check", "--against", "revision"), 2, "No database is configured")
    ends(guvnor.terminal("schema", "check", env={"CI": "true"}), 2, "No database is configured")


def test_a_command_in_the_wrong_place_is_told_its_place(guvnor):
    for words, place in ((("up",), "guvnor migrate up"), (("migrate", "lint"), "guvnor schema lint")):
        assert f"Next: {place}\n" in ends(guvnor(*words), 2).err


@pytest.mark.parametrize("flag", ["--lock-wait", "--config", "--log-level", "--confirm"])
def test_a_flag_without_its_value_is_an_error(guvnor, flag):
    ends(guvnor("migrate", "up", flag), 2, f"Option '{flag}' requires an argument.")


def test_durations_take_units(migrated, guvnor):
    for text in ("2", "2s", "500ms", "1min", "0.1h", "1d"):
        succeeds(guvnor("migrate", "preflight", "--wait-for-server", text, database=migrated))
    ends(guvnor("migrate", "preflight", "--wait-for-server", "soon"), 2, "'soon' is not a duration")
    for text in ("90min", "1d", "36h"):
        succeeds(guvnor("migrate", "history", "--since", text, database=migrated), "up 002")


def offered(guvnor, words: str) -> list[str]:
    env = {
        "_GUVNOR_COMPLETE": "bash_complete",
        "COMP_WORDS": f"guvnor {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    return [line.partition(",")[2] or line for line in guvnor.process(env=env).out.splitlines()]


def test_completion_offers_revisions_levels_and_files(guvnor):
    assert offered(guvnor, "migrate up --to ") == ["002", "001", "head", "base"]
    assert offered(guvnor, "migrate force 00") == ["002", "001"]
    assert offered(guvnor, "migrate up --log-level ") == ["debug", "info", "warning", "error"]
    for words, kind in (("--config ", "file"), ("migrate down --backup ", "dir")):
        env = {
            "_GUVNOR_COMPLETE": "bash_complete",
            "COMP_WORDS": f"guvnor {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        }
        assert guvnor.process(env=env).out.startswith(f"{kind},")


def test_a_plan_names_every_object_and_its_locks(at_version_1, guvnor):
    shown = succeeds(guvnor("migrate", "plan", database=at_version_1)).out
    for name in (
        "+ table escalation_policies",
        "idx_escalation_policies_team_id",
        "escalation_policies_pkey",
    ):
        assert name in shown
    assert "+ index incidents.idx_incidents_escalation_policy" in shown
    assert "-- locks incidents: ACCESS EXCLUSIVE" in shown, "it has made a scratch database"
    assert ";;" not in shown.replace(" ", "")
    assert "ON escalation_policies (team_id);\n" in shown
    left = at_version_1.execute("SELECT datname FROM pg_database WHERE datname LIKE 'guvnor_review_%'")
    assert left == []
    guarded = succeeds(guvnor("migrate", "plan", database=at_version_1, env=PRODUCTION))
    assert "none is made on a production server" in guarded.out


def test_the_shell_is_that_of_the_configured_database(server, migrated, guvnor):
    asked = guvnor.process(
        "db", "shell", "--", "-At", database=migrated, input="SELECT current_database();\n"
    )
    assert succeeds(asked).out.strip() == migrated.name
    role = server.create_role()
    acting = guvnor.process(
        "db",
        "shell",
        database=migrated,
        env={"GUVNOR_STORAGE_ROLE": role.name},
        input="SELECT current_user;\n",
    )
    assert role.name in succeeds(acting).out


# The block may correct rows, for all that can be told beforehand, so that pre-flight refuses nothing.
HALF_DONE = """
op.execute('DO $$ BEGIN PERFORM 1; END $$')
op.execute("ALTER TABLE incidents ADD CONSTRAINT long_title CHECK (length(title) > 9) NOT VALID")
op.validate_constraint("incidents", "long_title")
"""
UNDONE = 'op.execute("ALTER TABLE incidents DROP CONSTRAINT IF EXISTS long_title")'
SHORT = "INSERT INTO incidents (title, severity, team_id) VALUES ('short', 'high', 'team')"
REFUSED = "constraint long_title of table incidents, which is not validated yet, refuses rows that violate it"


def test_a_half_done_check_says_what_it_refuses_and_both_ways_out(migrated, guvnor, alembic, project):
    migrated.execute(SHORT)
    project.add_revision(HALF_DONE, UNDONE, python=True)
    here = {"database": migrated, "cwd": project.directory}
    query = "SELECT * FROM incidents WHERE NOT ((length((title)::text) > 9));   -- shows them"
    # The second time, the revision fails at another statement, but for the same rows.
    for command, words in ((guvnor, ("migrate", "up")), (alembic, ("upgrade", "head"))):
        failed = ends(command(*words, **here), 1, REFUSED)
        assert "the application can go on using it" not in failed.err
        ways = next_step(failed)
        assert ways[0].endswith(f"then: {command.module} {' '.join(words)}")
        assert query in ways
        assert ways[-1].startswith("guvnor migrate repair --back ")
    with pytest.raises(psycopg2.errors.CheckViolation):
        migrated.execute(SHORT)
    for words in (("status",), ("repair",)):
        shown = guvnor("migrate", *words, **here).out
        assert REFUSED in shown
        assert query in shown
    assert len(migrated.execute(query.partition(";")[0])) == 1
    succeeds(guvnor("migrate", "repair", "--back", **here), "Migration completed: version 2")
    migrated.execute(SHORT)
    assert versions(migrated) == AT_HEAD


def test_an_interrupted_run_names_both_ways_out(migrated, guvnor, project):
    project.add_revision(HALF_DONE.replace("length(title) > 9", "pg_sleep(60) IS NULL"), UNDONE, python=True)
    migrated.execute(SHORT)
    process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    # The plan has validated it on empty tables before.
    active = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND application_name LIKE '%revision'"
    validating = f"{active} AND query LIKE 'ALTER TABLE%VALIDATE CONSTRAINT%'"
    wait_for("the validation", lambda: migrated.execute(validating))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "   Next:  guvnor migrate up\n          guvnor migrate repair --back " in err


def test_a_merge_and_too_many_words_are_no_tuples(migrated, guvnor, project):
    assert "extra arguments: a b\n" in ends(guvnor("migrate", "up", "a", "b"), 2).err
    path = project.add_revision("SELECT 1")
    path.write_text(
        path.read_text().replace('down_revision: str | None = "002"', 'down_revision = ("001", "002")')
    )
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(result, 3, "003_test.py follows several revisions (001, 002)")
