"""Do the triggers of the shadow see what a statement does to data, wherever it stands?"""

from __future__ import annotations

from contextlib import closing

from guvnor import postgres
from guvnor.schema import data_changes, shadow
from guvnor.schema.shadow import Shadow
from guvnor.schema.touched import DataWatch
from tests.support.server import Database

SCHEMA = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TYPE pair AS (a integer, b integer);
    CREATE DOMAIN short AS varchar(10);
    CREATE TABLE a (id integer PRIMARY KEY, n integer, t text, m mood, s short, j json, l varchar(9)[],
                    k integer, r text, c pair,
                    g integer GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE b (id integer PRIMARY KEY, a_id integer REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE c (id integer PRIMARY KEY, b_id integer REFERENCES b ON DELETE SET DEFAULT);
    CREATE TABLE p (at date, n integer) PARTITION BY RANGE (at);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE parent (n integer);
    CREATE TABLE child () INHERITS (parent);
    CREATE TYPE spirit AS ENUM ('good', 'bad');
    CREATE TYPE addr AS (street text, zip text);
    CREATE DOMAIN home AS addr;
    CREATE TYPE wide AS (at addr, n integer);
    CREATE TYPE span AS RANGE (subtype = pair);
    CREATE TABLE thing (x integer, y integer);
    CREATE TABLE people (a addr, l addr[], h home, w wide, r span, t thing, ts thing[], m spirit[]);
    CREATE TABLE typed OF addr;
    CREATE TABLE fk_parent (id integer PRIMARY KEY);
    CREATE TABLE fk_child (id integer CONSTRAINT fk REFERENCES fk_parent ON DELETE CASCADE);
    CREATE TABLE "Odd.Name" ("A column" text, "x.y" integer);
    CREATE VIEW v AS SELECT id, k FROM a;
    CREATE TABLE through (id integer);
    CREATE RULE instead AS ON DELETE TO through DO INSTEAD UPDATE a SET r = NULL WHERE id = OLD.id;
    ALTER TABLE through ENABLE ALWAYS RULE instead;
    CREATE FUNCTION nested() RETURNS void LANGUAGE sql AS 'DELETE FROM c';
    CREATE PROCEDURE outer_one() LANGUAGE plpgsql AS $$ BEGIN PERFORM nested(); END $$
"""
CASES = {
    "CALL outer_one()": {"delete c"},
    "DELETE FROM v": {"delete a", "delete b", "update c.b_id"},
    "DELETE FROM through": {"update a.r"},
    "UPDATE a SET id = 1": {"update a.id", "update b.a_id"},
    "UPDATE a SET (n, t) = (SELECT 1, 'x')": {"update a.n", "update a.t"},
    "UPDATE a SET n = b.id FROM b": {"update a.n"},
    "MERGE INTO b USING a ON b.id = a.id WHEN MATCHED THEN DELETE": {"delete b", "update c.b_id"},
    "MERGE INTO a USING b ON b.id = a.id WHEN MATCHED THEN UPDATE SET t = 'x' "
    "WHEN NOT MATCHED THEN INSERT (id) VALUES (1)": {"insert a", "update a.t"},
    "TRUNCATE p": {"truncate p"},
    "TRUNCATE p1": {"truncate p1"},
    "DELETE FROM p1": {"delete p1"},
    "UPDATE parent SET n = 1": {"update parent.n"},
    'UPDATE "Odd.Name" SET "x.y" = 1': {'update "Odd.Name"."x.y"'},
    'ALTER TABLE "Odd.Name" DROP "A column"': {'drop "Odd.Name"."A column"'},
    "DO $$ BEGIN DELETE FROM c; RAISE EXCEPTION 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$": set(),
    "DROP TABLE p": {"drop p"},
    "ALTER TABLE p DROP n": {"drop p.n"},
    "ALTER TABLE p DETACH PARTITION p1": set(),
    "ALTER TABLE p DETACH PARTITION p1; DROP TABLE p1": {"drop p1"},
    "DROP TYPE mood CASCADE": {"drop a.m"},
    "ALTER TABLE a DROP g": set(),
    "ALTER TABLE a ALTER s TYPE varchar(10)": set(),
    "ALTER TABLE a ALTER s TYPE varchar(5)": {"cast a.s"},
    "ALTER TABLE a ALTER l TYPE varchar(5)[]": {"cast a.l"},
    'ALTER TABLE a ALTER t TYPE varchar(50) COLLATE "C"': {"cast a.t"},
    'ALTER TABLE a ALTER t TYPE text COLLATE "C"': set(),
    "ALTER TABLE a ALTER n TYPE integer USING n / 10": {"rewrite a.n"},
    "ALTER TABLE a ADD x float8 DEFAULT random(), ALTER n SET NOT NULL": set(),
    "ALTER TABLE parent SET UNLOGGED": set(),
    "ALTER TYPE mood RENAME TO old; CREATE TYPE mood AS ENUM ('good'); "
    "ALTER TABLE a ALTER m TYPE mood USING m::text::mood; DROP TYPE old": {"cast a.m"},
    "ALTER TYPE mood RENAME TO old; CREATE TYPE mood AS ENUM ('good', 'bad'); "
    "ALTER TABLE a ALTER m TYPE mood USING m::text::mood; DROP TYPE old": set(),
    "CREATE TYPE two AS ENUM ('good', 'bad'); ALTER TABLE a ALTER m TYPE two USING 'good'": {"rewrite a.m"},
    "CREATE TYPE two AS ENUM ('good', 'bad', 'new'); "
    "ALTER TABLE a ALTER m TYPE two USING replace(m::text, 'bad', 'good')::two": {"rewrite a.m"},
    "ALTER TYPE mood RENAME TO feeling": set(),
    "ALTER TYPE pair RENAME TO couple": set(),
    "ALTER TABLE p ALTER n TYPE integer USING 1": {"rewrite p.n"},
    "ALTER TABLE p ALTER n SET DEFAULT 1": set(),
    'ALTER TABLE "Odd.Name" ALTER "A column" TYPE varchar USING \'x\'': {'rewrite "Odd.Name"."A column"'},
    "ALTER TYPE mood RENAME VALUE 'bad' TO 'sad'": set(),
    "ALTER TYPE mood ADD VALUE 'fine'": set(),
    "CREATE TABLE new AS TABLE a; DROP TABLE a CASCADE; ALTER TABLE new RENAME TO a": {"drop a"},
    "CREATE TABLE new (n integer); INSERT INTO new VALUES (1); UPDATE new SET n = 2; TRUNCATE new": set(),
    "CREATE TEMPORARY TABLE t (n integer); UPDATE t SET n = 2; DELETE FROM t": set(),
    "INSERT INTO a (id) VALUES (1)": {"insert a"},
    "SELECT * FROM a FOR UPDATE": set(),
    "ALTER TYPE addr DROP ATTRIBUTE zip CASCADE": {
        "attribute people.a",
        "attribute people.l",
        "attribute people.h",
        "attribute people.w",
        "drop typed.zip",
    },
    "ALTER TYPE pair DROP ATTRIBUTE b": {"attribute people.r", "attribute a.c"},
    "ALTER TABLE thing DROP y": {"drop thing.y", "attribute people.t", "attribute people.ts"},
    "DO $$ BEGIN ALTER TYPE addr DROP ATTRIBUTE zip CASCADE; ALTER TYPE addr ADD ATTRIBUTE zip text CASCADE; "
    "END $$": {
        "attribute people.a",
        "attribute people.l",
        "attribute people.h",
        "attribute people.w",
        "drop typed.zip",
    },
    "ALTER TYPE addr ADD ATTRIBUTE city text CASCADE; "
    "ALTER TYPE addr RENAME ATTRIBUTE zip TO code CASCADE": set(),
    "ALTER TYPE spirit ADD VALUE 'new'": set(),
    "ALTER TYPE spirit RENAME TO old; CREATE TYPE spirit AS ENUM ('good'); "
    "ALTER TABLE people ALTER m TYPE spirit[] USING m::text[]::spirit[]": {"cast people.m"},
    "ALTER TYPE spirit RENAME TO old; CREATE TYPE spirit AS ENUM ('good', 'bad'); "
    "ALTER TABLE people ALTER m TYPE spirit[] USING m::text[]::spirit[]": set(),
    "DO $$ BEGIN ALTER TYPE spirit RENAME TO old; CREATE TYPE spirit AS ENUM ('good'); "
    "ALTER TABLE people ALTER m TYPE spirit[] USING m::text[]::spirit[]; END $$": {"cast people.m"},
    "DO $$ BEGIN DELETE FROM fk_parent; ALTER TABLE fk_child DROP CONSTRAINT fk; END $$": {
        "delete fk_parent",
        "delete fk_child",
    },
    "DO $$ BEGIN DELETE FROM fk_parent; DROP TABLE fk_child; END $$": {
        "delete fk_parent",
        "delete fk_child",
        "drop fk_child",
    },
    "ALTER TABLE fk_child DROP CONSTRAINT fk; DELETE FROM fk_parent": {"delete fk_parent"},
    "TRUNCATE parent": {"truncate parent"},
    "TRUNCATE child": {"truncate child"},
    "ALTER TABLE parent DROP n": {"drop parent.n"},
    "ALTER TABLE parent ALTER n TYPE smallint": {"cast parent.n"},
    "DROP TABLE parent CASCADE": {"drop parent"},
    "LOCK TABLE a; COMMENT ON TABLE a IS 'a; DELETE FROM a'": set(),
    "DELETE FROM c; CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM b; END": {"delete c"},
}


def test_what_statements_do_to_data_is_seen(database: Database) -> None:
    """What only the live database can tell, such as how many rows that is, comes later."""

    def make(built: Shadow) -> None:
        built.execute(SCHEMA)
        watch = DataWatch(built.driver, built.name)
        for statement in CASES:
            if "MERGE" in statement and built.driver.server_version < 150000:
                continue
            with built.undone():
                before = built.snapshot(parents=False)
                watch.begin()
                start, built.watch = watch.ledger, watch
                built.execute(statement)
                built.watch = None
                watch.end()
                seen = data_changes.summed_up(start, start, watch.seen)
                found[statement] = {f"{change.how} {change.name}" for change in seen if not change.along}
                left = [item for item in built.snapshot(parents=False) if "guvnor_touched" in item.identity]
                assert (left, bool(before.objects)) == ([], True), "the triggers are in no snapshot"

    found: dict[str, set[str]] = {}
    with closing(postgres.connect(database.dsn)) as connection, shadow.build(connection, make):
        pass
    assert found == {statement: CASES[statement] for statement in found}
    assert len(found) >= len(CASES) - 2
