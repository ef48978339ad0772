"""Which SQL would end the revision's transaction, as far as its text shows, and which would not."""

from __future__ import annotations

import time

import pytest

from guvnor.revisions.transaction_control import ending


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
