"""Has each of the four roles exactly its rights, and do migrations run as the migrator, by SET ROLE?"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

import psycopg2
import pytest

from tests.support.expect import AT_1, AT_HEAD, ends, events, next_step, succeeds, versions
from tests.support.server import Database, Role

DENIED = (psycopg2.errors.InsufficientPrivilege,)


@dataclass(frozen=True)
class SetUp:
    """A database with the four roles."""

    database: Database
    owner: Role
    migrator: Role
    application: Role
    read_only: Role

    @property
    def flags(self) -> list[str]:
        return [
            f"--{name.replace('_', '-')}={getattr(self, name).name}"
            for name in ("owner", "migrator", "application", "read_only")
        ]

    def dsn(self, role: Role) -> str:
        return self.database.dsn_with(role)

    @property
    def migrating(self) -> dict[str, str]:
        return {"GUVNOR_STORAGE_ROLE": self.owner.name, "GUVNOR_STORAGE_DSN": self.dsn(self.migrator)}

    @property
    def grantees(self) -> dict[str, str]:
        return {"GUVNOR_SCHEMA_GRANTEES": f"{self.application.name},{self.read_only.name}"}

    def run(self, role: Role, sql: str) -> None:
        """Run SQL as a role, and take it back."""
        session = psycopg2.connect(self.dsn(role))
        try:
            with session.cursor() as cursor:
                cursor.execute(sql)
        finally:
            session.rollback()
            session.close()


@pytest.fixture
def roles(server):
    """Four roles that do not exist yet, but are dropped when the test ends."""
    made = [server.create_role() for _ in range(4)]
    for role in made:
        server.execute(f'DROP ROLE "{role.name}"')
    return made


@pytest.fixture
def set_up(server, database, roles, guvnor):
    """The printed SQL, run twice by a superuser in an empty database."""
    made = SetUp(database, *roles)
    sql = succeeds(guvnor("migrate", "roles", *made.flags)).out
    database.execute(sql)
    database.execute(sql)
    give_passwords(server, made)
    return made


def give_passwords(server, made):
    for role in (made.owner, made.migrator, made.application, made.read_only):
        server.execute(f'ALTER ROLE "{role.name}" PASSWORD %s', [role.password])


INCIDENT = (
    "INSERT INTO incidents (title, status, severity, team_id, service_id) "
    "VALUES ('t', 'triggered', 'high', 'x', 'y')"
)
HISTORY = "INSERT INTO guvnor_migration_history (attempt, event, direction, tool) "
READS = [
    "SELECT count(*) FROM incidents",
    "SELECT version_num FROM alembic_version",
    "SELECT version, dirty FROM schema_migrations",
    "SELECT * FROM guvnor_migration_history",
    "SELECT uuid_generate_v4()",
]
WRITES = [
    INCIDENT,
    "UPDATE incidents SET title = 'u'",
    "DELETE FROM incidents",
    "SELECT id FROM incidents FOR UPDATE",
]
BOOKKEEPING = [
    "UPDATE alembic_version SET version_num = '001'",
    "DELETE FROM schema_migrations",
    f"{HISTORY} SELECT gen_random_uuid(), 'succeeded', 'up', 'by hand'",
    "DELETE FROM guvnor_migration_history",
    "TRUNCATE guvnor_migration_history",
]
CHANGES = [
    "CREATE TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "CREATE TYPE mine AS ENUM ('a')",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER TABLE incidents ADD COLUMN mine int",
    "CREATE INDEX mine ON incidents (title)",
    "DROP TABLE events",
    "TRUNCATE events",
    "ALTER TYPE incident_status ADD VALUE 'mine'",
    "DROP FUNCTION update_updated_at_column() CASCADE",
    "CREATE ROLE mine",
    "SET ROLE pg_read_all_data",
]


def test_each_statement_that_is_allowed_or_forbidden(set_up, guvnor):
    succeeds(guvnor("migrate", "up", env=set_up.migrating))
    owner = f'SET ROLE "{set_up.owner.name}"'
    allowed = {
        set_up.application: READS + WRITES,
        set_up.read_only: READS,
        set_up.migrator: [f"{owner}; {sql}" for sql in READS + WRITES + BOOKKEEPING + CHANGES[:10]],
    }
    forbidden = {
        set_up.application: [*CHANGES, *BOOKKEEPING, owner],
        set_up.read_only: [*CHANGES, *BOOKKEEPING, *WRITES, owner],
        set_up.migrator: [
            *CHANGES,
            *BOOKKEEPING,
            *WRITES,
            *READS[:4],
            *(f"{owner}; {sql}" for sql in ("CREATE ROLE mine", "SET ROLE pg_read_all_data")),
        ],
    }
    for role, statements in allowed.items():
        for sql in statements:
            set_up.run(role, sql)
    for role, statements in forbidden.items():
        for sql in statements:
            with pytest.raises(DENIED):
                set_up.run(role, sql)
    with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
        set_up.run(set_up.owner, "SELECT 1")


def test_what_a_superuser_owned_is_taken_over(server, migrated, roles, guvnor):
    """The set-up on a database in use: rows stay, everything belongs to the owner, the schema is clean."""
    made = SetUp(migrated, *roles)
    migrated.execute(INCIDENT)
    migrated.execute(succeeds(guvnor("migrate", "roles", *made.flags)).out)
    give_passwords(server, made)
    assert migrated.execute("SELECT count(*) FROM incidents") == [(1,)]
    succeeds(guvnor("migrate", "roles", "--check", *made.flags, database=migrated), "no more")
    env = {**made.migrating, **made.grantees}
    succeeds(guvnor("schema", "check", env=env))
    succeeds(guvnor("migrate", "down", env=env))
    succeeds(guvnor("migrate", "up", env=env))
    succeeds(guvnor("migrate", "roles", "--check", *made.flags, env=env), "no more")


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_migrations_run_as_the_migrator(tool, set_up, request):
    """All objects belong to the owner; the history says who logged in."""
    command = request.getfixturevalue(tool)
    up, down = (
        (["migrate", "up"], ["migrate", "down"])
        if tool == "guvnor"
        else (["upgrade", "head"], ["downgrade", "-1"])
    )
    result = succeeds(command(*up, env=set_up.migrating))
    assert f"role {set_up.owner.name}, logged in as {set_up.migrator.name}," in result.out
    assert "more than a migration needs" not in result.out
    assert versions(set_up.database) == AT_HEAD
    owners = set_up.database.execute(
        """
        SELECT DISTINCT pg_get_userbyid(relowner)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
        """
    )
    assert owners == [(set_up.owner.name,)]
    who = set_up.database.execute("SELECT DISTINCT database_role FROM guvnor_migration_history")
    assert who == [(set_up.migrator.name,)]
    succeeds(command(*down, env=set_up.migrating))
    assert versions(set_up.database) == AT_1


@pytest.mark.parametrize("at_head", [False, True], ids=["empty", "at the head"])
def test_without_the_role_the_migrator_is_told_to_act_as_the_owner(at_head, set_up, guvnor, alembic):
    """A grant would help, too, and undo the set-up."""
    if at_head:
        succeeds(guvnor("migrate", "up", env=set_up.migrating))
    owner, migrator = set_up.owner.name, set_up.migrator.name
    acting = f"export GUVNOR_STORAGE_ROLE={owner}   # storage.role: role {migrator} acts as it"
    without = {**set_up.migrating, "GUVNOR_STORAGE_ROLE": "none"}
    as_another = {**set_up.migrating, "GUVNOR_STORAGE_ROLE": set_up.application.name}
    set_up.database.execute(f"GRANT {set_up.application.name} TO {migrator}")
    for command, words, env, role in (
        (guvnor, ("migrate", "up"), without, migrator),
        (alembic, ("upgrade", "head"), without, migrator),
        (guvnor, ("migrate", "preflight"), as_another, set_up.application.name),
    ):
        result = ends(command(*words, env=env), 3, f"role {role} may not create tables in schema public")
        assert next_step(result) == [acting]
    if at_head:
        denied = ends(guvnor("schema", "check", env=without), 3, "permission denied")
        assert next_step(denied) == [acting]
    # As somebody typed who followed another hint.
    set_up.database.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {migrator}")
    result = guvnor("migrate", "preflight", env=without)
    assert next_step(ends(result, 3, f"tables belong to {owner}" if at_head else "extension")) == [acting]
    word, setting = shlex.split(next_step(result)[0], comments=True)
    assert word == "export"
    succeeds(guvnor("migrate", "up", env={**without, **dict([setting.split("=")])}))


def test_a_login_that_is_not_meant_to_migrate_is_told_which_one_is(set_up, guvnor):
    owner, migrator, application = (role.name for role in (set_up.owner, set_up.migrator, set_up.application))
    told = [f"Log in as {migrator}, which may act as {owner}, and:", f"export GUVNOR_STORAGE_ROLE={owner}"]
    env = {"GUVNOR_STORAGE_DSN": set_up.dsn(set_up.application)}
    result = ends(guvnor("migrate", "up", env=env), 3, f"role {application} may not create tables")
    assert next_step(result) == told
    env["GUVNOR_STORAGE_ROLE"] = owner
    result = ends(guvnor("migrate", "up", env=env), 3, f"{application} may not act as {owner}")
    assert next_step(result) == told


def test_an_object_of_another_role_is_given_to_the_owner(server, set_up, guvnor, project):
    """The owner stays a member of nobody."""
    succeeds(guvnor("migrate", "up", env=set_up.migrating))
    other = server.create_role()
    set_up.database.execute(f"CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO {other.name}")
    project.add_revision("ALTER TABLE theirs ADD COLUMN name text")
    here = {"env": {**set_up.migrating, "GUVNOR_VERIFY": "no"}, "cwd": project.directory}
    denied = ends(guvnor("migrate", "up", **here), 1, "42501")
    hint = f"ALTER TABLE theirs OWNER TO {set_up.owner.name};   -- as a superuser: {other.name} owns it"
    assert next_step(denied)[0] == hint
    set_up.database.execute(hint)
    succeeds(guvnor("migrate", "up", **here), "Applied 003")
    assert not any(found.startswith("too much") for found in checked(guvnor, set_up, 3))


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_tables_of_future_revisions(tool, set_up, project, request):
    """The application can use a new table at once, and the drift check says nothing of its grants."""
    command = request.getfixturevalue(tool)
    project.add_revision("CREATE TABLE notes (id bigserial PRIMARY KEY, text text)", "DROP TABLE notes")
    up = ["migrate", "up"] if tool == "guvnor" else ["upgrade", "head"]
    succeeds(command(*up, env=set_up.migrating, cwd=project.directory))
    set_up.run(set_up.application, "INSERT INTO notes (text) VALUES ('a'); UPDATE notes SET text = 'b'")
    set_up.run(set_up.application, "DELETE FROM notes")
    set_up.run(set_up.read_only, "SELECT text FROM notes")
    for role, sql in (
        (set_up.application, "TRUNCATE notes"),
        (set_up.application, "SELECT setval('notes_id_seq', 1)"),
        (set_up.read_only, "INSERT INTO notes (text) VALUES ('a')"),
        (set_up.read_only, "SELECT nextval('notes_id_seq')"),
    ):
        with pytest.raises(DENIED):
            set_up.run(role, sql)


def test_drift_knows_the_grants(set_up, guvnor):
    """Privileges that came from default privileges are no finding; only the set-up itself is to be named."""
    succeeds(guvnor("migrate", "up", env=set_up.migrating))
    result = guvnor("schema", "check", "--json", env=set_up.migrating)
    assert result.code == 6
    found = {(finding["kind"], finding["object"]) for finding in json.loads(result.out)["findings"]}
    owner = set_up.owner.name
    assert found == {
        ("privilege", "schema public"),
        ("default privileges", f"tables of {owner} in public"),
        ("default privileges", f"sequences of {owner} in public"),
    }
    succeeds(guvnor("schema", "check", env={**set_up.migrating, **set_up.grantees}))


def test_the_owner_sees_who_blocks(set_up, guvnor):
    """The session that looks on acts as the owner, too, and still sees that the migrator's own one waits."""
    succeeds(guvnor("migrate", "up", "--to", "001", env=set_up.migrating))
    with psycopg2.connect(set_up.dsn(set_up.application), application_name="a report") as session:
        session.cursor().execute("SELECT count(*) FROM incidents")
        result = guvnor("migrate", "up", "--max-wait", "300ms", env=set_up.migrating)
        ends(
            result, 7, f"role {set_up.application.name}, a report, idle in transaction", "last command SELECT"
        )
    session.close()
    succeeds(guvnor("migrate", "up", env=set_up.migrating))


