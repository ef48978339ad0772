"""Is a database that nobody changed free of findings, however it came about?"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extensions import parse_dsn

from guvnor.database import Database as Live
from guvnor.embedded.programs import binaries
from guvnor.models import metadata
from guvnor.revisions.files import configuration_file
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport
from guvnor.schema.shadow_errors import ShadowUnavailableError
from tests.support import revision_runner
from tests.support.server import Database, Role, Server


@pytest.fixture(scope="module")
def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(configuration_file()))


def found(report: DriftReport) -> list[str]:
    return [finding.title for finding in report.findings]


def test_at_the_head(migrated: Database, script: ScriptDirectory) -> None:
    report = drift.check(Live(migrated.dsn), script)
    assert found(report) == []
    assert report.clean
    assert report.expected == f"revision {script.get_current_head()}"


def test_at_version_1(at_version_1: Database, script: ScriptDirectory) -> None:
    report = drift.check(Live(at_version_1.dsn), script)
    assert found(report) == []
    assert report.expected == "revision 001"


def test_empty(database: Database, script: ScriptDirectory) -> None:
    assert found(drift.check(Live(database.dsn), script)) == []


def test_against_the_models(migrated: Database, script: ScriptDirectory) -> None:
    assert found(drift.check(Live(migrated.dsn), script, models=metadata)) == []


def test_version_1_against_the_models_lacks_what_version_2_adds(
    at_version_1: Database, script: ScriptDirectory
) -> None:
    titles = found(drift.check(Live(at_version_1.dsn), script, models=metadata))
    assert "table escalation_policies is missing" in titles
    assert "column incidents.escalation_policy_id is missing" in titles


def test_revisions_against_the_models_without_a_database(database: Database, script: ScriptDirectory) -> None:
    before = objects(database)
    assert found(drift.check_files(Live(database.dsn), script, metadata)) == []
    assert objects(database) == before


def test_after_down_and_up(migrated: Database, script: ScriptDirectory) -> None:
    revision_runner.migrate(migrated, ("002", "downgrade"), ("001", "downgrade"))
    assert found(drift.check(Live(migrated.dsn), script, revision="base")) == extensions(migrated)
    revision_runner.migrate(migrated, ("001", "upgrade"), ("002", "upgrade"))
    assert found(drift.check(Live(migrated.dsn), script)) == []


def test_after_dump_and_restore(
    migrated: Database, server: Server, script: ScriptDirectory, tmp_path: Path
) -> None:
    pg_dump = program("pg_dump", server.major)
    archive = tmp_path / "dump"
    connection = parse_dsn(migrated.dsn)
    environment = os.environ | {"PGPASSWORD": connection.pop("password", "")}

    def run(tool: str, database: str, *arguments: str) -> None:
        place = [f"--{key}={connection[key]}" for key in ("host", "port") if key in connection]
        place += [f"--username={connection['user']}", f"--dbname={database}"]
        subprocess.run([tool, *place, *arguments], env=environment, check=True, timeout=60)

    restored = server.create_database()
    run(pg_dump, migrated.name, f"--file={archive}")
    # A newer pg_dump sets what an older server does not know; psql goes on after that.
    run(str(Path(pg_dump).with_name("psql")), restored.name, "--no-psqlrc", "--quiet", f"--file={archive}")
    assert len(restored.execute("SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace")) > 50
    assert found(drift.check(Live(restored.dsn), script)) == []
    assert found(drift.check(Live(restored.dsn), script, models=metadata)) == []


def test_with_another_owner_of_the_schema(
    migrated: Database, server: Server, script: ScriptDirectory
) -> None:
    migrated.execute(f'ALTER SCHEMA public OWNER TO "{server.create_role().name}"')
    assert found(drift.check(Live(migrated.dsn), script)) == []


def test_owned_by_another_role_than_the_one_that_checks(
    migrated: Database, server: Server, script: ScriptDirectory
) -> None:
    role = server.create_role()
    hand_over(migrated, role)
    assert found(drift.check(Live(migrated.dsn), script)) == []
    migrated.execute(f'GRANT CREATE ON DATABASE "{migrated.name}" TO "{role.name}"')
    assert found(drift.check(Live(migrated.dsn_with(role)), script)) == []


def test_with_other_settings_of_the_role(migrated: Database, server: Server, script: ScriptDirectory) -> None:
    role = server.create_role("SUPERUSER")
    for setting in (
        "search_path = elsewhere, pg_temp",
        "quote_all_identifiers = on",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'iso_8601'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "TimeZone = 'Asia/Tokyo'",
    ):
        server.execute(f'ALTER ROLE "{role.name}" SET {setting}')
    assert found(drift.check(Live(migrated.dsn_with(role)), script)) == []
    assert found(drift.check(Live(migrated.dsn_with(role)), script, models=metadata)) == []


def test_with_the_stand_in_where_the_role_may_not_create_extensions(
    server: Server, database: Database, script: ScriptDirectory
) -> None:
    if database.execute("SELECT name FROM pg_available_extensions WHERE name = 'uuid-ossp'") == []:
        pytest.skip("without uuid-ossp, nothing tells that the role was refused the extensions")
    role = server.create_role()
    database.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role.name}"')
    limited = Database(database.dsn_with(role), database.name)
    revision_runner.migrate(limited, ("001", "upgrade"), ("002", "upgrade"))
    assert database.execute("SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'") == [(0,)]
    # By a role that may create extensions, and by one that may not.
    for dsn in (database.dsn, limited.dsn):
        side = server.create_database().dsn
        report = drift.check(Live(dsn, shadow_dsn=side, grantees=(role.name,)), script, revision="002")
        assert found(report) == []
    assert found(drift.check(Live(database.dsn, grantees=(role.name,)), script, revision="002")) == []


def test_with_the_extension_where_the_shadow_has_the_stand_in(
    migrated: Database, server: Server, script: ScriptDirectory
) -> None:
    # Revision 001 keeps the function that is there, and makes no extension beside it.
    side = server.create_database()
    side.execute("CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'")
    assert found(drift.check(Live(migrated.dsn, shadow_dsn=side.dsn), script)) == []


def test_extensions_in_a_schema_of_their_own(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute("CREATE SCHEMA extensions; ALTER EXTENSION btree_gin SET SCHEMA extensions")
    assert found(drift.check(Live(migrated.dsn), script)) == ["extension btree_gin is different"]
    assert found(drift.check(Live(migrated.dsn, ignore=("extension:*",)), script)) == []


def test_data_sequences_and_statistics_are_no_drift(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute(
        "INSERT INTO incidents (title, severity, team_id) SELECT 't', 'high', 'a' FROM generate_series(1, 9);"
        "ANALYZE incidents"
    )
    assert found(drift.check(Live(migrated.dsn), script)) == []


def test_what_extensions_bring_is_no_drift(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute("CREATE EXTENSION pg_stat_statements")
    report = drift.check(Live(migrated.dsn), script)
    assert found(report) == ["extension pg_stat_statements is unexpected"]
    assert found(drift.check(Live(migrated.dsn, ignore=("extension:pg_stat_statements",)), script)) == []


def test_objects_of_others_are_left_alone(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute(
        "CREATE TABLE report_cache (id serial PRIMARY KEY, n integer);"
        "CREATE INDEX report_tmp ON incidents (title);"
        "CREATE FUNCTION report_it() RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    )
    assert len(found(drift.check(Live(migrated.dsn), script))) == 3
    ignore = ["report_*", "index:incidents.report_*"]
    assert found(drift.check(Live(migrated.dsn, ignore=ignore), script)) == []


def test_grants_that_are_configured_or_given_by_default(
    migrated: Database, server: Server, script: ScriptDirectory
) -> None:
    application, reader = server.create_role().name, server.create_role().name
    migrated.execute(
        f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "{application}";'
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{reader}";'
        f'GRANT SELECT ON incidents, events TO "{reader}"'
    )
    titles = found(drift.check(Live(migrated.dsn, grantees=(application,)), script))
    assert [title.partition(" ")[0] for title in titles] == ["default"]
    both = Live(migrated.dsn, grantees=(application, reader))
    assert found(drift.check(both, script)) == []


def test_a_role_that_may_only_read_needs_a_shadow_server(
    migrated: Database, server: Server, script: ScriptDirectory
) -> None:
    role = server.create_role()
    migrated.execute(f'GRANT SELECT ON alembic_version TO "{role.name}"')
    with pytest.raises(ShadowUnavailableError) as failure:
        drift.check(Live(migrated.dsn_with(role)), script)
    assert failure.value.exit_code == 3
    assert "GUVNOR_SHADOW_DSN=" in (failure.value.next_step or "")

    side = server.create_database()
    assert found(drift.check(Live(migrated.dsn_with(role), shadow_dsn=side.dsn), script)) == []
    migrated.execute(
        "DROP INDEX idx_incidents_status;ALTER TABLE incidents DROP CONSTRAINT incident_title_not_empty"
    )
    assert found(drift.check(Live(migrated.dsn_with(role), shadow_dsn=side.dsn), script)) == [
        "constraint incidents.incident_title_not_empty is missing",
        "index incidents.idx_incidents_status is missing",
    ]


def hand_over(database: Database, role: Role) -> None:
    """Make a role the owner of everything in the schema."""
    database.execute(f"""
        DO $$
        DECLARE statement text;
        BEGIN
            FOR statement IN
                SELECT format('ALTER TABLE %s OWNER TO "{role.name}"', oid::regclass) FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                UNION ALL
                SELECT format('ALTER TYPE %s OWNER TO "{role.name}"', oid::regtype) FROM pg_type
                WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
                UNION ALL
                SELECT format('ALTER FUNCTION %s OWNER TO "{role.name}"', oid::regprocedure) FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace
                  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
            LOOP
                EXECUTE statement;
            END LOOP;
        END
        $$
    """)


def objects(database: Database) -> list[tuple[str, ...]]:
    return database.execute(
        "SELECT oid::text FROM pg_class UNION ALL SELECT oid::text FROM pg_namespace ORDER BY 1"
    )


def extensions(database: Database) -> list[str]:
    """What the downgrade of 001 leaves: the extensions, as findings against an empty database."""
    rows = database.execute(
        "SELECT format('extension %I is unexpected', extname) FROM pg_extension"
        " WHERE extname <> 'plpgsql' ORDER BY 1"
    )
    return [title for (title,) in rows]


def program(name: str, major: int) -> str:
    """Find a client program that is at least as new as the server."""
    for candidate in (shutil.which(name), str(binaries() / name)):
        if candidate and Path(candidate).exists():
            version = subprocess.run(
                [candidate, "--version"], capture_output=True, text=True, check=True
            ).stdout
            if int(version.split()[2].partition(".")[0]) >= major:
                return candidate
    pytest.skip(f"no {name} for PostgreSQL {major}")
