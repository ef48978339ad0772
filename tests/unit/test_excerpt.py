"""What is shown of a revision's SQL: a beginning that says how long the whole is, and never a password."""

from __future__ import annotations

import pytest

from guvnor.postgres.excerpt import excerpt, redacted

WORD = "hunter2"


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE ROLE a LOGIN PASSWORD '{WORD}'",
        f"create user a password E'it\\'s {WORD}'",
        f"ALTER ROLE a ENCRYPTED PASSWORD 'md5{WORD}' VALID UNTIL '2030-01-01'",
        f"ALTER ROLE a PASSWORD $${WORD}$$",
        f"ALTER ROLE a PASSWORD\n  $x$two {WORD} words$x$",
        f"-- don't ask\nALTER ROLE a PASSWORD '{WORD}'",
        f"/* the app's role */ ALTER ROLE a PASSWORD 'it''s {WORD}'",
        f"DO $$ BEGIN EXECUTE 'ALTER ROLE a PASSWORD ''{WORD}'''; END $$",
        f"DO $$ BEGIN EXECUTE format('ALTER ROLE a PASSWORD %L', '{WORD}'); END $$",
        f"DO $a$ BEGIN EXECUTE $b$ALTER ROLE a PASSWORD '{WORD}'$b$; END $a$",
        f"CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password '{WORD}')",
        f"CREATE SUBSCRIPTION s CONNECTION 'host=h password={WORD}' PUBLICATION p",
        f"SELECT dblink_connect($q$host=h password={WORD} user=a$q$)",
        f"SELECT dblink_connect('postgres://a:{WORD}@h/d')",
        f"SELECT dblink_connect($q$ postgres://a:{WORD}@h/d $q$)",
        f"COMMENT ON COLUMN \"it's\".n IS NULL; ALTER ROLE a PASSWORD '{WORD}'",
        f"/* a /* nested */ that's long */ ALTER ROLE a PASSWORD '{WORD}'",
        f"""  File "a.py", line 3, in upgrade\n    op.execute("ALTER ROLE a PASSWORD '{WORD}'")""",
        f"""    op.execute("ALTER ROLE a PASSWORD " "'{WORD}'")""",
        f"ALTER ROLE a PASSWORD '{WORD}",  # the server will say that the string has no end
    ],
)
def test_no_password_is_shown(sql):
    assert WORD not in redacted(sql)
    assert WORD not in excerpt(sql)


def test_what_holds_no_password_is_shown_as_it_is():
    sql = "INSERT INTO incidents (title) VALUES ('it''s down'), ($$a$$)"
    assert excerpt(f"\n{sql}\n") == sql


def test_what_is_around_a_password_is_shown():
    sql = "CREATE ROLE app LOGIN PASSWORD 'x'; GRANT SELECT ON incidents TO app"
    assert redacted(sql) == "CREATE ROLE app LOGIN PASSWORD '***'; GRANT SELECT ON incidents TO app"


@pytest.mark.parametrize("text", ["x" * 2_400_000, "x\n" * 1_200_000, "\n".join(["y" * 500] * 12)])
def test_a_long_text_is_cut_and_says_so(text):
    shown = excerpt(text)
    assert len(shown) < 2200
    assert shown.count("\n") <= 12
    assert f"{len(text.strip()):,} characters in all" in shown
