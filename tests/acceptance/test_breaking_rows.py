"""Are rows that break a new constraint found before `up` touches anything, with what shows them?"""

from __future__ import annotations

import pytest

from tests.support.expect import ends, next_step, succeeds, versions

SAFE = "SELECT 1"
PLACES = """
    CREATE TABLE countries (id integer PRIMARY KEY);
    CREATE TABLE places (id integer PRIMARY KEY, name text, state text, country integer);
    CREATE FUNCTION slow(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$;
    CREATE FUNCTION mend() RETURNS void LANGUAGE sql AS $$ UPDATE places SET state = 'open' $$
"""
NO_PLACES = """
    DROP FUNCTION mend(); DROP FUNCTION slow(integer); DROP TABLE places; DROP TABLE countries
"""
ROWS = """
    INSERT INTO countries VALUES (1);
    INSERT INTO places VALUES (1, 'Oslo', 'open', 1), (2, 'Rome', 'gone', 2), (3, 'Oslo', 'lost', NULL),
                              (4, NULL, 'open', 1)
"""
CHECK = "ALTER TABLE places ADD CONSTRAINT known CHECK (state IN ('open', 'shut'))"
NO_CHECK = "ALTER TABLE places DROP CONSTRAINT IF EXISTS known"
LOOP = """
    DO $$
    DECLARE r record;
    BEGIN
        FOR r IN SELECT id FROM places WHERE state NOT IN ('open', 'shut') LOOP
            UPDATE places SET state = 'shut' WHERE id = r.id;
        END LOOP;
    END
    $$
"""


@pytest.fixture
def places(migrated, guvnor, project):
    """A database at revision 003, of tables with rows."""
    project.add_revision(PLACES, NO_PLACES)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    migrated.execute(ROWS)
    return migrated


def test_rows_that_break_a_check_stop_it_with_the_query_that_shows_them(places, guvnor, alembic, project):
    project.add_revision(CHECK, NO_CHECK)
    here = {"database": places, "cwd": project.directory}
    words = (
        "❌ 2 rows of table places break check known, which revision 004 makes.",
        "State: The database is unchanged.",
    )
    for refused in (
        ends(guvnor("migrate", "preflight", **here), 3, *words),
        ends(guvnor("migrate", "up", **here), 3, *words),
        ends(guvnor("migrate", "deploy", **here), 3, *words[:1]),
        ends(alembic("upgrade", "head", **here), 3, *words),
    ):
        assert "Pre-flight checks passed" not in refused.out
    assert versions(places) == (["003"], [(3, False)])
    query = next_step(refused)[0].partition(";")[0]
    assert [row[0] for row in places.execute(query)] == [2, 3]
    # The revision before it may be applied, and so may all of it once the rows are corrected.
    project.add_revision(SAFE, SAFE)
    ends(guvnor("migrate", "up", "--to", "4", **here), 3)
    succeeds(guvnor("migrate", "up", "--to", "3", **here))
    places.execute("UPDATE places SET state = 'shut' WHERE state <> 'open'")
    shown = succeeds(guvnor("migrate", "preflight", **here))
    assert "✅ No row breaks what is about to be made (1 constraint checked)" in shown.out
    succeeds(guvnor("migrate", "up", **here), "Applied 004", "Applied 005")
    succeeds(guvnor("migrate", "down", "--to", "3", **here))
    succeeds(guvnor("migrate", "up", **here))


def test_a_check_of_no_column_or_of_the_whole_row_is_looked_at(places, guvnor, project):
    project.add_revision(
        """
        CREATE TABLE closed (id integer, CHECK (false));
        ALTER TABLE places ADD CONSTRAINT frozen CHECK (current_setting('our.ice', true) = 'off') NOT VALID;
        ALTER TABLE places ADD CONSTRAINT complete CHECK (places.* IS NOT NULL);
        ALTER TABLE countries ADD CONSTRAINT no_row CHECK (false)
        """,
        "DROP TABLE closed; ALTER TABLE places DROP CONSTRAINT frozen, DROP CONSTRAINT complete;"
        " ALTER TABLE countries DROP CONSTRAINT no_row",
    )
    here = {"database": places, "cwd": project.directory}
    refused = ends(
        guvnor("migrate", "up", **here),
        3,
        "1 row of table countries breaks check no_row",
        "2 rows of table places break check complete",
    )
    assert "closed" not in refused.err
    assert versions(places) == (["003"], [(3, False)])
    places.execute("DELETE FROM countries; UPDATE places SET name = 'Bern', country = 3 WHERE id > 2")
    succeeds(guvnor("migrate", "up", **here), "Applied 004")


