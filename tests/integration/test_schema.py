"""Do the revisions, and the models, make exactly the schema that deployed databases have?"""

from __future__ import annotations

from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from guvnor import models
from tests.support import facts
from tests.support.revision_runner import connect, migrate, run
from tests.support.sample_data import contents, fill

TO_HEAD = (("001", "upgrade"), ("002", "upgrade"))


def read(database):
    with closing(database.connect()) as connection:
        return facts.read(connection)


def details(database):
    with closing(database.connect()) as connection:
        return facts.details(connection)


def expected(database, version):
    with closing(database.connect()) as connection:
        return facts.expected(connection, version)


def succeeds(result):
    assert result.code == 0, result.out + result.err


def has_extension(database, name):
    return bool(database.execute("SELECT 1 FROM pg_available_extensions WHERE name = %s", (name,)))


# Up and down


def test_each_version_is_what_deployed_databases_have(database, guvnor):
    succeeds(guvnor("migrate", "up", "--to", "001", database=database))
    assert read(database) == expected(database, 1)

    succeeds(guvnor("migrate", "up", database=database))
    assert read(database) == expected(database, 2)

    succeeds(guvnor("migrate", "down", database=database))
    assert read(database) == expected(database, 1)

    succeeds(guvnor("migrate", "down", database=database))
    assert read(database) == expected(database, 0)


def test_nothing_of_ours_remains_but_the_extensions(database):
    before = details(database)
    migrate(database, *TO_HEAD, ("002", "downgrade"), ("001", "downgrade"))
    assert details(database) == before


@pytest.mark.parametrize("version", [1, 2])
def test_an_upgrade_over_its_own_result_changes_nothing(database, version):
    migrate(database, *TO_HEAD[:version])
    fill(database)
    before = details(database), contents(database)
    migrate(database, TO_HEAD[version - 1])
    assert read(database) == expected(database, version)
    assert (details(database), contents(database)) == before


@pytest.mark.parametrize("version", [1, 2])
def test_a_downgrade_over_its_own_result_changes_nothing(database, version):
    revision = f"00{version}"
    migrate(database, *TO_HEAD[:version])
    migrate(database, (revision, "downgrade"))
    before = details(database)
    migrate(database, (revision, "downgrade"))
    assert read(database) == expected(database, version - 1)
    assert details(database) == before


def test_up_down_up_with_data_in_every_table(database, guvnor):
    succeeds(guvnor("migrate", "up", "--to", "001", database=database))
    fill(database)
    at_1 = contents(database)
    assert all(at_1.values()), "a table of version 1 was left empty"

    succeeds(guvnor("migrate", "up", database=database))
    for row in at_1["incidents"]:
        row["escalation_policy_id"] = None
    assert {table: rows for table, rows in contents(database).items() if table in at_1} == at_1
    fill(database)
    at_2 = contents(database)
    assert all(at_2.values()), "a table of version 2 was left empty"

    succeeds(guvnor("migrate", "down", database=database))
    survivors = {table: at_2[table] for table in at_1}
    for row in survivors["incidents"]:
        del row["escalation_policy_id"]
    assert contents(database) == survivors

    succeeds(guvnor("migrate", "up", database=database))
    assert read(database) == expected(database, 2)
    for row in survivors["incidents"]:
        row["escalation_policy_id"] = None
    after = contents(database)
    assert {table: after[table] for table in at_1} == survivors
    assert not any(after[table] for table in after if table not in at_1)


def test_an_update_moves_updated_at(database):
    migrate(database, *TO_HEAD)
    fill(database)
    tables = database.execute("SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal")
    assert len(tables) == 6
    for (table,) in tables:
        database.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        database.execute(f"UPDATE {table} SET updated_at = '2020-01-01'")
        database.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        database.execute(f"UPDATE {table} SET id = id")
        assert database.execute(f"SELECT bool_and(updated_at > '2021-01-01') FROM {table}") == [(True,)]


def test_a_resumed_upgrade_does_not_stop_the_readers_of_existing_tables(database):
    """An interrupted run may have left its index build on the server: nothing may queue behind that."""
    migrate(database, *TO_HEAD)
    with connect(database) as connection, connection.begin():
        run(connection, "002", "upgrade")
        modes = set(connection.scalars(text(LOCKS_IN_PUBLIC)))
    assert modes <= {"AccessShareLock", "ShareLock"}


def test_the_way_back_waits_for_the_new_tables_before_it_locks_incidents(database):
    migrate(database, *TO_HEAD)
    with closing(database.connect()) as reader, connect(database) as connection:
        reader.autocommit = False
        reader.cursor().execute("SELECT FROM escalation_policies")
        connection.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(OperationalError) as failure:
            run(connection, "002", "downgrade")
    assert failure.value.orig.pgcode == "55P03"
    assert "incidents" not in failure.value.statement


# Extensions


