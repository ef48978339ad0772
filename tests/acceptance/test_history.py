"""Does the history show every attempt and who made it, and is a file that was changed afterwards noticed?"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from tests.support.expect import ends, succeeds

CHANGED = "was changed after it was applied"


def entries(guvnor, database, *flags, **more):
    return json.loads(succeeds(guvnor("migrate", "history", "--json", *flags, database=database, **more)).out)


# What is shown


def test_every_attempt_and_how_it_ended(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    succeeds(guvnor("migrate", "up", "--to", "1", **here))
    project.add_revision("SELECT 1 / (SELECT count(*) FROM incidents)", "SELECT 1")
    ends(guvnor("migrate", "up", **here), 1, "division by zero")
    succeeds(guvnor("migrate", "down", **here))

    found = entries(guvnor, database)
    assert [(e["direction"], e["revision"], e["outcome"]) for e in found] == [
        ("up", "001", "succeeded"),
        ("up", "002", "succeeded"),
        ("up", "003", "failed"),
        ("down", "002", "succeeded"),
    ]
    assert (found[2]["sqlstate"], found[2]["from_version"], found[2]["to_version"]) == ("22012", "002", "003")
    assert "division by zero" in found[2]["error"]
    for entry in found:
        assert entry["duration_ms"] >= entry["lock_wait_ms"] >= 0
        assert entry["tries"] == 1
        assert datetime.fromisoformat(entry["at"]).tzinfo is not None
    assert found[0]["size_change"] > 0
    assert found[2]["size_change"] is None

    assert [e["revision"] for e in entries(guvnor, database, "--failed")] == ["003"]
    table = succeeds(guvnor("migrate", "history", "--failed", database=database)).out
    assert "up 003" in table
    assert "division by zero" in table
    assert "up 001" not in table


STALLED = ("stalled_ms", "stalled_sessions", "stalled_statement")


def stalled(guvnor, database):
    return [tuple(entry[name] for name in STALLED) for entry in entries(guvnor, database)]


def test_how_long_the_application_waited(migrated, guvnor):
    assert stalled(guvnor, migrated) == [(0, 0, None)] * 2
    migrated.execute(
        "UPDATE guvnor_migration_history SET stalled_ms = 310, stalled_sessions = 12, "
        "stalled_statement = 'CREATE INDEX i ON t (x)' WHERE revision = '002' AND event = 'succeeded'"
    )
    assert stalled(guvnor, migrated) == [(0, 0, None), (310, 12, "CREATE INDEX i ON t (x)")]
    heading, first, second = succeeds(guvnor("migrate", "history", database=migrated)).out.splitlines()
    place = slice(heading.index("stalled"), heading.index("size"))
    assert (first[place].strip(), second[place].strip()) == ("", "0.31 s (12)")


# A history of an older release


@pytest.fixture
def older(migrated):
    migrated.execute(
        "ALTER TABLE guvnor_migration_history DROP stalled_ms, DROP stalled_sessions, DROP stalled_statement"
    )
    return migrated


def columns(database):
    return {
        name
        for (name,) in database.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'guvnor_migration_history'::regclass"
        )
    }


def test_the_history_of_an_older_release_is_read_as_it_is(older, guvnor):
    assert stalled(guvnor, older) == [(None, None, None)] * 2
    assert "up 002" in succeeds(guvnor("migrate", "history", database=older)).out
    succeeds(guvnor("migrate", "status", database=older))
    succeeds(guvnor("migrate", "up", database=older), "No change")
    assert columns(older).isdisjoint(STALLED)


@pytest.mark.parametrize("command", ["up", "alembic", "force", "mark"])
def test_it_is_completed_by_the_first_command_that_writes_it(older, guvnor, alembic, project, command):
    project.add_revision("CREATE TABLE a ()", "DROP TABLE a")
    here = {"database": older, "cwd": project.directory}
    if command == "alembic":
        succeeds(alembic("upgrade", "head", **here))
    else:
        words = {"up": ("migrate", "up"), "force": ("migrate", "force", "1"), "mark": ("db", "mark")}[command]
        succeeds(guvnor(*words, **here))
    assert columns(older) >= set(STALLED)
    if command in ("up", "alembic"):
        assert stalled(guvnor, older) == [(None, None, None)] * 2 + [(0, 0, None)]
    assert older.execute("SELECT obj_description('guvnor_migration_history'::regclass, 'pg_class')") == [
        ("layout 1",)
    ]  # so that an older release goes on with it
    if command == "up":
        succeeds(guvnor("schema", "check", **here))


def test_an_older_release_can_write_a_complete_one(migrated, guvnor):
    older = """
        INSERT INTO public.guvnor_migration_history
            (direction, revision, from_version, to_version, checksum, tool, note, attempt, event,
             os_user, host, job {more})
        VALUES ('up', '003', '002', '003', 'x', 'guvnor 0.1.0', NULL, '5f0c0cc8-4c0e-4a4e-8d0a-3b9c7e6d5a41',
                '{event}', 'ada', 'vm', NULL {values})
    """
    migrated.execute(older.format(event="started", more=", database_bytes", values=", 1"))
    figures = {"more": ", duration_ms, lock_wait_ms, tries", "values": ", 20, 0, 1"}
    migrated.execute(older.format(event="succeeded", **figures))
    assert stalled(guvnor, migrated) == [(0, 0, None)] * 2 + [(None, None, None)]
    assert [entry["outcome"] for entry in entries(guvnor, migrated)] == ["succeeded"] * 3


def test_a_reader_of_an_older_history_delays_its_completion_and_is_named(older, guvnor, project):
    project.add_revision("CREATE TABLE a ()", "DROP TABLE a")
    with older.connect() as reader, reader.cursor() as cursor:
        cursor.execute("BEGIN; SELECT count(*) FROM guvnor_migration_history")
        result = guvnor("migrate", "up", "--max-wait", "1s", database=older, cwd=project.directory)
        pid = reader.info.backend_pid
        ends(result, 7, "Could not use the tables of the version and the history", f"pid {pid} on ")
        cursor.execute("ROLLBACK")
    reader.close()
    succeeds(guvnor("migrate", "up", database=older, cwd=project.directory))


def test_since(migrated, guvnor):
    migrated.execute(
        """
        UPDATE guvnor_migration_history
        SET at = CASE
            WHEN revision = '002' THEN now()
            WHEN event = 'started' THEN now() - interval '3 days'
            ELSE at
        END
        """
    )
    today = datetime.now().astimezone() - timedelta(hours=1)
    for since, revisions in (
        ("30min", ["002"]),
        ("2d", ["002"]),
        ("4d", ["001", "002"]),
        (today.isoformat(), ["002"]),
        ((today - timedelta(days=7)).date().isoformat(), ["001", "002"]),
        ((today + timedelta(days=2)).date().isoformat(), []),
    ):
        found = entries(guvnor, migrated, "--since", since)
        assert [entry["revision"] for entry in found] == revisions, since
    assert entries(guvnor, migrated, "--since", "4d", "--failed") == []
    result = guvnor("migrate", "history", "--since", "yesterday", database=migrated)
    ends(result, 2, "is not a point in time such as")


def test_a_run_at_work_is_not_called_killed(at_version_1, guvnor):
    """Its attempt has no end yet, like a killed one's; the run lock tells them apart."""
    blocker = at_version_1.connect()
    blocker.autocommit = False
    blocker.cursor().execute("LOCK TABLE incidents IN ACCESS SHARE MODE")
    process = guvnor.start("migrate", "up", database=at_version_1)
    looks = (entries(guvnor, at_version_1)[-1] for _ in range(100))
    running = next(entry for entry in looks if entry["revision"] == "002")
    assert running["outcome"] == "running"
    assert entries(guvnor, at_version_1, "--failed") == []
    assert "running" in guvnor("migrate", "history", database=at_version_1).out
    process.kill()
    process.communicate()
    blocker.rollback()
    looks = (entries(guvnor, at_version_1, "--failed") for _ in range(100))
    assert next(found for found in looks if found)[0]["outcome"] == "killed"