def test_a_role_that_is_not_there_or_may_not_be_set(server, set_up, guvnor, alembic):
    stranger = server.create_role()
    env = {**set_up.migrating, "GUVNOR_STORAGE_ROLE": "Nobody Here"}
    result = ends(guvnor("migrate", "preflight", env=env), 3, "Nobody Here", "storage.role", "does not exist")
    assert "guvnor migrate roles" in next_step(result)[0]
    env["GUVNOR_STORAGE_ROLE"] = stranger.name
    result = ends(guvnor("migrate", "up", env=env), 3, f"may not act as {stranger.name}")
    ends(alembic("upgrade", "head", env=env), 3, f"may not act as {stranger.name}")
    ends(guvnor("migrate", "force", "1", env=env), 3, f"may not act as {stranger.name}")
    assert next_step(result) == [f"GRANT {stranger.name} TO {set_up.migrator.name};"]
    server.execute(next_step(result)[0])
    ends(guvnor("migrate", "preflight", env=env), 3, f"role {stranger.name} may not create tables")
    server.execute(f'REVOKE pg_read_all_stats FROM "{set_up.owner.name}"')
    grant = f"GRANT pg_read_all_stats TO {set_up.owner.name}"
    succeeds(guvnor("migrate", "preflight", env=set_up.migrating), "does not see who waits", grant)
    server.execute(grant)
    assert "does not see who waits" not in guvnor("migrate", "preflight", env=set_up.migrating).out


