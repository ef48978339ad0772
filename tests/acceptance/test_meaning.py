"""The same SQL means the same everywhere, whatever the server, the database or the role is set to."""

from __future__ import annotations

import pytest

from guvnor.postgres.settings import MEANING
from tests.acceptance.test_alembic import applies
from tests.support import sample_data
from tests.support.expect import ends, succeeds
from tests.support.forked import ForkedCommand
from tests.support.project import Project
from tests.support.server import Database, Server

OTHERWISE = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-9",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "xmloption": "document",
    "check_function_bodies": "off",
    "default_transaction_isolation": "serializable",
    "default_text_search_config": "pg_catalog.german",
    "session_replication_role": "replica",
    "default_tablespace": "pg_global",
    "default_table_access_method": "other",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
}
CANNOT_DIFFER_HERE = {"default_table_access_method", "default_tablespace"}
BACK = "op.execute('DROP TABLE IF EXISTS said')"

DIFFERS = " OR ".join(f"current_setting('{name}') <> '{value}'" for name, value in MEANING)
# Runs in the live database, in the shadow, in a rehearsal and in psql; the shadow may suppress triggers.
CHECK = f"""
    DO $$
    DECLARE
        other text;
    BEGIN
        SELECT string_agg(concat(w.name, ' = ', s.setting), ', ') INTO other
        FROM (VALUES {", ".join(f"('{n}', '{v}')" for n, v in MEANING)}) AS w (name, value)
        JOIN pg_settings AS s USING (name)
        WHERE s.setting <> w.value
          AND NOT (w.name = 'session_replication_role' AND current_schema() LIKE 'guvnor_shadow%');
        IF other IS NOT NULL THEN
            RAISE EXCEPTION '%', other;
        END IF;
    END
    $$
"""
MEANS = """
    CREATE TABLE IF NOT EXISTS said (
        at timestamptz DEFAULT '2026-01-02 03:04', day date DEFAULT '01/02/2026',
        t text DEFAULT 'a\\b', x text, z text
    )
"""
FILLS = """
    INSERT INTO said (x, z) SELECT (n / 3)::text, CASE WHEN NULL = n THEN 'is null' ELSE 'is not' END
    FROM (VALUES (1.0::float8)) AS v (n)
"""
SAYS = """
    SELECT at AT TIME ZONE 'UTC' = '2026-01-02 03:04', day = DATE '2026-01-02', t = E'a\\\\b', x, z FROM said
"""
SAID = [(True, True, True, "0.3333333333333333", "is not")]


@pytest.fixture
def strange(migrated: Database) -> Database:
    """A database in which everything is set otherwise."""
    for name, value in OTHERWISE.items():
        if name not in CANNOT_DIFFER_HERE:
            migrated.execute(f"ALTER DATABASE \"{migrated.name}\" SET {name} = '{value}'")
    return migrated


def add(project: Project) -> None:
    body = [f"op.execute({sql!r})" for sql in (CHECK, MEANS, FILLS)]
    body += ["op.backfill('said', \"x = x || ''\", 'false')", f"op.execute({CHECK!r})"]
    project.add_revision("\n".join(body), f"op.execute({CHECK!r})\n{BACK}", python=True)


def test_the_list_is_whole(server: Server) -> None:
    """Each has PostgreSQL's own default, but for the time zone, which is called GMT there."""
    names = [name for name, _ in MEANING]
    found = dict(server.execute("SELECT name, boot_val FROM pg_settings WHERE name = ANY (%s)", (names,)))
    assert found == {**dict(MEANING), "TimeZone": "GMT"}
    assert set(OTHERWISE) == {*names} - {"default_transaction_read_only"}


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_revision_means_the_same_up_down_and_up(
    guvnor: ForkedCommand, alembic: ForkedCommand, strange: Database, project: Project, tool: str
) -> None:
    add(project)
    for ours, theirs in (
        (("migrate", "up"), ("upgrade", "head")),
        (("migrate", "down", "--no-backup"), ("downgrade", "-1")),
        (("migrate", "up"), ("upgrade", "head")),
    ):
        words = ours if tool == "guvnor" else theirs
        succeeds((guvnor if tool == "guvnor" else alembic)(*words, database=strange, cwd=project.directory))
    assert strange.execute(SAYS) == SAID
    succeeds(guvnor("schema", "check", database=strange, cwd=project.directory))


def test_a_rehearsal_and_a_plan_mean_the_same(
    guvnor: ForkedCommand, strange: Database, database: Database, project: Project
) -> None:
    database.execute(f"ALTER DATABASE \"{database.name}\" SET DateStyle = 'SQL, DMY'")
    add(project)
    words = ("migrate", "plan", "up", "--shadow-dsn", database.dsn)
    succeeds(guvnor(*words, database=strange, cwd=project.directory), "003")
    succeeds(guvnor("migrate", "plan", "up", database=strange, cwd=project.directory), "003")


def test_the_script_for_psql_means_the_same(
    alembic: ForkedCommand, strange: Database, project: Project
) -> None:
    add(project)
    applies(strange, succeeds(alembic("upgrade", "002:003", "--sql", cwd=project.directory)).out)
    assert strange.execute(SAYS) == SAID