# A changed file


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_file_that_was_changed_after_it_was_applied(tool, database, project, request):
    command = request.getfixturevalue(tool)
    here = {"database": database, "cwd": project.directory}
    up = ["migrate", "up"] if tool == "guvnor" else ["upgrade", "head"]
    path = project.add_revision("CREATE TABLE notes (id int)", "DROP TABLE IF EXISTS notes", name="notes")
    succeeds(command(*up, **here))
    assert CHANGED not in succeeds(command(*up, **here)).out

    rewrite(path, "(id int)", "(id bigint)")
    result = ends(command(*up, **here), 5, f"The file of revision 003 (003_notes.py) {CHANGED} (")
    ((role, when),) = database.execute(
        "SELECT database_role, to_char(at, 'YYYY-MM-DD HH24:MI:SS') FROM guvnor_migration_history "
        "WHERE revision = '003' AND event = 'succeeded'"
    )
    assert role in result.err
    assert when in result.err

    down = ["migrate", "down"] if tool == "guvnor" else ["downgrade", "-1"]
    ends(command(*down, **here), 5, CHANGED)
    accept = ["--accept-edited", "003"] if tool == "guvnor" else []
    words = [*down, *accept] if accept else ["-x", "accept_edited=003", *down]
    succeeds(command(*words, **here))
    assert CHANGED not in succeeds(command(*up, **here)).out  # it was rolled back: what is applied is the new


def test_comments_and_white_space_do_not_count(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    path = project.add_revision("CREATE TABLE notes (id int, t text DEFAULT 'a  b')", "DROP TABLE notes")
    succeeds(guvnor("migrate", "up", **here))

    def preflight():
        return succeeds(guvnor("migrate", "preflight", **here)).out

    rewrite(path, "CREATE TABLE notes (", "\\n  -- what people write\\r\\n CREATE /* a */ TABLE   notes\\n(")
    rewrite(path, "def upgrade", "# a comment\n\n\ndef upgrade")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert CHANGED not in preflight()
    # White space in quotes counts, as it does for the server.
    path.write_bytes(path.read_bytes().replace(b"a  b", b"a b"))
    assert f"the file of revision 003 {CHANGED}" in preflight()
    status = succeeds(guvnor("migrate", "status", **here))
    assert CHANGED not in status.out + status.err  # it does not load the files


def test_a_changed_online_operation_is_noticed(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    succeeds(guvnor("migrate", "up", **here))
    path = project.versions / "002_add_schedules.py"
    rewrite(path, "WHERE escalation_policy_id IS NOT NULL", "WHERE escalation_policy_id IS NULL")
    result = succeeds(guvnor("migrate", "preflight", **here), f"the file of revision 002 {CHANGED}")
    assert "revision 001" not in result.out


# Who runs it


def test_the_job_is_in_the_history(database, guvnor):
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "guvnor-migrate-x2", "GITHUB_ACTIONS": None}
    succeeds(guvnor("migrate", "up", database=database, env=pod))
    found = entries(guvnor, database)
    assert {entry["job"] for entry in found} == {"kubernetes: guvnor-migrate-x2"}
    assert {entry["note"] for entry in found} == {None}
    assert "kubernetes: guvnor-migrate-x2" in guvnor("migrate", "history", database=database).out