def test_the_role_comes_from_the_file(set_up, guvnor, tmp_path):
    file = tmp_path / "guvnor.yaml"
    file.write_text(
        f"storage:\n  role: {set_up.owner.name}\n  dsn: {json.dumps(set_up.dsn(set_up.migrator))}\n"
    )
    succeeds(guvnor("migrate", "up", "--config", file), f"logged in as {set_up.migrator.name}")
    assert events(set_up.database)[-1] == ("succeeded", "up", "002")


def test_preflight_warns_of_too_much(server, database, guvnor):
    assert (
        "is a superuser: more than a migration needs" in guvnor("migrate", "preflight", database=database).out
    )
    role = server.create_role("CREATEDB BYPASSRLS")
    database.execute(f'GRANT ALL ON SCHEMA public TO "{role.name}"')
    database.execute(f'GRANT CREATE ON DATABASE "{database.name}" TO "{role.name}"')
    result = succeeds(guvnor("migrate", "preflight", database=database.dsn_with(role)))
    assert f"role {role.name} has BYPASSRLS, CREATEDB: more than a migration needs" in result.out


def checked(guvnor, made, code):
    result = ends(guvnor("migrate", "roles", "--check", "--json", *made.flags, database=made.database), code)
    return [f"{found['kind']}: {found['role']} {found['what']}" for found in json.loads(result.out)]


