"""Does the server refuse what row security would hide from the migrator, and is it said what to do?"""

from __future__ import annotations

import gzip
import json
import re

import pytest

from tests.support.expect import AT_1, AT_HEAD, ends, next_step, succeeds, versions
from tests.support.forked import ForkedCommand

PRODUCTION = {"GUVNOR_ENV": "production"}
BACK = "op.execute('SELECT 1')"  # every revision has a way back
INCIDENTS = """
    INSERT INTO incidents (title, status, severity, team_id, service_id)
    SELECT 'Incident ' || n, 'triggered', 'high', 'team', 'service' FROM generate_series(1, 20) AS n
"""
BACKFILL = """op.backfill("incidents", "title = 'filled'", "title <> 'filled'")"""


def force(database, table):
    """Hide all rows of a table from its owner, too."""
    database.execute(f"""
        CREATE POLICY nobody ON {table} USING (false) WITH CHECK (true);
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    """)


def is_forced(database, table):
    sql = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = %s::regclass"
    return database.execute(sql, [table]) == [(True,)]


@pytest.fixture(scope="module")
def template(server, tmp_path_factory):
    """A database at the head, with 20 incidents, whose owner is no superuser."""
    migrator = server.create_role()
    made = server.create_database(owner=migrator, keep=True)
    command = ForkedCommand("guvnor", tmp_path_factory.mktemp("template"))
    succeeds(command("migrate", "up", database=made.dsn_with(migrator)))
    made.execute(INCIDENTS)
    return made, migrator


@pytest.fixture
def owned(server, template):
    return server.create_database(template[0], owner=template[1])


@pytest.fixture
def migrator(server, template):
    yield template[1]
    server.execute(f'ALTER ROLE "{template[1].name}" NOBYPASSRLS')


@pytest.fixture
def dsn(owned, migrator):
    return owned.dsn_with(migrator)


def bypass(migrator):
    return f"ALTER ROLE {migrator.name} BYPASSRLS;"


# -- what a revision does --


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_backfill_is_refused_until_the_role_may_see_all_rows(
    owned, dsn, migrator, project, guvnor, alembic, tool
):
    force(owned, "incidents")
    project.add_revision(BACKFILL, BACK, python=True)
    command, words = (guvnor, ("migrate", "up")) if tool == "guvnor" else (alembic, ("upgrade", "head"))
    failed = ends(command(*words, database=dsn, cwd=project.directory), 1, "42501", "half done")
    assert "Hint:" not in failed.err, "the server's hint is to lift the policy"
    assert next_step(failed)[0].startswith(bypass(migrator))
    assert next_step(failed)[1] == ("guvnor migrate up" if tool == "guvnor" else "alembic upgrade head")
    assert "NO FORCE is committed at once" in next_step(failed)[2]
    assert next_step(failed)[3].startswith("guvnor migrate repair --back ")
    assert owned.execute("SELECT count(*) FROM incidents WHERE title = 'filled'") == [(0,)]
    owned.execute(next_step(failed)[0])
    succeeds(command(*words, database=dsn, cwd=project.directory))
    assert owned.execute("SELECT count(*) FROM incidents WHERE title = 'filled'") == [(20,)]
    assert is_forced(owned, "incidents")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE incidents SET title = 'x'",
        "DELETE FROM incidents",
        INCIDENTS,
        "CREATE TABLE copies AS SELECT * FROM incidents",
        "ALTER TABLE signals ADD COLUMN incident_id uuid REFERENCES incidents DEFAULT uuid_generate_v4()",
    ],
)
def test_what_reads_or_writes_rows_is_refused_as_a_whole(owned, dsn, migrator, project, guvnor, statement):
    owned.execute("INSERT INTO signals (source, title, severity) VALUES ('s', 't', 'low')")
    force(owned, "incidents")
    project.add_revision(statement)
    failed = ends(guvnor("migrate", "up", database=dsn, cwd=project.directory), 1, "42501", "rolled back")
    assert next_step(failed)[0].startswith(bypass(migrator))
    assert "ALTER TABLE incidents NO FORCE ROW LEVEL SECURITY before the statement" in next_step(failed)[2]
    assert versions(owned) == AT_HEAD


