"""Do the commands do what they say, in the words that users know, on every kind of terminal?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from psycopg2.extensions import parse_dsn

from guvnor import __version__
from guvnor.migrate.locks import RUN_LOCK
from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, events, succeeds, versions

PREFLIGHT = """\
Running pre-flight checks
✅ Configuration loaded (database type postgres)
✅ Database connection successful
"""


def test_up_down_up(database, guvnor):
    up = succeeds(guvnor("migrate", "up", "-v", database=database))
    assert up.out.startswith(PREFLIGHT)
    assert "✅ Migration files validated (2 migrations found)\n" in up.out
    assert "✅ Database state is clean (no migrations applied)\n✅ Pre-flight checks passed\n" in up.out
    assert re.search(r"✅ Applied 001 initial schema \(\d+\.\d\d s\)\n✅ Applied 002 add schedules", up.out)
    assert up.out.endswith("✅ Migration completed: version 2\n")
    assert versions(database) == AT_HEAD

    again = succeeds(guvnor("migrate", "up", "-v", database=database), "Database state is clean (version 2)")
    assert again.out.endswith("✅ No change: version 2\n")

    down = succeeds(guvnor("migrate", "down", database=database), "✅ Rolled back 002 add schedules")
    assert down.out.endswith("✅ Migration completed: version 1\n")
    assert versions(database) == AT_1
    succeeds(guvnor("migrate", "down", database=database), "✅ Migration completed: no migrations applied")
    assert versions(database) == AT_BASE
    succeeds(guvnor("migrate", "down", database=database), "✅ No change: no migrations applied")

    assert events(database) == [
        (event, direction, revision)
        for direction, revision in (("up", "001"), ("up", "002"), ("down", "002"), ("down", "001"))
        for event in ("started", "succeeded")
    ]


def test_to_names_the_revision_that_remains(database, guvnor):
    succeeds(guvnor("migrate", "up", "--to", "1", database=database), "completed: version 1")
    assert versions(database) == AT_1
    succeeds(guvnor("migrate", "up", "--to", "head", database=database), "completed: version 2")
    succeeds(guvnor("migrate", "up", "--to", "001", database=database), "No change: version 2")
    succeeds(guvnor("migrate", "down", "--to", "002", database=database), "No change: version 2")
    succeeds(guvnor("migrate", "down", "--to", "base", database=database), "no migrations applied")
    assert versions(database) == AT_BASE
    ends(guvnor("migrate", "down", "--to", "2", database=database), 2, "is at version 0", "guvnor migrate up")


def test_status_says_where_the_database_is(database, at_version_1, guvnor):
    first_lines = "Database Type: postgres\nConnection: ✅ OK\n"
    empty = succeeds(guvnor("migrate", "status", database=database))
    assert empty.out.startswith("Migration Status: No migrations applied (empty database)\n" + first_lines)
    assert "Pending Migrations: 001_initial_schema, 002_add_schedules\n" in empty.out
    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]

    one = succeeds(guvnor("migrate", "status", database=at_version_1))
    assert one.out.startswith("Migration Status: Version 1\n" + first_lines)
    ((role,),) = at_version_1.execute("SELECT current_user")
    assert f"Database: {at_version_1.name}\nRole: {role}\n" in one.out
    # As the connection string says it: a server in a container calls its port otherwise.
    assert f", port {parse_dsn(at_version_1.dsn)['port']}\n" in one.out
    assert "Pending Migrations: 002_add_schedules\n" in one.out
    assert one.err == ""


def test_status_for_programs(database, migrated, guvnor):
    ends(guvnor("migrate", "status", "--exit-code", database=database), 8)
    result = ends(guvnor("migrate", "status", "--exit-code", "--json", database=database), 8)
    found = json.loads(result.out)
    assert (found["version"], found["revision"], found["dirty"]) == (0, None, False)
    assert found["pending"] == ["001_initial_schema", "002_add_schedules"]
    found = json.loads(succeeds(guvnor("migrate", "status", "--json", "--exit-code", database=migrated)).out)
    assert (found["version"], found["revision"], found["pending"]) == (2, "002", [])
    assert (found["database"], found["problem"], found["production"]) == (migrated.name, None, False)


def test_status_imports_neither_sqlalchemy_nor_alembic(migrated, guvnor):
    program = """
import sys
from guvnor.cli import main
try:
    main(["migrate", "status"])
