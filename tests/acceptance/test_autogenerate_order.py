"""Does what autogenerate writes keep the rows: what takes away comes last, in both directions?"""

from __future__ import annotations

import re

import psycopg2
import pytest

from tests.support.command import Command
from tests.support.example import Example
from tests.support.project import Project
from tests.support.server import Server


@pytest.fixture
def example(server: Server, _tidy: None, project: Project, guvnor: Command, alembic: Command) -> Example:
    return Example(server.create_database(), project, guvnor, alembic)


def in_order(text: str, *parts: str) -> None:
    """Expect some texts one after the other."""
    places = [text.find(part) for part in parts]
    assert -1 not in places, (parts[places.index(-1)], text)
    assert places == sorted(places), text


def halves(text: str) -> tuple[str, str]:
    """The upgrade and the downgrade."""
    up, down = text.split("def downgrade")
    return up, down


def answered(example: Example, *changes: tuple[str, str]) -> None:
    """Follow the TODOs: delete the comments, and change what is said to be wrong."""
    text = re.sub(r"    # TODO: .*\n(?:    # .*\n)*", "", example.text)
    for old, new in changes:
        assert old in text, text
        text = text.replace(old, new)
    assert "TODO" not in text, text
    example.path.write_text(text)


def test_a_column_that_is_renamed_and_changed_keeps_its_values(example: Example) -> None:
    example.begin(
        "CREATE TABLE people (id int PRIMARY KEY, mail varchar(100), name text NOT NULL)",
        "INSERT INTO people SELECT i, 'm' || i, 'n' || i FROM generate_series(1, 3) AS i",
        "CREATE TABLE people (id int PRIMARY KEY, mail varchar(100), full_name varchar(50) NOT NULL)",
    )
    text = example.generate()
    for half, new, old in zip(halves(text), ("full_name", "name"), ("name", "full_name"), strict=True):
        backfill = f'op.backfill("people", "{new} = {old}", "{new} IS NULL AND {old} IS NOT NULL")'
        in_order(half, f"ADD COLUMN {new}", "# TODO: ", backfill, f'op.set_not_null("people", "{new}")',
                 "# DATA LOSS", f"DROP COLUMN IF EXISTS {old}")  # fmt: skip
    assert "people.name is dropped and people.full_name is added: is that a rename?" in re.sub(
        r"\n    # ", " ", text
    )
    answered(example)
    rows = example.there_and_back()
    assert [row["full_name"] for row in rows["people"]] == ["n1", "n2", "n3"]
    assert example.rows() == rows


PEOPLE = "CREATE TABLE people (id int PRIMARY KEY, mail varchar(100), n int); "
ROWS = "INSERT INTO people SELECT i, 'm' || i, i FROM generate_series(1, 3) AS i; "
UNIQUE = PEOPLE + "ALTER TABLE people ADD CONSTRAINT people_mail_key UNIQUE (mail); "


def test_a_dropped_column_goes_after_the_todo_that_may_read_it(example: Example) -> None:
    example.begin(
        "CREATE TABLE a (id int PRIMARY KEY, x text); CREATE TABLE b (id int PRIMARY KEY)",
        "INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (1)",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, y text NOT NULL); "
        "CREATE INDEX b_y ON b (y)",
    )
    up, _ = halves(example.generate())
    in_order(
        up, "ADD COLUMN y", "-- TODO: b.y is NOT NULL", "op.set_not_null", '"b_y"', "DROP COLUMN IF EXISTS x"
    )


@pytest.mark.parametrize("index", ["people_mail_key", "ix_people_mail"])
def test_a_unique_constraint_stays_until_the_index_that_replaces_it_is_there(
    example: Example, index: str
) -> None:
    example.begin(UNIQUE, ROWS, PEOPLE + f"CREATE UNIQUE INDEX {index} ON people (mail)")
    up, down = halves(example.generate())
    in_order(up, "op.create_index_concurrently(", "DROP CONSTRAINT IF EXISTS people_mail_key")
    in_order(down, "op.create_index_concurrently(", f'op.drop_index_concurrently("{index}")')
    rows = example.there_and_back()
    assert example.rows() == rows
    with pytest.raises(psycopg2.errors.UniqueViolation):
        example.database.execute("INSERT INTO people VALUES (9, 'm1', 1)")