def test_a_revision_may_exempt_the_owner_within_its_transaction(owned, dsn, project, guvnor):
    force(owned, "incidents")
    project.add_revision(
        """
        ALTER TABLE incidents NO FORCE ROW LEVEL SECURITY;
        UPDATE incidents SET title = 'filled';
        ALTER TABLE incidents FORCE ROW LEVEL SECURITY;
        """
    )
    succeeds(guvnor("migrate", "up", database=dsn, cwd=project.directory))
    assert owned.execute("SELECT count(*) FROM incidents WHERE title = 'filled'") == [(20,)]
    assert is_forced(owned, "incidents")


def test_what_changes_only_the_table_passes(owned, dsn, project, guvnor):
    force(owned, "incidents")
    project.add_revision(
        """
op.execute("ALTER TABLE incidents ADD COLUMN region text NOT NULL DEFAULT 'eu'")
op.execute("ALTER TABLE incidents ADD CONSTRAINT named CHECK (title <> '') NOT VALID")
op.execute("CREATE INDEX by_region ON incidents (region)")
op.create_index_concurrently("by_title", "CREATE INDEX CONCURRENTLY by_title ON incidents (title)")
op.validate_constraint("incidents", "named")
op.set_not_null("incidents", "title")
        """,
        BACK,
        python=True,
    )
    succeeds(guvnor("migrate", "up", database=dsn, cwd=project.directory))


def test_what_a_revision_sets_ends_with_it(owned, dsn, project, guvnor):
    """Neither an online step nor the next revision takes over that rows are hidden."""
    force(owned, "incidents")
    project.add_revision("SET row_security = on", name="sets")
    project.add_revision(f'op.execute("SET row_security = on")\n{BACKFILL}', BACK, name="fills", python=True)
    failed = ends(guvnor("migrate", "up", database=dsn, cwd=project.directory), 1, "42501")
    assert "revision 003 applied" in failed.err
    assert owned.execute("SELECT count(*) FROM incidents WHERE title = 'filled'") == [(0,)]


def test_a_table_that_does_not_belong_to_the_role_cannot_be_exempted_by_it(
    server, owned, dsn, migrator, project, guvnor
):
    owner = server.create_role()
    owned.execute(f"""
        CREATE TABLE theirs (i integer);
        ALTER TABLE theirs OWNER TO "{owner.name}";
        GRANT SELECT, UPDATE ON theirs TO "{migrator.name}";
        ALTER TABLE theirs ENABLE ROW LEVEL SECURITY;
    """)
    project.add_revision("UPDATE theirs SET i = 1")
    failed = ends(guvnor("migrate", "up", database=dsn, cwd=project.directory), 1, "42501", "rolled back")
    assert next_step(failed)[0].startswith(bypass(migrator))
    assert "NO FORCE" not in failed.err


def test_the_expected_schema_is_built_all_the_same(owned, dsn, project, guvnor):
    """It has no rows that could be hidden."""
    project.add_revision(
        "CREATE POLICY team ON incidents; "
        "ALTER TABLE incidents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        name="forces",
    )
    project.add_revision(BACKFILL, BACK, name="fills", python=True)
    succeeds(guvnor("migrate", "up", database=owned, cwd=project.directory))
    succeeds(guvnor("schema", "check", database=dsn, cwd=project.directory))


# -- what a rollback loses --


@pytest.fixture
def audited(owned):
    owned.execute("""
        INSERT INTO audit_logs (entity_type, entity_id, action, actor)
        SELECT 'incident', n::text, 'create', 'ada' FROM generate_series(1, 50) AS n
    """)
    force(owned, "audit_logs")
    return owned


def test_rows_that_cannot_be_counted_are_a_loss(audited, dsn, guvnor):
    flags = ("migrate", "down")
    refused = ends(guvnor(*flags, database=dsn, env=PRODUCTION), 4, "no directory is named for it")
    assert "table audit_logs, which could not be counted" in refused.err
    planned = json.loads(succeeds(guvnor("migrate", "plan", "down", "--json", database=dsn)).out)
    (lost,) = [loss for loss in planned["losses"] if loss["name"] == "audit_logs"]
    assert (lost["count"], lost["exact"]) == (None, False)
    audited.execute("ANALYZE audit_logs")
    refused = ends(guvnor(*flags, "--no-backup", database=dsn, env=PRODUCTION), 4)
    assert "table audit_logs with about 50 rows" in refused.err
    shown = succeeds(guvnor("migrate", "plan", "down", database=dsn))
    assert "about 50 rows" in shown.out
    assert versions(audited) == AT_HEAD


