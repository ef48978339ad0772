"""Which SQL would end the revision's transaction, as far as its text shows, and which would not."""

from __future__ import annotations

import time

import pytest

from guvnor.revisions.transaction_control import (
    ending,
    may_write_unseen,
    only_alters,
    seen_on_empty_tables,
    split,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("COMMIT", "COMMIT"),
        ("commit and chain;", "commit and chain"),
        ("END", "END"),
        ("ABORT WORK", "ABORT WORK"),
        ("ROLLBACK; BEGIN", "ROLLBACK"),
        ("CREATE TABLE a (); /* done; */ COMMIT -- now\n; SELECT 1/0", "COMMIT"),
        ("SELECT 'a;b', $$;$$, \"c;d\"; -- x;\nROLLBACK AND NO CHAIN", "ROLLBACK AND NO CHAIN"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ("SELECT E'it\\'s;'; END TRANSACTION", "END TRANSACTION"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 2 END; END; COMMIT",
            "COMMIT",
        ),
    ],
)
def test_what_ends_the_transaction_is_found(text: str, found: str) -> None:
    assert ending(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";;",
        "SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a; RELEASE a",
        "PREPARE x AS SELECT 1",
        "ROLLBACK PREPARED 'x'; COMMIT PREPARED 'y'",
        "BEGIN; START TRANSACTION",
        "DO $$ BEGIN PERFORM 1; EXCEPTION WHEN others THEN NULL; END $$",
        "DO 'BEGIN COMMIT; END'",
        "SELECT CASE WHEN true THEN 1 END; SELECT 'x; COMMIT'",
        "CREATE TABLE t (i int) ON COMMIT DROP",
        'CREATE TEMP TABLE "x;COMMIT" (i int); -- ; COMMIT\n/* /* ; */ ; COMMIT */ SELECT 1',
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; NOTIFY end)",
        "CREATE OR REPLACE FUNCTION f(i int) RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t SELECT CASE WHEN true THEN 2 END; END; SELECT 1",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END; $f$",
    ],
)
def test_what_does_not_end_it_passes(text: str) -> None:
    assert ending(text) is None


def test_a_long_text_takes_no_time() -> None:
    rows = ", ".join(f"({number}, 'a;b')" for number in range(100_000))
    began = time.process_time()
    assert ending(f"INSERT INTO t VALUES {rows}; END") == "END"
    assert time.process_time() - began < 5


def test_a_text_is_split_as_psql_does() -> None:
    text = """
        CREATE RULE r AS ON INSERT TO a DO ALSO (SELECT 1; SELECT 2); -- one; only
        SELECT ';' AS ";", $a$;$a$;;
        CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;
        DO $$ BEGIN NULL; END $$
    """
    assert [part.split()[0] for part in split(text)] == ["CREATE", "--", "CREATE", "DO"]
    assert split("") == split(";; -- nothing") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("DO $$ BEGIN NULL; END $$", True),
        ("CREATE TABLE a (); CALL p()", True),
        ("SELECT close_all()", True),
        ("SELECT 1", False),
        ("SELECT 'f()' -- g()", False),
        ("UPDATE a SET b = 1", False),
        ("ALTER TABLE a ADD CHECK (length(b) > 0)", False),
    ],
)
def test_what_may_do_more_where_there_are_rows_is_told(text: str, found: bool) -> None:
    assert seen_on_empty_tables(text) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("UPDATE places SET name = mend(name)", True),
        ("INSERT INTO places SELECT Mend (id) FROM other", True),
        ("INSERT INTO places (id) VALUES (lower('mend(1)'))", False),
        ("UPDATE places SET mend = 1 WHERE commend(id)", False),
        ("CREATE TRIGGER t AFTER UPDATE ON places EXECUTE FUNCTION mend()", False),
        ("WITH a AS (SELECT mend(1)) TABLE a", True),
        ("VALUES (mend(1))", True),
    ],
)
def test_a_statement_that_calls_one_of_our_functions_is_told(text: str, found: bool) -> None:
    assert seen_on_empty_tables(text, ["mend"]) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("DO $$ BEGIN UPDATE places SET name = ''; END $$", True),
        ("DO $$ BEGIN PERFORM mend(); END $$", True),
        ("DO $$ BEGIN EXECUTE 'TRUN' || 'CATE places'; END $$", True),
        ("DO $$ DECLARE n int; BEGIN SELECT mend() INTO n; END $$", True),
        ("SELECT mend()", True),
        (("DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'c') THEN "
         "ALTER TABLE a ADD CONSTRAINT c FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE ON UPDATE NO ACTION; "
         "END IF; EXCEPTION WHEN duplicate_object THEN NULL; END $$"), False),
        (("DO $$ BEGIN CREATE TRIGGER t BEFORE INSERT OR UPDATE OF a ON b FOR EACH ROW EXECUTE FUNCTION f(); "
         "END $$"), False),
        ("UPDATE places SET name = ''", False),
    ],
)  # fmt: skip
def test_what_may_write_rows_where_there_are_some_is_told(text: str, found: bool) -> None:
    assert may_write_unseen(text) is found


def test_alter_statements_are_told_from_others() -> None:
    assert only_alters("ALTER TABLE a ADD b int; /* c */ alter table a DISABLE TRIGGER ALL;")
    assert not only_alters("ALTER TABLE a DISABLE TRIGGER ALL; DELETE FROM a")
    assert not only_alters("DO $$ BEGIN NULL; END $$")
