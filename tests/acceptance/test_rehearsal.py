"""Does a rehearsal in a scratch database clear up, after itself and after one that was killed?"""

from __future__ import annotations

import contextlib

import psycopg2

from tests.support.command import Command
from tests.support.observe import running, sessions, wait_for
from tests.support.project import Project
from tests.support.server import Database, Server


def schemas(database: Database) -> list[str]:
    return [
        name
        for (name,) in database.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'guvnor%' ORDER BY nspname"
        )
    ]


def test_nothing_is_left_in_the_scratch_database(
    server: Server, guvnor: Command, at_version_1: Database
) -> None:
    scratch = server.create_database()
    result = guvnor("migrate", "plan", "--shadow-dsn", scratch.dsn, database=at_version_1)
    assert result.code == 0, result.err
    assert "SHARE UPDATE EXCLUSIVE" in result.out
    assert schemas(scratch) == []


def test_what_a_killed_rehearsal_left_is_dropped_by_the_next(
    server: Server, guvnor: Command, migrated: Database, project: Project
) -> None:
    scratch = server.create_database()
    project.add_revision(
        f"SELECT pg_sleep(CASE WHEN current_database() = '{scratch.name}' THEN 600 ELSE 0 END)"
    )
    plan = ("migrate", "plan", "--shadow-dsn", scratch.dsn)
    process = guvnor.start(*plan, database=migrated, cwd=project.directory)
    running(scratch, "pg_sleep")
    process.kill()
    wait_for("the server to end the session", lambda: not sessions(scratch))
    assert len(schemas(scratch)) == 1

    another = "guvnor_rehearsal_00000000000000ab"  # of a session that still lives
    with contextlib.closing(psycopg2.connect(scratch.dsn)) as living, living.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(171)")
        cursor.execute(f"CREATE SCHEMA {another}")
        living.commit()
        result = guvnor(*plan, database=migrated)
        assert result.code == 0, result.err
        assert schemas(scratch) == [another]
