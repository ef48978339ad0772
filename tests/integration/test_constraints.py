"""Which new constraints do rows have to satisfy, and which query shows the rows that break them?"""

from __future__ import annotations

import pytest

from guvnor.postgres import closing, connect, rows
from guvnor.schema import constraints
from guvnor.schema.constraints import RowConstraint
from tests.support.server import Database

PLACES = """
    CREATE DOMAIN code AS text;
    CREATE TABLE countries (id integer PRIMARY KEY, region integer, UNIQUE (id, region));
    CREATE TABLE "Places" (
        id integer PRIMARY KEY, name text, "Nick name" text, at code, country integer, region integer,
        doubled integer GENERATED ALWAYS AS (id * 2) STORED
    );
    INSERT INTO countries VALUES (1, 1);
    INSERT INTO "Places" VALUES
        (1, 'Oslo', 'O', 'x', 1, 1), (2, 'oslo', NULL, NULL, 2, 1), (3, NULL, NULL, 'y', NULL, 3),
        (4, NULL, '100%', 'y', NULL, NULL)
"""


def added(database: Database, statement: str) -> tuple[list[RowConstraint], int]:
    """Return the constraints that a statement adds on empty tables, and how many rows break them."""
    with closing(connect(database.dsn)) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute('TRUNCATE "Places", countries')
        start = constraints.read(connection, "public")
        with connection.cursor() as cursor:
            cursor.execute(statement)
        after = constraints.read(connection, "public")
        found = [item.constraint for item in constraints.new(start, start, after, "003", [], unsure=False)]
        connection.rollback()
        queries = [f"SELECT count(*) FROM ({item.query}) AS breaking" for item in found]
        return found, sum(rows(connection, query)[0][0] for query in queries)


@pytest.mark.parametrize(
    ("statement", "named", "count"),
    [
        ("ADD CONSTRAINT c CHECK (name = initcap(name))", 'check c of table "Places"', 1),
        (
            "ADD CONSTRAINT \"C d\" CHECK (\"Nick name\" NOT LIKE '100\\%')",
            'check "C d" of table "Places"', 1,
        ),
        ("ADD CHECK (doubled < 5)", 'check "Places_doubled_check" of table "Places"', 2),
        ("ALTER name SET NOT NULL", 'NOT NULL of column "Places".name', 2),
        ('ALTER "Nick name" SET NOT NULL', 'NOT NULL of column "Places"."Nick name"', 2),
        ("ADD CONSTRAINT f FOREIGN KEY (country) REFERENCES countries", 'foreign key f of table "Places"', 1),
        (
            "ADD CONSTRAINT f FOREIGN KEY (country, region) REFERENCES countries (id, region)",
            'foreign key f of table "Places"', 1,
        ),
        (
            "ADD CONSTRAINT f FOREIGN KEY (country, region) REFERENCES countries (id, region) MATCH FULL",
            'foreign key f of table "Places"', 2,
        ),
        ("ADD CONSTRAINT u UNIQUE (at)", 'unique u of table "Places"', 1),
        ("ADD CONSTRAINT u UNIQUE (region, country) DEFERRABLE", 'unique u of table "Places"', 0),
        ("ADD CONSTRAINT c CHECK (id > 100) NOT VALID", None, 0),
        ("ADD extra integer CHECK (extra > 0), ADD more integer NOT NULL DEFAULT 1 UNIQUE", None, 0),
    ],
)  # fmt: skip
def test_a_new_constraint_comes_with_the_query_that_shows_what_breaks_it(
    database: Database, statement: str, named: str | None, count: int
) -> None:
    database.execute(PLACES)
    found, breaking = added(database, f'ALTER TABLE "Places" {statement}')
    assert list(map(str, found)) == ([named] if named else [])
    assert breaking == count