def test_every_kind_of_constraint_is_looked_at(places, guvnor, project):
    project.add_revision(
        """
op.execute("ALTER TABLE places ADD CONSTRAINT in_country FOREIGN KEY (country) REFERENCES countries"
           " NOT VALID")
op.validate_constraint("places", "in_country")
op.set_not_null("places", "name")
op.create_index_concurrently(
    "one_name", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_name ON places (name)"
)
op.execute("ALTER TABLE places ADD CONSTRAINT later CHECK (id > 100) NOT VALID")
op.execute("ALTER TABLE places ADD CONSTRAINT kept CHECK (id > 0)")
""",
        'op.execute("SELECT 1")',
        python=True,
    )
    refused = ends(guvnor("migrate", "preflight", database=places, cwd=project.directory), 3)
    for words in (
        "1 row of table places breaks foreign key in_country",
        "1 row of table places breaks NOT NULL of column name",
        "1 value of table places breaks unique one_name",
    ):
        assert words in refused.err
    assert "later" not in refused.err
    assert "kept" not in refused.err
    shown = [line for line in next_step(refused) if line.endswith("-- shows them")]
    assert [len(places.execute(line.partition(";")[0])) for line in shown] == [1, 1, 1]


@pytest.mark.parametrize(
    ("statements", "warned"),
    [
        (["UPDATE places SET state = 'shut' WHERE state <> 'open'"], False),
        (["DELETE FROM places WHERE state <> 'open'"], False),
        ([LOOP], True),
        (["SELECT mend()"], False),
    ],
    ids=["update", "delete", "loop", "function"],
)
def test_what_the_revision_mends_itself_does_not_stop_it(places, guvnor, project, statements, warned):
    text = "\n".join(f'op.execute("""{statement}""")' for statement in [*statements, CHECK])
    project.add_revision(text, f'op.execute("{NO_CHECK}")', python=True)
    here = {"database": places, "cwd": project.directory}
    done = succeeds(guvnor("migrate", "up", **here), "Applied 004")
    unless = "2 rows of table places break check known, which revision 004 makes, unless"
    assert (unless in done.out) is warned
    succeeds(guvnor("migrate", "down", **here))
    succeeds(guvnor("migrate", "up", **here), "Applied 004")


def test_a_guard_that_looks_into_the_catalogs_mends_nothing(places, guvnor, project):
    guarded = f"""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'known') THEN
                {CHECK};
                ALTER TABLE places ADD FOREIGN KEY (country) REFERENCES countries ON DELETE CASCADE NOT VALID;
            END IF;
        END
        $$
    """
    project.add_revision(guarded, NO_CHECK)
    ends(guvnor("migrate", "up", database=places, cwd=project.directory), 3, "2 rows of table places break")


def test_what_takes_too_long_is_said(places, guvnor, project):
    project.add_revision("ALTER TABLE places ADD CONSTRAINT c CHECK (slow(id))", SAFE)
    shown = succeeds(guvnor("migrate", "preflight", database=places, cwd=project.directory))
    words = (
        "rows that break check c of table places could not be counted (not within 3s): SELECT * FROM places"
    )
    assert words in shown.out
    assert "(0 constraints checked)" in shown.out


def test_a_new_table_and_a_new_column_have_no_rows_that_break_anything(places, guvnor, project):
    project.add_revision(
        """
        CREATE TABLE notes (id integer PRIMARY KEY, place integer NOT NULL REFERENCES places, CHECK (id > 0));
        ALTER TABLE places ADD note integer UNIQUE REFERENCES notes, ADD stars integer NOT NULL DEFAULT 1
        """,
        "ALTER TABLE places DROP note, DROP stars; DROP TABLE notes",
    )
    shown = succeeds(guvnor("migrate", "preflight", database=places, cwd=project.directory))
    assert "about to be made" not in shown.out
    succeeds(guvnor("migrate", "up", database=places, cwd=project.directory), "Applied 004")