def test_a_duplicate_stops_the_new_unique_index_and_the_old_constraint_stays(example: Example) -> None:
    """The new index is on another column, where there is a duplicate; mail remains unique."""
    example.begin(
        UNIQUE,
        ROWS + "INSERT INTO people VALUES (4, 'm4', 3)",
        PEOPLE + "CREATE UNIQUE INDEX i ON people (n)",
    )
    example.generate()
    assert example.run("upgrade", "head").code != 0
    with pytest.raises(psycopg2.errors.UniqueViolation):
        example.database.execute("INSERT INTO people VALUES (9, 'm1', 9)")
    example.database.execute("UPDATE people SET n = 4 WHERE id = 4")
    example.up()
    example.database.execute("INSERT INTO people VALUES (9, 'm1', 9)")


def test_a_foreign_key_moves_to_the_index_that_replaces_its_constraint(example: Example) -> None:
    child = "CREATE TABLE c (m varchar(100) REFERENCES people (mail))"
    example.begin(
        UNIQUE + child,
        ROWS + "INSERT INTO c VALUES ('m1')",
        PEOPLE + "CREATE UNIQUE INDEX ix ON people (mail); " + child,
    )
    example.generate()
    assert example.rules == set()
    example.there_and_back()
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        example.database.execute("INSERT INTO c VALUES ('nobody')")


MOOD = "CREATE TYPE mood AS ENUM ('sad', 'ok'{more}); "
USERS = (
    "CREATE TABLE t (id int PRIMARY KEY, m mood DEFAULT '{new}', ms mood[] DEFAULT '{{sad}}', "
    "CONSTRAINT checked CHECK (m <> 'sad' OR id > 0)); "
    "CREATE INDEX ti ON t (id) WHERE m = '{new}'; "
    "CREATE VIEW v AS SELECT id, m FROM t WHERE m <> '{new}'; CREATE VIEW w AS SELECT m FROM v; "
    "CREATE FUNCTION f(m mood) RETURNS mood LANGUAGE sql AS 'SELECT m'; "
)
ENUM_EXAMPLE = (
    MOOD.format(more="") + USERS.format(new="ok"),
    "INSERT INTO t SELECT i, 'ok', '{sad,ok}' FROM generate_series(1, 3) AS i",
    MOOD.format(more=", 'great'") + USERS.format(new="great"),
)


def test_a_new_value_of_an_enum_with_all_that_can_use_it(example: Example) -> None:
    example.begin(*ENUM_EXAMPLE)
    text = example.generate()
    assert "TODO" not in text, text
    assert example.rules == set()
    rows = example.there_and_back()
    assert example.rows() == rows
    example.database.execute("INSERT INTO t (id) VALUES (7)")
    assert example.database.execute("SELECT m FROM t WHERE id = 7") == [("great",)]


def test_a_downgrade_says_which_rows_still_hold_the_value_that_goes(example: Example) -> None:
    example.begin(*ENUM_EXAMPLE)
    example.generate()
    example.up()
    example.database.execute(
        "INSERT INTO t VALUES (7, 'great', NULL), (8, 'great', NULL), (9, 'ok', '{great}')"
    )
    refused = example.run("downgrade", "-1")
    assert refused.code != 0
    said = " ".join((refused.plain + refused.err).split())
    assert "The enum mood cannot lose great, which rows still hold: t (ms): 1, t (m): 2" in said or (
        "The enum mood cannot lose great, which rows still hold: t (m): 2, t (ms): 1" in said
    ), said
    example.database.execute("UPDATE t SET m = 'ok', ms = NULL WHERE id > 6")
    example.down()
    assert example.database.execute("SELECT count(*) FROM t") == [(6,)]


def test_values_of_an_enum_are_renamed_and_added_at_once(example: Example) -> None:
    example.begin(
        "CREATE TYPE mood AS ENUM ('a', 'b', 'c'); CREATE TABLE t (m mood DEFAULT 'b')",
        "INSERT INTO t VALUES ('b'), ('c')",
        "CREATE TYPE mood AS ENUM ('a', 'B', 'c', 'd'); CREATE TABLE t (m mood DEFAULT 'B')",
    )
    in_order(example.generate(), "RENAME VALUE 'b' TO 'B'", 'op.add_enum_value("mood", "d", after="c")')
    assert example.there_and_back()["t"] == [{"m": "B"}, {"m": "c"}]


DEPENDENTS = (
    "CREATE VIEW v AS SELECT id, {column} FROM people; CREATE VIEW w AS SELECT id FROM v; "
    "CREATE VIEW x AS SELECT * FROM w; COMMENT ON COLUMN v.id IS 'which'; "
    "CREATE FUNCTION g() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(mail) FROM people; END; "
)