@pytest.mark.parametrize(
    ("statement", "named", "count"),
    [
        ('CREATE UNIQUE INDEX i ON "Places" (lower(name))', 'unique i of table "Places"', 1),
        (
            'CREATE UNIQUE INDEX i ON "Places" (at, (region > 2)) INCLUDE (id) WHERE country IS NULL',
            'unique i of table "Places"', 0,
        ),
        ("ALTER DOMAIN code ADD CONSTRAINT d CHECK (VALUE <> 'y')", 'check d of table "Places"', 2),
        ("ALTER DOMAIN code SET NOT NULL", 'NOT NULL of column "Places".at', 1),
        ("ALTER TABLE countries ADD CHECK (id > 1)", "check countries_id_check of table countries", 1),
        ('ALTER TABLE "Places" DROP CONSTRAINT "Places_pkey", ADD PRIMARY KEY (id)', None, 0),
        ('CREATE TABLE other (id integer CHECK (id > 0) REFERENCES "Places")', None, 0),
        (
            'CREATE TABLE o (id int PRIMARY KEY); ALTER TABLE "Places" ADD FOREIGN KEY (region) REFERENCES o',
            None, 0,
        ),
    ],
)  # fmt: skip
def test_indexes_domains_and_other_tables(
    database: Database, statement: str, named: str | None, count: int
) -> None:
    database.execute(PLACES)
    found, breaking = added(database, statement)
    assert list(map(str, found)) == ([named] if named else [])
    assert breaking == count


def test_nulls_may_be_equal(database: Database, server) -> None:
    if server.major < 15:
        pytest.skip("since PostgreSQL 15")
    database.execute(PLACES)
    found, breaking = added(database, 'CREATE UNIQUE INDEX i ON "Places" (name) NULLS NOT DISTINCT')
    assert (list(map(str, found)), breaking) == (['unique i of table "Places"'], 1)


def test_what_a_partition_has_from_its_parent_is_named_once(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE parts (id integer, part text) PARTITION BY LIST (part);
        CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
        INSERT INTO parts VALUES (1, 'a'), (1, 'a'), (NULL, 'a'), (-1, 'a')
        """
    )
    with closing(connect(database.dsn)) as connection:
        connection.autocommit = False
        start = constraints.read(connection, "public")
        rows(connection, "TRUNCATE parts; SELECT 1")
        with connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE parts ADD CHECK (id > 0), ADD UNIQUE (id, part), ALTER id SET NOT NULL"
            )
        after = constraints.read(connection, "public")
        found = [item.constraint for item in constraints.new(start, start, after, "003", [], unsure=False)]
        connection.rollback()
        counted = {
            item.kind: rows(connection, f"SELECT count(*) FROM ({item.query}) AS breaking")[0][0]
            for item in found
        }
    assert len(found) == 3
    assert counted == {"check": 1, "unique": 1, "not null": 1}


def test_each_can_be_added_and_dropped_under_another_name(database: Database) -> None:
    database.execute(f'{PLACES}; DELETE FROM "Places"')
    with closing(connect(database.dsn)) as connection:
        connection.autocommit = False
        before = constraints.read(connection, "public")
        with connection.cursor() as cursor:
            cursor.execute(
                """
                ALTER TABLE "Places" ADD CONSTRAINT c CHECK ("Nick name" NOT LIKE '%{x}%'),
                    ADD FOREIGN KEY (country) REFERENCES countries, ALTER region SET NOT NULL;
                CREATE UNIQUE INDEX ON "Places" (lower(name)) WHERE id > 0;
                ALTER DOMAIN code ADD CHECK (VALUE <> '')
                """
            )
        after = constraints.read(connection, "public")
        found = [item.constraint for item in constraints.new(before, before, after, "003", [], unsure=False)]
        connection.rollback()
        with connection.cursor() as cursor:
            for number, item in enumerate(found):
                cursor.execute(item.add(f"own_{number}"))
        now = constraints.read(connection, "public").found
        assert {item.query for item in now.values()} == {item.query for item in after.found.values()}
        with connection.cursor() as cursor:
            for number, item in enumerate(found):
                cursor.execute(item.drop(f"own_{number}"))
        assert constraints.read(connection, "public").found == before.found