finally:
    heavy = {"sqlalchemy", "alembic", "rich", "yaml"} & set(sys.modules)
    print("heavy:", *sorted(heavy))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GUVNOR_")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"GUVNOR_STORAGE_DSN": migrated.dsn},
        cwd=guvnor.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Migration Status: Version 2\n" in result.stdout
    assert "heavy:\n" in result.stdout


def test_history_tells_every_attempt(database, migrated, guvnor):
    succeeds(guvnor("migrate", "history", database=database), "No migrations have been run.")
    assert json.loads(succeeds(guvnor("migrate", "history", "--json", database=database)).out) == []

    # What a job is called may look like markup.
    job = {"REPOSITORY": "job[/main]", "RUN_ID": "7", "JOB": "up", "SHA": "ab12"}
    job = {"GITHUB_ACTIONS": "true", **{f"GITHUB_{name}": value for name, value in job.items()}}
    succeeds(guvnor("migrate", "down", database=migrated, env=job))
    found = json.loads(succeeds(guvnor("migrate", "history", "--json", database=migrated)).out)
    assert [(e["direction"], e["revision"], e["outcome"]) for e in found] == [
        ("up", "001", "succeeded"),
        ("up", "002", "succeeded"),
        ("down", "002", "succeeded"),
    ]
    last = found[-1]
    assert (last["from_version"], last["to_version"], last["tries"]) == ("002", "001", 1)
    assert last["job"] == "github: job[/main] 7 up ab12"
    assert last["tool"] == f"guvnor {__version__}"
    assert last["duration_ms"] >= 0
    assert re.fullmatch(r"[0-9a-f]{64}", last["checksum"])
    assert last["checksum"] != found[1]["checksum"]

    # Whole, one line an attempt, where no terminal limits the width.
    table = succeeds(guvnor("migrate", "history", database=migrated)).out.splitlines()
    assert len(table) == 4
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +down 002 +002 -> 001 +succeeded +\d+\.\d\d s", table[3])
    assert "github: job[/main] 7 up ab12" in table[3]


def test_history_with_a_filter_does_not_say_that_nothing_was_run(database, migrated, guvnor):
    for words in (("--failed",), ("--since", "1ms")):
        shown = succeeds(guvnor("migrate", "history", *words, database=migrated))
        assert shown.out == "No attempt matches.\n"
    assert guvnor("migrate", "history", database=database).out == "No migrations have been run.\n"


def test_create_writes_the_next_file_from_the_house_template(project, guvnor, database):
    result = succeeds(guvnor("migrate", "create", "add Teams", cwd=project.directory))
    path = project.versions / "003_add_teams.py"
    assert result.out == f"✅ Created {path}\n"
    text = path.read_text()
    assert text.startswith('"""add Teams\n\nRevision ID: 003\nRevises: 002\n"""\n')
    assert 'revision: str = "003"\ndown_revision: str | None = "002"\n' in text
    assert text.count("op.execute(") == 2
    succeeds(guvnor("migrate", "create", "4", cwd=project.directory), "004_4.py")

    # Nobody has written anything into them yet.
    ends(
        guvnor("migrate", "up", cwd=project.directory, database=database),
        3,
        "003_add_teams.py is not finished: a TODO is left in line 17",
        f"$EDITOR {path}",
    )


@pytest.mark.parametrize("name", ["", "***", "Größe", "naïve plan", "日本", '"""; import os', "C:\\temp"])
def test_create_refuses_a_name_that_makes_no_file(project, guvnor, name):
    before = sorted(project.versions.iterdir())
    ends(guvnor("migrate", "create", name, cwd=project.directory), 2, "guvnor migrate create 'add teams'")
    assert sorted(p for p in project.versions.iterdir() if p.suffix == ".py") == [
        p for p in before if p.suffix == ".py"
    ]


def test_create_says_why_there_is_no_file(project, guvnor):
    (project.directory / "alembic" / "script.py.mako").unlink()
    shown = guvnor("migrate", "create", "teams", cwd=project.directory)
    ends(shown, 3, "The migration file cannot be created: No such file or directory (", "script.py.mako).")


def test_force_sets_the_version_and_leaves_the_schema(migrated, guvnor):
    migrated.execute("UPDATE schema_migrations SET dirty = true")
    result = succeeds(guvnor("migrate", "force", "1", database=migrated))
    assert result.out == "✅ Version set to 1; it was 002 (dirty). The schema was not changed.\n"
    assert versions(migrated) == AT_1
    assert migrated.execute("SELECT to_regclass('audit_logs') IS NOT NULL") == [(True,)]
    assert events(migrated)[-2:] == [("started", "force", "001"), ("succeeded", "force", "001")]

    succeeds(guvnor("migrate", "force", "base", database=migrated), "Version set to base; it was 001.")
    assert versions(migrated) == AT_BASE
    succeeds(guvnor("migrate", "force", "002", database=migrated), "it was none")
    assert versions(migrated) == AT_HEAD