@pytest.mark.parametrize(
    ("table", "column"),
    [(PEOPLE.replace("100", "200"), "mail"), (PEOPLE, "n")],
    ids=["type of a column", "columns of a view"],
)
def test_what_depends_on_a_change_is_made_again_with_its_privileges(
    example: Example, server: Server, table: str, column: str
) -> None:
    example.begin(PEOPLE + DEPENDENTS.format(column="mail"), ROWS, table + DEPENDENTS.format(column=column))
    role = server.create_role()
    text = example.generate()
    assert "TODO" not in text, text
    assert example.rules == set()
    example.database.execute(
        f'GRANT SELECT ON v, x TO "{role.name}"; GRANT SELECT ON w TO "{role.name}" WITH GRANT OPTION; '
        f'REVOKE ALL ON FUNCTION g() FROM PUBLIC; GRANT EXECUTE ON FUNCTION g() TO "{role.name}"'
    )
    before = example.schema()
    example.up()
    after = example.schema()
    for key in ("relation:v", "relation:w", "relation:x", "function:g()"):
        assert after[key][1:] == before[key][1:], key
    example.down()
    assert example.schema() == before
    example.up()
    assert example.schema() == after


def test_a_function_gets_another_result_under_a_view_and_a_trigger(example: Example) -> None:
    def schema(result: str) -> str:
        return (
            PEOPLE + f"CREATE FUNCTION h(a int) RETURNS {result} LANGUAGE sql AS 'SELECT a'; "
            "CREATE VIEW v AS SELECT h(n) AS h FROM people; "
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
            "CREATE TRIGGER t BEFORE UPDATE ON people FOR EACH ROW WHEN (h(NEW.n) > 0) "
            "EXECUTE FUNCTION tf(); "
        )

    example.begin(schema("int"), ROWS, schema("bigint"))
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_view_over_a_column_that_takes_long_to_change_is_in_the_todo(example: Example) -> None:
    view = "CREATE VIEW v AS SELECT id, n FROM people"
    example.begin(PEOPLE + view, ROWS, PEOPLE.replace("n int", "n bigint") + view)
    up, down = halves(example.generate())
    in_order(
        up,
        "-- TODO: people.n becomes bigint",
        "-- DROP VIEW",
        "-- ALTER TABLE people",
        "-- CREATE OR REPLACE VIEW",
    )
    in_order(down, "DROP VIEW", "ALTER TABLE people", "CREATE OR REPLACE VIEW v")


SEEN = "CREATE TABLE people (id int PRIMARY KEY, seen {0}); CREATE VIEW v AS SELECT id, seen FROM people"


def test_what_another_type_loses_is_said_under_a_view_too(example: Example) -> None:
    rows = "INSERT INTO people VALUES (1, '2026-01-02 03:04:05')"
    example.begin(SEEN.format("timestamp(0)"), rows, SEEN.format("timestamp"))
    up, down = halves(example.generate())
    assert "TODO" not in example.text
    assert "USING" not in example.text
    assert "DATA LOSS" not in up
    loses = "DATA LOSS: what people.seen holds beyond the type timestamp(0) without time zone."
    in_order(
        " ".join(down.replace("#", "").split()), "LOCKS people", loses, "DROP VIEW", "ALTER TABLE people"
    )
    assert example.rules == set()
    assert len(example.there_and_back()["people"]) == 1


def test_which_zone_is_asked_under_a_view_too(example: Example) -> None:
    rows = "INSERT INTO people VALUES (1, '2026-01-02 03:04:05')"
    example.begin(SEEN.format("timestamp"), rows, SEEN.format("timestamptz"))
    up, down = (" ".join(half.replace("#", "").split()) for half in halves(example.generate()))
    assert "In which time zone are the values of people.seen?" in up
    assert "which time zone" not in down
    assert "USING CAST" not in example.text
    assert "TODO" not in example.text
    assert example.rules == set()
    example.there_and_back()
    assert example.database.execute("SELECT seen = '2026-01-02 03:04:05Z' FROM people") == [(True,)]


def test_the_todo_of_several_columns_says_which_of_them_loses(example: Example) -> None:
    schema = (
        "CREATE TABLE people (id int PRIMARY KEY, n {0}, seen {1}, at {2}); "
        "CREATE VIEW v AS SELECT n, seen, at FROM people"
    )
    before, after = ("int", "timestamp", "timestamp"), ("bigint", "timestamp(0)", "timestamptz")
    example.begin(schema.format(*before), "", schema.format(*after))
    up, _ = (" ".join(half.replace("--", "").split()) for half in halves(example.generate()))
    assert "TODO: DATA LOSS: people.seen becomes timestamp(0) without time zone" in up
    assert "In which time zone are the values of people.at?" in up
    assert example.rules == {"no-todo"}


