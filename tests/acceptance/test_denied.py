"""When the server denies a revision something, is the grant or the owner named that helps?"""

from __future__ import annotations

import pytest

from tests.support.expect import ends, next_step, succeeds


@pytest.fixture
def migrator(server):
    return server.create_role()


@pytest.fixture
def owned(server, migrator, guvnor):
    """A database at the head whose owner is no superuser."""
    database = server.create_database(owner=migrator)
    succeeds(guvnor("migrate", "up", database=database.dsn_with(migrator)))
    return database


@pytest.fixture
def up(guvnor, project, owned, migrator):
    return lambda: guvnor("migrate", "up", database=owned.dsn_with(migrator), cwd=project.directory)


def denied(result):
    failed = ends(result, 1, "42501", "rolled back")
    assert "preflight" not in failed.err, "which passes"
    return next_step(failed)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE theirs ADD COLUMN name text",
        "INSERT INTO theirs VALUES (1)",
        "CREATE TABLE mine (i integer REFERENCES theirs)",
    ],
)
def test_a_table_of_another_role(server, owned, migrator, project, up, statement):
    owner = server.create_role()
    owned.execute(f'CREATE TABLE theirs (i integer PRIMARY KEY); ALTER TABLE theirs OWNER TO "{owner.name}"')
    project.add_revision(statement)
    advice = denied(up())
    assert advice == [
        f"GRANT {owner.name} TO {migrator.name};   -- {owner.name} owns theirs",
        "guvnor migrate up",
    ]
    owned.execute(advice[0])
    succeeds(up(), "Applied 003")


def test_a_table_of_a_superuser(owned, migrator, project, up):
    """Nobody is told to give a superuser's rights away."""
    owned.execute("CREATE TABLE theirs (i integer); CREATE TYPE level AS ENUM ('low')")
    project.add_revision("ALTER TABLE theirs ADD COLUMN name text; ALTER TYPE level ADD VALUE 'high'")
    advice = denied(up())
    assert [line.partition(";")[0] for line in advice] == [
        f"ALTER TYPE level OWNER TO {migrator.name}",
        f"ALTER TABLE theirs OWNER TO {migrator.name}",
        "guvnor migrate up",
    ]
    for line in advice[:2]:
        owned.execute(line)
    succeeds(up(), "Applied 003")


def test_a_table_among_many_of_a_superuser(owned, migrator, project, up):
    owned.execute("; ".join(f"CREATE TABLE theirs_{n} ()" for n in range(4)))
    project.add_revision("ALTER TABLE theirs_3 ADD COLUMN name text")
    advice = denied(up())
    assert advice[0].startswith(f"ALTER ... OWNER TO {migrator.name};")
    assert "owns 4 objects of the schema: the one that the message names" in advice[0]


def test_a_schema_in_a_database_of_another_role(owned, migrator, project, up):
    owned.execute(f'ALTER DATABASE "{owned.name}" OWNER TO CURRENT_USER')
    owned.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{migrator.name}"')
    project.add_revision("CREATE SCHEMA reports")
    advice = denied(up())
    assert advice[0].startswith(f"GRANT CREATE ON DATABASE {owned.name} TO {migrator.name};")
    owned.execute(advice[0])
    succeeds(up(), "Applied 003")


def test_a_right_that_no_grant_gives(project, up, migrator):
    project.add_revision("CREATE ROLE of_a_revision")
    assert denied(up()) == [
        f"Give role {migrator.name} the right that the message names, or have a superuser run the statement.",
        "guvnor migrate up",
    ]