def test_what_the_role_may_not_set_is_a_warning(
    guvnor: ForkedCommand, server: Server, database: Database, project: Project
) -> None:
    role = server.create_role()
    database.execute(f'GRANT CREATE ON DATABASE "{database.name}" TO "{role.name}"')
    database.execute(f'GRANT ALL ON SCHEMA public TO "{role.name}"')
    database.execute(f'ALTER ROLE "{role.name}" SET session_replication_role = replica')
    limited = Database(database.dsn_with(role), database.name)
    said = "may not set session_replication_role, so revisions run with replica, not origin"
    advice = f"IN DATABASE {database.name} SET session_replication_role = 'origin'"
    words = ("migrate", "preflight")
    result = succeeds(guvnor(*words, database=limited, cwd=project.directory), said)
    assert advice in result.plain.replace('"', "")
    kept = {"GUVNOR_SESSION_KEEP": "session_replication_role"}
    result = succeeds(guvnor(*words, database=limited, cwd=project.directory, env=kept))
    assert said not in result.plain + result.err
    database.execute(
        f'ALTER ROLE "{role.name}" IN DATABASE "{database.name}" SET session_replication_role = origin'
    )
    result = succeeds(guvnor(*words, database=limited, cwd=project.directory))
    assert said not in result.plain + result.err


def test_what_a_superuser_may_set_holds_for_the_role_that_it_acts_as(
    guvnor: ForkedCommand, server: Server, strange: Database, project: Project
) -> None:
    owner = server.create_role()
    for sql in (
        'GRANT CREATE ON DATABASE "{0}" TO "{1}"',
        'GRANT ALL ON SCHEMA public TO "{1}"',
        'ALTER TABLE schedules OWNER TO "{1}"',
        'ALTER TABLE alembic_version OWNER TO "{1}"',
        'ALTER TABLE schema_migrations OWNER TO "{1}"',
        'ALTER TABLE guvnor_migration_history OWNER TO "{1}"',
    ):
        strange.execute(sql.format(strange.name, owner.name))
    project.add_revision(CHECK)
    role = {"GUVNOR_STORAGE_ROLE": owner.name}
    result = guvnor("migrate", "up", "--no-verify", database=strange, cwd=project.directory, env=role)
    assert "may not set" not in succeeds(result, "Applied 003").plain


def test_exceptions_are_kept(guvnor: ForkedCommand, strange: Database, project: Project) -> None:
    project.add_revision(
        "CREATE TABLE IF NOT EXISTS said AS SELECT current_setting('TimeZone') AS zone, "
        "current_setting('default_text_search_config') AS search, current_setting('DateStyle') AS style, "
        "current_setting('lc_numeric') AS numbers",
        "DROP TABLE IF EXISTS said",
    )
    kept = {"GUVNOR_SESSION_KEEP": "timezone, Default_Text_Search_Config, DateStyle"}
    succeeds(guvnor("migrate", "up", database=strange, cwd=project.directory, env=kept))
    assert strange.execute("SELECT * FROM said") == [("Asia/Tokyo", "pg_catalog.german", "ISO, DMY", "C")]
    wrong = {"GUVNOR_SESSION_KEEP": "work_mem"}
    ends(
        guvnor("migrate", "up", database=strange, cwd=project.directory, env=wrong),
        2,
        "session.keep names work_mem. It can name: TimeZone, DateStyle",
    )


def test_a_database_that_is_set_to_read_only_is_still_refused(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    migrated.execute(f'ALTER DATABASE "{migrated.name}" SET default_transaction_read_only = on')
    project.add_revision("SELECT 1")
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 3, "read-only")


def generated(alembic: ForkedCommand, database: Database, project: Project) -> str:
    """The revision that autogenerate writes."""
    words = ("revision", "--autogenerate", "-m", "zones")
    succeeds(alembic(*words, database=database, cwd=project.directory))
    return (project.versions / "003_zones.py").read_text()


def test_a_timestamp_becomes_one_with_a_time_zone_without_writing_a_row(
    guvnor: ForkedCommand, alembic: ForkedCommand, strange: Database, project: Project
) -> None:
    sample_data.fill(strange)
    strange.execute("ALTER TABLE schedules ALTER COLUMN created_at TYPE timestamp")
    strange.execute("UPDATE schedules SET created_at = TIMESTAMP '2026-01-02 03:04'")
    text = generated(alembic, strange, project)
    asked = "In which time zone are the values of schedules.created_at?"
    assert asked in " ".join(text.replace("#", "").split())
    assert "USING CAST" not in text
    assert "TODO" not in text
    file = strange.execute("SELECT pg_relation_filenode('schedules')")
    for words in (("up", "--no-verify"), ("down", "--no-backup"), ("up", "--no-verify")):
        succeeds(guvnor("migrate", *words, database=strange, cwd=project.directory))
        assert strange.execute("SELECT pg_relation_filenode('schedules')") == file
    assert strange.execute("SELECT DISTINCT created_at = '2026-01-02 03:04Z' FROM schedules") == [(True,)]
    succeeds(guvnor("schema", "check", database=strange, cwd=project.directory))


def test_with_an_index_it_asks_the_same_and_casts_nothing_through_text(
    alembic: ForkedCommand, strange: Database, project: Project
) -> None:
    strange.execute("ALTER TABLE events ALTER COLUMN occurred_at TYPE timestamp")
    text = generated(alembic, strange, project)
    asked = "In which time zone are the values of events.occurred_at?"
    assert asked in " ".join(text.replace("--", "").split())
    assert "USING CAST" not in text