def test_an_extension_that_the_revision_makes(example: Example) -> None:
    example.begin(
        PEOPLE,
        ROWS,
        PEOPLE + "CREATE EXTENSION IF NOT EXISTS btree_gin; CREATE INDEX gi ON people USING gin (n)",
    )
    up, down = halves(example.generate())
    in_order(up, "CREATE EXTENSION IF NOT EXISTS btree_gin", "op.create_index_concurrently")
    in_order(down, "op.drop_index_concurrently", "DROP EXTENSION IF EXISTS btree_gin")
    assert example.rules == set()
    example.there_and_back()


def test_the_expression_of_a_generated_column(example: Example, server: Server) -> None:
    def schema(expression: str) -> str:
        return (
            f"CREATE TABLE t (a int, g int GENERATED ALWAYS AS ({expression}) STORED); "
            "CREATE UNIQUE INDEX tg ON t (g); CREATE VIEW v AS SELECT g FROM t; COMMENT ON COLUMN t.g IS 'g'"
        )

    example.begin(schema("a + 1"), "INSERT INTO t VALUES (1), (2)", schema("a * 2"))
    text = example.generate()
    assert ("SET EXPRESSION AS" in text) == (server.major >= 17)
    assert "# LOCKS t" in text
    assert example.rules == set()
    assert example.there_and_back()["t"] == [{"a": 1, "g": 2}, {"a": 2, "g": 4}]
    example.down()
    assert example.rows()["t"] == [{"a": 1, "g": 2}, {"a": 2, "g": 3}]


def test_the_options_of_an_identity(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)",
        "INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES",
        "CREATE TABLE t (a int GENERATED BY DEFAULT AS IDENTITY "
        "(INCREMENT BY 10 MAXVALUE 900 CACHE 7 CYCLE))",
    )
    assert "TODO" not in example.generate()
    example.there_and_back()
    example.database.execute("INSERT INTO t DEFAULT VALUES")
    assert example.database.execute("SELECT max(a) FROM t") == [(12,)]


def test_an_identity_takes_the_place_of_a_sequence_and_goes_on_counting(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (a serial PRIMARY KEY, b int)",
        "INSERT INTO t (b) VALUES (1), (2), (3)",
        "CREATE TABLE t (a int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, b int)",
    )
    assert "TODO" not in example.generate()
    for step in (example.up, example.down, example.up):
        step()
        example.database.execute("INSERT INTO t (b) VALUES (0)")
    assert example.database.execute("SELECT max(a), count(*) FROM t") == [(6, 6)]


def test_what_neither_models_nor_revisions_know_is_named_and_left_out(example: Example) -> None:
    example.begin(
        PEOPLE + "CREATE TABLE ev (id int, d date) PARTITION BY RANGE (d)",
        "CREATE TABLE mine (a int, b text); INSERT INTO mine VALUES (1, 'x'); "
        "CREATE INDEX stray ON people (n); "
        "ALTER TABLE people ADD COLUMN by_hand int; CREATE SEQUENCE numbers; "
        "CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); "
        "CREATE FUNCTION theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE odd AS ENUM ('x'); ",
        PEOPLE
        + "CREATE TABLE ev (id int, d date) PARTITION BY RANGE (d); CREATE TABLE other (a int, b text)",
    )
    up, down = halves(example.generate())
    assert "DROP" not in up
    assert "RENAME" not in up  # mine has the columns of the new table
    assert re.findall(r"DROP TABLE IF EXISTS (\w+)", down) == ["other"]
    left_out = ("table mine", "index people.stray", "column people.by_hand", "sequence numbers")
    for name in (*left_out, "function theirs()", "type odd"):
        assert f"Left out: {name}, which neither the models nor the revisions know" in example.result.err
    assert "Left out: table ev_1, a partition of ev that the models do not know" in example.result.err
    example.there_and_back(unknown=True)
    assert example.database.execute("SELECT * FROM mine") == [(1, "x")]


def test_a_dropped_table_that_the_revisions_know_is_dropped(example: Example) -> None:
    example.begin(PEOPLE + "CREATE TABLE old (a int)", ROWS, PEOPLE)
    up, down = halves(example.generate())
    in_order(up, "# DATA LOSS: the table old", "DROP TABLE IF EXISTS old")
    assert "CREATE TABLE IF NOT EXISTS old" in down


def test_an_unknown_view_on_a_dropped_column_is_named(example: Example) -> None:
    example.begin(
        PEOPLE, "CREATE VIEW theirs AS SELECT mail FROM people", PEOPLE.replace("mail varchar(100), ", "")
    )
    up, _ = halves(example.generate())
    in_order(up, "-- TODO: the view theirs depends on the column people.mail", "DROP COLUMN IF EXISTS mail")