@pytest.mark.usefixtures("tools")  # without a pg_dump for this server, the test is skipped
@pytest.mark.parametrize("whole", [False, True])
def test_no_backup_is_promised_that_cannot_be_taken(audited, dsn, migrator, guvnor, directory, whole):
    env = dict(PRODUCTION)
    if whole:  # what is dropped is unknown
        env["GUVNOR_SHADOW_DSN"] = "host=127.0.0.1 port=1 dbname=scratch user=nobody"
    flags = ("migrate", "down", "--backup", directory)
    refused = ends(guvnor(*flags, database=dsn, env=env), 3, "cannot be backed up: audit_logs")
    assert next_step(refused)[0].startswith(bypass(migrator))
    assert list(directory.iterdir()) == []
    assert versions(audited) == AT_HEAD
    audited.execute(next_step(refused)[0])
    asked = ends(guvnor(*flags, database=dsn, env=env), 4)
    assert whole or "table audit_logs with 50 rows" in asked.err
    confirm = ("--confirm", re.findall(r"Plan hash: ([0-9a-f]{16})", asked.err)[-1])
    succeeds(guvnor(*flags, *confirm, database=dsn, env=env), "Backup taken")
    assert versions(audited) == AT_1
    if not whole:
        (file,) = directory.glob("*.gz")
        assert b"-- Rows: 50\n" in gzip.decompress(file.read_bytes())


# -- what is said before --


def test_preflight_names_the_tables(owned, dsn, migrator, server, guvnor):
    assert "row security" not in succeeds(guvnor("migrate", "preflight", database=dsn)).out
    for table in ("incidents", "audit_logs"):
        force(owned, table)
    named = f"row security hides rows from role {migrator.name}"
    shown = succeeds(guvnor("migrate", "preflight", database=dsn), named)
    assert "rows of: audit_logs, incidents (ALTER ROLE" in shown.out
    group = server.create_role("BYPASSRLS")
    server.execute(f'GRANT "{group.name}" TO "{migrator.name}"')
    succeeds(guvnor("migrate", "preflight", database=dsn), named)  # no member inherits it
    server.execute(f'ALTER ROLE "{migrator.name}" BYPASSRLS')
    shown = succeeds(guvnor("migrate", "preflight", database=dsn))
    assert "row security" not in shown.out
    assert "BYPASSRLS" not in shown.out
    owned.execute("ALTER TABLE incidents DISABLE ROW LEVEL SECURITY; DROP TABLE audit_logs")
    assert (
        f"role {migrator.name} has BYPASSRLS: more than" in guvnor("migrate", "preflight", database=dsn).out
    )


def test_the_role_that_is_acted_as_needs_it_and_not_the_login(owned, migrator, server, guvnor):
    force(owned, "incidents")
    login = server.create_role("BYPASSRLS")
    server.execute(f'GRANT "{migrator.name}" TO "{login.name}"; GRANT pg_read_all_stats TO "{migrator.name}"')
    env = {"GUVNOR_STORAGE_ROLE": migrator.name}
    shown = succeeds(guvnor("migrate", "preflight", database=owned.dsn_with(login), env=env))
    assert f"row security hides rows from role {migrator.name}" in shown.out
    assert f"role {login.name} has BYPASSRLS: more than a migration needs" in shown.out


def test_the_check_of_the_roles_leaves_it_to_the_owner_where_a_table_is_forced(
    owned, migrator, server, guvnor
):
    application = server.create_role("BYPASSRLS")
    server.execute(f'ALTER ROLE "{migrator.name}" BYPASSRLS')
    words = ("migrate", "roles", "--check", "--json", f"--owner={migrator.name}")

    def bypassing():
        shown = guvnor(*words, f"--application={application.name}", database=owned)
        return {d["role"] for d in json.loads(shown.out) if d["what"] == "has BYPASSRLS"}

    assert bypassing() == {migrator.name, application.name}
    force(owned, "incidents")
    assert bypassing() == {application.name}
