"""Raw SQL in a revision is what its author wrote: tabs, percent signs, colons and backslashes are kept."""

from __future__ import annotations

import json

import pytest

from guvnor.revisions.statements import checksum
from tests.acceptance.test_alembic import applies
from tests.support.expect import AT_HEAD, ends, succeeds, versions
from tests.support.forked import ForkedCommand
from tests.support.project import Project
from tests.support.server import Database

BACK = "op.execute('DROP TABLE IF EXISTS notes')"
TEXTS = (
    "at :noon, 50%",
    "100%% of %s and %(name)s",
    "a\ttab, two  blanks \n  and a line",
    '{"on_call":true, "a" :b}',
    "C:\\temp\\new \\: \\d+ \\\\ \\x41",
    "::text :: a::b [1:n] :1 :: :",
    "x := :'y'",
    "-- :no comment /* :none */",
    "ends in a backslash \\",
)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


INSERT = "INSERT INTO notes (body) VALUES\n\t" + ",\n\t".join(f"({literal(text)})" for text in TEXTS)
FUNCTION = "CREATE OR REPLACE FUNCTION noon() RETURNS text LANGUAGE sql AS $$ SELECT $q$50% :of\tit$q$ $$"
UPGRADE = (
    "op.execute('CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, body text, copy text)')\n"
    f"op.execute({INSERT!r})\n"
    f"op.execute({'SELECT 1 -- a comment at the end;'!r})\n"
    "op.execute(\"ALTER TABLE notes ADD COLUMN IF NOT EXISTS kind text DEFAULT 'a:b%c\\td'\")\n"
    f"op.execute({FUNCTION!r})"
)


def check(database: Database) -> None:
    assert [body for (body,) in database.execute("SELECT body FROM notes ORDER BY id")] == list(TEXTS)
    assert database.execute("SELECT DISTINCT kind, noon() FROM notes") == [("a:b%c\td", "50% :of\tit")]


def add(project: Project) -> None:
    back = "op.execute('DROP FUNCTION IF EXISTS noon')\n" + BACK
    project.add_revision(UPGRADE, back, python=True)


def test_it_runs_as_it_stands_up_down_and_up(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    add(project)
    for words in (("up",), ("down", "--to", "2", "--no-backup"), ("up",)):
        succeeds(guvnor("migrate", *words, database=migrated, cwd=project.directory))
    check(migrated)
    # The shadow has the same default, and the same function.
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))


def test_plain_alembic_does_the_same(alembic: ForkedCommand, migrated: Database, project: Project) -> None:
    add(project)
    for words in (("upgrade", "head"), ("downgrade", "-1"), ("upgrade", "head")):
        succeeds(alembic(*words, database=migrated, cwd=project.directory))
    check(migrated)


def test_the_script_for_psql_holds_the_same_bytes(
    alembic: ForkedCommand, migrated: Database, project: Project
) -> None:
    add(project)
    script = succeeds(alembic("upgrade", "002:003", "--sql", cwd=project.directory)).out
    assert INSERT in script
    applies(migrated, script)
    check(migrated)
    applies(migrated, succeeds(alembic("downgrade", "003:002", "--sql", cwd=project.directory)).out)
    applies(migrated, script)
    check(migrated)


def test_a_revision_that_asks_the_database_does_the_same_in_the_shadow(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    asks = "op.get_bind().exec_driver_sql('SELECT 1').scalar()\n"
    back = "op.execute('DROP FUNCTION IF EXISTS noon')\n" + BACK
    project.add_revision(asks + UPGRADE, back, python=True)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    check(migrated)
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))


def test_online_operations_do_the_same(
    guvnor: ForkedCommand, alembic: ForkedCommand, migrated: Database, project: Project
) -> None:
    add(project)
    online = (
        f"op.backfill('notes', {'copy = body || $$ :x%	y$$'!r}, 'copy IS NULL')\n"
        "op.create_index_concurrently('notes_i', \"CREATE INDEX CONCURRENTLY IF NOT EXISTS notes_i "
        "ON notes (id) WHERE body <> '50%:x\\t\\\\:y'\")"
    )
    project.add_revision(online, "op.drop_index_concurrently('notes_i')", python=True, name="online")
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    wrong = migrated.execute("SELECT body, copy FROM notes WHERE copy <> body || E' :x%\\ty'")
    assert wrong == []
    assert "'50%:x\t\\:y'" in str(migrated.execute("SELECT pg_get_indexdef('notes_i'::regclass)")[0][0])
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))
    script = succeeds(alembic("upgrade", "003:004", "--sql", cwd=project.directory)).out
    assert "'50%:x\t\\:y'" in script
    assert "$$ :x%\ty$$" in script


def test_text_still_takes_parameters(
    guvnor: ForkedCommand, alembic: ForkedCommand, migrated: Database, project: Project
) -> None:
    insert = r"INSERT INTO notes VALUES (:body || 'a\:noon')"
    project.add_revision(
        "from sqlalchemy import text\n"
        "op.execute('CREATE TABLE IF NOT EXISTS notes (body text)')\n"
        f"op.execute(text({insert!r}).bindparams(body='50%\\t'))",
        BACK,
        python=True,
    )
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    assert migrated.execute("SELECT body FROM notes") == [("50%\ta:noon",)]
    succeeds(guvnor("migrate", "down", "--no-backup", database=migrated, cwd=project.directory))
    applies(migrated, succeeds(alembic("upgrade", "002:003", "--sql", cwd=project.directory)).out)
    assert migrated.execute("SELECT body FROM notes") == [("50%\ta:noon",)]


def test_a_failing_statement_is_shown_as_it_was_written(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision("SELECT '50%', 'two %%', ':noon', 1 / 0")
    failed = ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1)
    assert "SELECT '50%', 'two %%', ':noon', 1 / 0" in failed.err