def test_nothing_but_unknown_objects_is_no_revision(example: Example) -> None:
    example.begin(PEOPLE, "CREATE TABLE mine (a int)", PEOPLE)
    assert example.generate() == ""
    check = example.run("check")
    assert check.code == 255
    assert "('unexpected', 'table', 'mine'" in check.out + check.err


def test_a_trigger_gives_way_to_another_one_in_one_transaction(example: Example) -> None:
    def schema(trigger: str) -> str:
        return (
            PEOPLE + "CREATE TABLE log (n int); CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN INSERT INTO log VALUES (NEW.n); RETURN NEW; END'; "
            f"CREATE TRIGGER {trigger} BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION tf(); "
        )

    example.begin(
        schema("one"), ROWS, schema("two").replace("BEFORE", "AFTER") + "CREATE INDEX i ON people (n)"
    )
    up, _ = halves(example.generate())
    in_order(up, "CREATE TRIGGER two", "DROP TRIGGER IF EXISTS one", "op.create_index_concurrently")
    example.there_and_back()


def test_a_primary_key_under_another_name_with_another_column(example: Example) -> None:
    def schema(key: str) -> str:
        return f"CREATE TABLE t (a int NOT NULL, b int NOT NULL, CONSTRAINT {key})"

    example.begin(
        schema("t_pk PRIMARY KEY (a)"), "INSERT INTO t VALUES (1, 2)", schema("t_key PRIMARY KEY (a, b)")
    )
    up, _ = halves(example.generate())
    in_order(up, "op.create_index_concurrently(", "DROP CONSTRAINT IF EXISTS t_pk", "PRIMARY KEY USING INDEX")
    example.there_and_back()


def test_a_new_value_of_an_enum_with_generated_columns(example: Example) -> None:
    table = (
        "CREATE TABLE t (m mood, g boolean GENERATED ALWAYS AS (m = 'ok') STORED, "
        "h mood GENERATED ALWAYS AS (m) STORED); CREATE INDEX tg ON t (g); CREATE VIEW v AS SELECT g FROM t"
    )
    example.begin(
        MOOD.format(more="") + table, "INSERT INTO t VALUES ('ok')", MOOD.format(more=", 'x'") + table
    )
    assert "TODO" not in example.generate()
    assert example.rules == set()
    assert example.there_and_back()["t"] == [{"m": "ok", "g": True, "h": "ok"}]


def test_a_renamed_column_with_a_default_takes_the_old_values(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (id int, age text NOT NULL, doc json)",
        "INSERT INTO t VALUES (1, '5', '{\"a\": 1}')",
        "CREATE TABLE t (id int, years int NOT NULL DEFAULT 3, body jsonb NOT NULL DEFAULT '{}')",
    )
    example.generate()
    answered(example)
    assert example.there_and_back()["t"] == [{"id": 1, "years": 5, "body": {"a": 1}}]


def test_a_backfill_that_fails_loses_nothing_and_is_finished_by_the_next_run(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (id int, age text)",
        "INSERT INTO t VALUES (1, '5'), (2, 'unknown')",
        "CREATE TABLE t (id int, years int)",
    )
    example.generate()
    answered(example)
    assert example.run("upgrade", "head").code != 0
    assert example.database.execute("SELECT age FROM t ORDER BY id") == [("5",), ("unknown",)]
    example.database.execute("UPDATE t SET age = NULL WHERE id = 2")
    example.up()
    assert example.database.execute("SELECT years FROM t ORDER BY id") == [(5,), (None,)]


def test_a_table_that_is_renamed_and_changed_is_named(example: Example) -> None:
    example.begin(
        PEOPLE, ROWS, "CREATE TABLE persons (id int PRIMARY KEY, mail varchar(100), age int, n int)"
    )
    up, down = halves(example.generate())
    in_order(up, "-- TODO: the table people is dropped and persons is added", "DROP TABLE IF EXISTS people")
    assert "TODO" not in down


def test_a_column_stays_not_null_until_the_check_that_replaces_it_is_validated(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (a int NOT NULL)",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE t (a int CONSTRAINT given CHECK (a IS NOT NULL))",
    )
    up, down = halves(example.generate())
    in_order(up, "ADD CONSTRAINT given", 'op.validate_constraint("t", "given")', "DROP NOT NULL")
    in_order(down, 'op.set_not_null("t", "a")', "DROP CONSTRAINT IF EXISTS given")
    example.there_and_back()
