"""Does `guvnor db reset` start the local database afresh, and no other one?"""

from __future__ import annotations

import psycopg2
import pytest

from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions


def test_a_configured_database_is_never_reset(migrated, guvnor):
    refused = ends(guvnor("db", "reset", database=migrated), 2, "only that of the local server can be reset")
    assert next_step(refused)[0].startswith("GUVNOR_STORAGE_TYPE=embedded guvnor db reset ")
    assert versions(migrated) == AT_HEAD


@pytest.mark.parametrize("name", ["production", "prod"])
def test_production_is_never_reset(guvnor, tmp_path, name):
    ends(guvnor("db", "reset", cwd=tmp_path, env={"GUVNOR_ENV": name}), 4, f"GUVNOR_ENV is {name}")
    assert not (tmp_path / ".guvnor").exists()


def test_the_local_database_is_empty_afterwards(guvnor, project):
    here = {"cwd": project.directory, "env": {"GUVNOR_STORAGE_TYPE": "embedded"}}
    try:
        succeeds(guvnor("migrate", "up", "--to", "1", **here), "Applied 001")
        succeeds(guvnor("db", "mark", **here))
        ends(guvnor("db", "reset", **here), 4, "the database was marked as production")
        url = succeeds(guvnor("db", "url", **here)).out.strip()
        user = psycopg2.connect(url)
        with user.cursor() as cursor:
            cursor.execute("DELETE FROM guvnor_migration_history WHERE event = 'marked'")
        user.commit()
        # Somebody is still connected, and a reset was interrupted before.
        succeeds(guvnor("db", "reset", **here), "The local database is empty")
        with psycopg2.connect(url) as again, again.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert cursor.fetchone() == (0,)
        again.close()
        succeeds(guvnor("migrate", "status", **here), "No migrations applied")
    finally:
        succeeds(guvnor("db", "stop", **here))