def test_the_check_names_what_is_missing_and_what_is_too_much(set_up, guvnor):
    succeeds(guvnor("migrate", "up", env=set_up.migrating))
    assert checked(guvnor, set_up, 0) == []
    owner, migrator, app, reader = (
        role.name for role in (set_up.owner, set_up.migrator, set_up.application, set_up.read_only)
    )
    execute = set_up.database.execute
    for change, finding in (
        (f"GRANT TRUNCATE ON events TO {app}", f"too much: {app} has TRUNCATE on table events"),
        (f"GRANT pg_write_all_data TO {reader}", f"too much: {reader} is a member of pg_write_all_data"),
        (
            f"ALTER ROLE {migrator} INHERIT",
            f"too much: {migrator} has the rights of the owner without SET ROLE",
        ),
        (f"ALTER ROLE {app} CREATEDB", f"too much: {app} has CREATEDB"),
        (f"ALTER ROLE {owner} LOGIN", f"too much: {owner} can log in"),
        (f"GRANT CREATE ON SCHEMA public TO {app}", f"too much: {app} has CREATE on schema public"),
    ):
        execute(change)
        assert any(found.startswith(finding) for found in checked(guvnor, set_up, 0)), finding
    for change, finding in (
        (f"REVOKE INSERT ON incidents FROM {app}", f"missing: {app} lacks INSERT on table incidents"),
        (f"REVOKE {owner} FROM {migrator}", f"missing: {migrator} may not act as {owner}"),
        (f"ALTER ROLE {reader} NOLOGIN", f"missing: {reader} cannot log in"),
        ("ALTER TABLE signals OWNER TO CURRENT_USER", f"missing: {owner} does not own the table signals"),
        (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public REVOKE DELETE ON TABLES FROM {app}",
            f"missing: {app} lacks DELETE on the tables of future revisions",
        ),
    ):
        execute(change)
        assert any(found.startswith(finding) for found in checked(guvnor, set_up, 3)), finding
    result = guvnor("migrate", "roles", "--check", *set_up.flags, database=set_up.database)
    ends(result, 3, f"❌ missing: role {app} lacks INSERT on table incidents", "⚠️  too much: role ")

    # The script gives what is missing and takes rights away, but neither attributes nor memberships.
    execute(succeeds(guvnor("migrate", "roles", *set_up.flags)).out)
    assert {found.split(": ")[0] for found in checked(guvnor, set_up, 0)} == {"too much"}
    execute(f"REVOKE pg_write_all_data FROM {reader}; ALTER ROLE {app} NOCREATEDB")
    assert checked(guvnor, set_up, 0) == []