def test_without_the_right_to_create_extensions_a_function_stands_in(database):
    with connect(database) as connection, connection.begin() as transaction:
        plain = f"plain_{database.name}"
        connection.execute(text(f'CREATE ROLE "{plain}"'))
        connection.execute(text(f'GRANT CREATE, USAGE ON SCHEMA public TO "{plain}"'))
        connection.execute(text(f'SET LOCAL ROLE "{plain}"'))
        for revision, direction in TO_HEAD:
            run(connection, revision, direction)
        wanted = expected(database, 2)
        wanted["extensions"] = []
        wanted["functions"] = [*wanted["functions"][:1], facts.STAND_IN]
        assert facts.read(connection.connection) == wanted

        # Where the right comes later, the stand-in is kept: columns depend on it.
        connection.execute(text("RESET ROLE"))
        run(connection, "001", "upgrade")
        wanted["extensions"] = [name for name in ["btree_gin"] if has_extension(database, name)]
        assert facts.read(connection.connection) == wanted

        run(connection, "002", "downgrade")
        run(connection, "001", "downgrade")
        assert facts.read(connection.connection)["functions"] == []
        transaction.rollback()


def test_an_extension_in_a_schema_that_is_not_searched_is_not_enough(database):
    if not has_extension(database, "uuid-ossp"):
        pytest.skip("this server has no uuid-ossp")
    database.execute("CREATE SCHEMA elsewhere")
    database.execute('CREATE EXTENSION "uuid-ossp" SCHEMA elsewhere')
    migrate(database, *TO_HEAD)
    fill(database)
    wanted = expected(database, 2)
    wanted["functions"].append(facts.STAND_IN)
    assert read(database) == wanted


def test_the_default_key_is_a_random_uuid(database):
    migrate(database, *TO_HEAD[:1])
    database.execute(
        "INSERT INTO signals (source, title, severity) VALUES ('a', 'b', 'low'), ('a', 'b', 'low')"
    )
    rows = database.execute("SELECT count(DISTINCT id), bool_and(substr(id::text, 15, 1) = '4') FROM signals")
    assert rows == [(2, True)]


# The shadow: the same statements in another schema, in a transaction that is rolled back

LOCKS_IN_PUBLIC = """
    SELECT DISTINCT mode
    FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE pid = pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relnamespace = 'public'::regnamespace
"""


@pytest.fixture
def shadow(database):
    """A connection in a transaction that ends with a rollback, with a schema beside a migrated public."""
    migrate(database, *TO_HEAD)
    fill(database)
    before = read(database), details(database), contents(database)
    with connect(database) as connection, connection.begin() as transaction:
        connection.execute(text("CREATE SCHEMA shadow"))
        connection.execute(text("SET LOCAL search_path = shadow, public"))
        yield connection
        transaction.rollback()
    assert (read(database), details(database), contents(database)) == before


@pytest.mark.parametrize("version", [1, 2])
def test_the_revisions_make_the_whole_schema_in_the_shadow(database, shadow, version):
    for revision, direction in TO_HEAD[:version]:
        run(shadow, revision, direction)
    assert facts.read(shadow.connection, "shadow") == expected(database, version)
    assert set(shadow.scalars(text(LOCKS_IN_PUBLIC))) <= {"AccessShareLock"}


def test_the_way_down_in_the_shadow_leaves_it_empty_and_public_alone(database, shadow):
    for revision, direction in (*TO_HEAD, ("002", "downgrade"), ("001", "downgrade")):
        run(shadow, revision, direction)
    assert not any(facts.details(shadow.connection, "shadow").values())
    assert facts.read(shadow.connection, "public")["tables"].keys() == expected(database, 2)["tables"].keys()
    assert set(shadow.scalars(text(LOCKS_IN_PUBLIC))) <= {"AccessShareLock"}


def test_the_models_make_the_whole_schema_in_the_shadow(database, shadow):
    models.metadata.create_all(shadow, checkfirst=False)
    assert facts.read(shadow.connection, "shadow") == expected(database, 2)
    assert set(shadow.scalars(text(LOCKS_IN_PUBLIC))) <= {"AccessShareLock"}


# The models


def test_the_models_make_the_same_catalogs_as_the_revisions(server, database):
    by_models = server.create_database()
    migrate(database, *TO_HEAD)
    with connect(by_models) as connection, connection.begin():
        models.metadata.create_all(connection)
    assert read(by_models) == read(database)
    assert details(by_models) == details(database)


def test_the_models_leave_a_migrated_database_as_it_is(database):
    migrate(database, *TO_HEAD)
    before = read(database), details(database)
    with connect(database) as connection, connection.begin():
        models.metadata.create_all(connection)
    assert (read(database), details(database)) == before


def test_autogenerate_finds_no_difference(database):
    migrate(database, *TO_HEAD)
    with connect(database) as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, models.metadata) == []


def test_alembic_check_finds_no_difference(database, alembic):
    succeeds(alembic("upgrade", "head", database=database))
    assert read(database) == expected(database, 2)
    succeeds(alembic("check", database=database))
