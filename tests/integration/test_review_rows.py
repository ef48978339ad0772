"""Does the generator fill any schema with rows, and say which tables it could not fill?"""

from __future__ import annotations

from guvnor.postgres import closing, connect
from guvnor.review import rows, tables
from tests.support.sample_data import contents
from tests.support.server import Database


def test_every_table_of_the_project_is_filled(migrated: Database) -> None:
    filled = rows.fill(migrated.dsn)
    assert filled.empty == {}
    there = contents(migrated)
    assert filled.rows == {table: len(found) for table, found in there.items()}
    assert len(there) == 13
    assert set(filled.rows.values()) == {3}
    # References are followed, and NULL is tried wherever it is allowed.
    assert {row["incident_id"] for row in there["events"]} <= {row["id"] for row in there["incidents"]}
    policies = [row["escalation_policy_id"] for row in there["incidents"]]
    assert None in policies
    assert any(policies)


def test_a_second_fill_adds_other_rows(migrated: Database) -> None:
    rows.fill(migrated.dsn)
    assert rows.fill(migrated.dsn, first=101).empty == {}
    assert {len(found) for found in contents(migrated).values()} == {6}


def test_types_and_constraints_of_all_kinds(database: Database) -> None:
    database.execute(
        """
        CREATE TYPE mood AS ENUM ('calm', 'busy');
        CREATE DOMAIN code AS text CHECK (VALUE ~ '^[A-Z]{3}$' AND VALUE <> 'ABC' OR VALUE = 'XYZ');
        CREATE DOMAIN percent AS integer NOT NULL CHECK (VALUE BETWEEN 40 AND 60);
        CREATE TABLE "all kinds" (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            "a column" mood NOT NULL, moods mood[] NOT NULL, code code NOT NULL, percent percent,
            small smallint NOT NULL, real real NOT NULL, price numeric(6, 2) NOT NULL, money money NOT NULL,
            short varchar(3) NOT NULL, fixed char(2) NOT NULL, flag boolean NOT NULL, raw bytea NOT NULL,
            day date NOT NULL, clock time NOT NULL, at timestamptz NOT NULL, wait interval NOT NULL,
            address inet NOT NULL, net cidr NOT NULL, mac macaddr NOT NULL, bits bit(1) NOT NULL,
            document json NOT NULL, words tsvector NOT NULL, place point NOT NULL, round circle NOT NULL,
            days daterange NOT NULL, numbers int4range NOT NULL, names text[] NOT NULL, uuid uuid NOT NULL,
            doubled integer GENERATED ALWAYS AS (small * 2) STORED
        );
        CREATE TABLE ordered (
            a date NOT NULL, b date NOT NULL, c integer NOT NULL, kind text NOT NULL,
            CHECK (a < b), CHECK (c > 1000), CHECK (kind IN ('one', 'two')), UNIQUE (kind, c)
        );
        CREATE TABLE pairs (x integer, y text, PRIMARY KEY (x, y));
        CREATE TABLE refers (
            id serial PRIMARY KEY, x integer NOT NULL, y text NOT NULL, parent integer REFERENCES refers,
            FOREIGN KEY (x, y) REFERENCES pairs
        );
        CREATE UNIQUE INDEX only_one ON refers ((x IS NULL)) WHERE parent IS NULL;
        CREATE TABLE rooms (during tstzrange NOT NULL, EXCLUDE USING gist (during WITH &&));
        CREATE TABLE nothing ();
        CREATE TABLE parts (id integer NOT NULL, part text NOT NULL) PARTITION BY LIST (part);
        CREATE TABLE parts_other PARTITION OF parts DEFAULT;
        """
    )
    filled = rows.fill(database.dsn)
    assert filled.empty == {}
    assert filled.rows == {
        '"all kinds"': 3, "nothing": 3, "ordered": 3, "pairs": 3, "parts": 3, "refers": 3, "rooms": 3
    }  # fmt: skip


def test_a_table_that_takes_no_row_is_named_with_the_reason(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE closed (id integer, CONSTRAINT never CHECK (id IS NULL AND id IS NOT NULL));
        CREATE TABLE first (id integer PRIMARY KEY, other integer NOT NULL);
        CREATE TABLE second (id integer PRIMARY KEY, other integer NOT NULL REFERENCES first);
        ALTER TABLE first ADD FOREIGN KEY (other) REFERENCES second;
        CREATE TABLE open (id integer)
        """
    )
    filled = rows.fill(database.dsn)
    assert filled.rows == {"open": 3}
    assert filled.empty.keys() == {"closed", "first", "second"}
    assert "never" in filled.empty["closed"]


def test_columns_that_triggers_keep_are_found(migrated: Database) -> None:
    rows.fill(migrated.dsn)
    migrated.execute(
        """
        CREATE TABLE numbered (id bigint GENERATED ALWAYS AS IDENTITY, updated_at timestamptz DEFAULT now());
        CREATE TRIGGER kept BEFORE UPDATE ON numbered
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
        INSERT INTO numbered DEFAULT VALUES
        """
    )
    with closing(connect(migrated.dsn)) as connection:
        found = {t.name: rows.kept_by_triggers(connection, t) for t in tables.read(connection)}
    assert found["incidents"] == found["numbered"] == {"updated_at"}
    assert found["events"] == set()