def test_a_failing_operation_of_alembic_is_shown_without_what_is_for_the_driver(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(
        "op.create_check_constraint('c', 'schedules', \"name LIKE '50%' AND nothing\")",
        "op.execute('SELECT 1')",
        python=True,
    )
    failed = ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1)
    assert "LIKE '50%' AND" in failed.err


@pytest.mark.parametrize("backslash", ["\\", "\\\\"], ids=["raw", "doubled"])
def test_an_escaped_colon_is_refused_with_what_to_write(
    guvnor: ForkedCommand, alembic: ForkedCommand, migrated: Database, project: Project, backslash: str
) -> None:
    prefix = "r" if len(backslash) == 1 else ""
    path = project.add_revision(
        "op.execute('CREATE TABLE IF NOT EXISTS notes (body text)')\n"
        f'op.execute({prefix}"""\n    INSERT INTO notes\n    VALUES (\'at {backslash}:noon\')\n""")',
        BACK,
        python=True,
    )
    number = next(i for i, line in enumerate(path.read_text().split("\n"), 1) if ":noon" in line)
    results = (
        guvnor("migrate", "up", database=migrated, cwd=project.directory),
        guvnor("migrate", "preflight", database=migrated, cwd=project.directory),
        alembic("upgrade", "head", database=migrated, cwd=project.directory),
        alembic("upgrade", "002:head", "--sql", cwd=project.directory),
    )
    for result in results:
        failed = ends(result, 3)
        shown = failed.err + failed.out
        assert f"003_test.py, line {number}, has a backslash before a colon" in shown
        assert f"line {number} becomes: VALUES ('at :noon')" in shown
    assert versions(migrated) == AT_HEAD
    path.write_text(path.read_text().replace(f"{backslash}:noon", ":noon"))
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    assert migrated.execute("SELECT body FROM notes") == [("at :noon",)]


def test_a_revision_that_an_older_release_applied_goes_on(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    """Its file may have escaped colons and tabs, and its history does not say how it was rendered."""
    migrated.execute("DROP TABLE IF EXISTS notes")
    written = "CREATE TABLE IF NOT EXISTS notes (body text DEFAULT 'a\tb \\:noon')"
    back = r"""op.execute(r"INSERT INTO schedules (name) SELECT 'x' WHERE '\:noon' <> ':' || 'noon'")"""
    path = project.add_revision(
        f"op.execute({written.replace(chr(92), '')!r})", f"{back}\n{BACK}".replace("\\", ""), python=True
    )
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    assert migrated.execute(
        "SELECT DISTINCT rendering FROM guvnor_migration_history WHERE revision = '003'"
    ) == [(2,)]
    path.write_text(
        path.read_text()
        .replace(repr(written.replace("\\", "")), repr(written))
        .replace(back.replace("\\", ""), back)
    )
    assert "\\\\:noon" in path.read_text()
    before = checksum(["CREATE TABLE IF NOT EXISTS notes (body text DEFAULT 'a    b :noon');"])
    migrated.execute("ALTER TABLE guvnor_migration_history DROP COLUMN rendering")
    migrated.execute("UPDATE guvnor_migration_history SET checksum = %s WHERE revision = '003'", (before,))

    def is_unchanged() -> bool:
        result = succeeds(guvnor("migrate", "preflight", database=migrated, cwd=project.directory))
        return "was changed after it was applied" not in result.out + result.err

    assert is_unchanged()
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))
    # Once somebody has taken the backslashes out, the statements are still the same.
    mended = path.read_text().replace("\\\\:", ":").replace("\\:", ":")
    old = path.read_text()
    path.write_text(mended)
    assert is_unchanged()
    succeeds(guvnor("schema", "check", database=migrated, cwd=project.directory))
    path.write_text(mended.replace("noon", "night"))
    assert not is_unchanged()
    path.write_text(old)
    succeeds(guvnor("migrate", "down", "--no-backup", database=migrated, cwd=project.directory))
    assert migrated.execute("SELECT to_regclass('notes')") == [(None,)]
    assert migrated.execute("SELECT rendering FROM guvnor_migration_history ORDER BY id DESC LIMIT 1") == [
        (2,)
    ]


def test_lint_names_the_line_and_what_to_write(guvnor: ForkedCommand, project: Project) -> None:
    path = project.add_revision(
        "op.execute(r\"ALTER TABLE schedules ALTER COLUMN description SET DEFAULT 'at \\:noon'\")",
        'op.execute("ALTER TABLE schedules ALTER COLUMN description DROP DEFAULT")',
        python=True,
    )
    words = ("schema", "lint", "--since", "2")
    result = guvnor(*words, cwd=project.directory)
    assert result.code == 3
    assert "003_test.py:16 no-escaped-colon" in result.out
    assert "SET DEFAULT 'at :noon'\")" in result.out
    path.write_text(path.read_text().replace("\\:", ":"))
    succeeds(guvnor(*words, cwd=project.directory))


def test_a_plan_shows_it_as_it_stands(
    guvnor: ForkedCommand, migrated: Database, database: Database, project: Project
) -> None:
    sql = "ALTER TABLE schedules ALTER COLUMN description SET DEFAULT '50%%\t:noon %s'"
    project.add_revision(sql, "ALTER TABLE schedules ALTER COLUMN description DROP DEFAULT")
    for options in ((), ("--shadow-dsn", database.dsn)):
        words = ("migrate", "plan", "up", "--json", *options)
        result = succeeds(guvnor(*words, database=migrated, cwd=project.directory))
        assert json.dumps(sql)[1:-1] in result.out, result.out