def test_the_check_of_roles_that_do_not_exist(database, roles, guvnor):
    made = SetUp(database, *roles)
    found = checked(guvnor, made, 3)
    assert {f"missing: {role.name} does not exist" for role in roles} <= set(found)


def test_an_administrator_who_is_no_superuser(server, roles, guvnor):
    """As on a managed server: CREATEROLE, and the database is theirs."""
    admin = server.create_role("CREATEROLE")
    if server.major >= 16:
        server.execute(f'GRANT pg_read_all_stats TO "{admin.name}" WITH ADMIN OPTION')
    made = SetUp(server.create_database(owner=admin), *roles)
    if server.major < 15:
        made.database.execute(f'ALTER SCHEMA public OWNER TO "{admin.name}"')
    sql = succeeds(guvnor("migrate", "roles", *made.flags)).out
    with psycopg2.connect(made.dsn(admin)) as session:
        session.autocommit = True
        session.cursor().execute(sql)
    session.close()
    give_passwords(server, made)
    assert checked(guvnor, made, 0) == []
    succeeds(guvnor("migrate", "up", env=made.migrating))
    assert checked(guvnor, made, 0) == []


def test_names_that_need_quotes(database, roles, guvnor):
    odd = [f"{role.name} Odd'\"" for role in roles]
    flags = [
        f"--{flag}={name}"
        for flag, name in zip(("owner", "migrator", "application", "read-only"), odd, strict=True)
    ]
    try:
        database.execute(succeeds(guvnor("migrate", "roles", *flags)).out)
        succeeds(guvnor("migrate", "roles", "--check", *flags, database=database), "no more")
    finally:
        for name in reversed(odd):
            quoted = '"' + name.replace('"', '""') + '"'
            database.execute(f"DROP OWNED BY {quoted} CASCADE; DROP ROLE IF EXISTS {quoted}")


def test_the_script_as_json(guvnor):
    shown = json.loads(succeeds(guvnor("migrate", "roles", "--json", "--owner", "me")).out)
    assert shown["roles"] == {
        "owner": "me",
        "migrator": "guvnor_migrator",
        "application": "guvnor_app",
        "read_only": "guvnor_readonly",
    }
    assert "PASSWORD" not in shown["sql"]