def test_force_works_on_a_database_without_our_tables(database, guvnor):
    succeeds(guvnor("migrate", "force", "2", database=database))
    assert versions(database) == AT_HEAD


def test_force_waits_for_its_turn_and_forces_nothing_that_was_not_there(migrated, guvnor):
    other = migrated.connect()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [RUN_LOCK])
    waiting = guvnor.process.start("migrate", "force", "1", database=migrated)
    assert waiting.stderr is not None
    assert "waiting for another migration: pid " in waiting.stderr.readline()
    migrated.execute(
        "UPDATE alembic_version SET version_num = '001'; UPDATE schema_migrations SET version = 1"
    )
    other.close()
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 5
    assert "Another session moved the version" in err
    assert versions(migrated) == AT_1
    assert ("started", "force", "001") not in events(migrated)


def test_version_and_completion(guvnor):
    result = succeeds(guvnor("version"))
    assert result.out.startswith(f"guvnor {__version__}\nalembic 1.")
    assert f"\nPython {sys.version.split()[0]}\n" in result.out
    assert "_GUVNOR_COMPLETE=bash_complete" in succeeds(guvnor("completion", "bash")).out
    assert "#compdef guvnor" in succeeds(guvnor("completion", "zsh")).out
    assert "fish" in succeeds(guvnor("completion", "fish")).out
    ends(guvnor("completion", "tcsh"), 2, "tcsh")


@pytest.mark.parametrize("words", [(), ("migrate",)])
def test_without_a_command_the_help_is_shown_once(guvnor, words):
    shown = guvnor(*words)
    assert shown.code == 2
    assert shown.err.count("Usage:") == 1
    assert "Error" not in shown.err


def test_help_names_the_commands_and_the_variables(guvnor):
    text = succeeds(guvnor("migrate", "--help")).out
    for command in ("up", "down", "status", "history", "create", "force", "preflight"):
        assert re.search(rf"^  {command} +[A-Z]", text, re.MULTILINE), command
    text = succeeds(guvnor("migrate", "up", "-h")).out
    for name in ("CONFIG", "LOG_LEVEL", "LOCK_WAIT", "MAX_WAIT", "MAX_STALL", "CONFIRM"):
        assert f"GUVNOR_{name}" in text


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}])
def test_a_terminal_without_utf8_gets_words_for_signs(migrated, guvnor, environment):
    status = succeeds(guvnor.process("migrate", "status", database=migrated, env=environment))
    assert "Connection: [ok] OK\n" in status.out
    assert status.out.isascii()
    failed = ends(guvnor.process("migrate", "status", database="host=/nowhere", env=environment), 3)
    assert failed.err.startswith("[failed] database connection failed: the server at /nowhere, port 5432")
    migrated.execute("UPDATE guvnor_migration_history SET job = 'é → 日'")
    history = succeeds(guvnor.process("migrate", "history", database=migrated, env=environment), ", ? -> ?")
    assert history.out.isascii()


def test_colors_are_for_terminals_that_want_them(migrated, guvnor):
    assert "\x1b[" in guvnor.terminal("migrate", "history", database=migrated).out
    plain = guvnor.terminal("migrate", "history", database=migrated, env={"NO_COLOR": "1"})
    assert plain.code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain.out), repr(plain.out)
    for command in (("migrate", "up"), ("migrate", "status")):
        result = guvnor.terminal(*command, database=migrated, env={"NO_COLOR": "1"})
        assert result.code == 0
        assert "\x1b" not in result.out


def test_a_database_error_is_explained(server, migrated, guvnor):
    """Reading and forcing need rights of their own, and no pre-flight checks come before them."""
    role = server.create_role()
    dsn = migrated.dsn_with(role)
    for words in (("status",), ("history",), ("force", "1")):
        ends(guvnor("migrate", *words, database=dsn), 1, "permission denied", "guvnor migrate preflight")
    assert versions(migrated) == AT_HEAD
    migrated.execute(f'ALTER DATABASE "{migrated.name}" SET default_transaction_read_only = on')
    succeeds(guvnor("migrate", "status", database=migrated))
    for words in (("migrate", "force", "1"), ("db", "mark")):
        ends(guvnor(*words, database=migrated), 1, "read-only", "guvnor migrate preflight")
