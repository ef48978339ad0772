"""Is a loss of data seen, whatever causes it: shown by the plan, asked for, and kept by a backup?"""

from __future__ import annotations

import gzip
import json
import re
import subprocess

import pytest

from guvnor.embedded import binaries
from tests.support.expect import ends, succeeds

PRODUCTION = {"GUVNOR_ENV": "production"}
SAFE = "SELECT 1"
EXTRA = """
    CREATE TABLE places (id integer PRIMARY KEY, name varchar(400), price numeric(12, 4), ratio float8,
                         at timestamp, active boolean, state text, CHECK (id > 0));
    CREATE TABLE visits (id integer PRIMARY KEY, place_id integer REFERENCES places ON DELETE CASCADE);
    CREATE TABLE guides (id integer PRIMARY KEY, place_id integer REFERENCES places ON DELETE SET NULL);
    CREATE VIEW open_places AS SELECT id, name, active FROM places WHERE active;
    CREATE MATERIALIZED VIEW all_places AS SELECT id FROM places;
    CREATE FUNCTION close_all() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN UPDATE places SET active = false; END $$
"""
NO_EXTRA = """
    DROP FUNCTION close_all(); DROP MATERIALIZED VIEW all_places; DROP VIEW open_places;
    DROP TABLE guides; DROP TABLE visits; DROP TABLE places
"""
ROWS = f"""
    INSERT INTO places VALUES (1, '{"x" * 300}', 1.2345, 1.7, '2026-01-01 10:00', true, 'open'),
                              (2, 'short', 1, 2, '2026-01-01', true, NULL);
    INSERT INTO places (id) VALUES (3);
    INSERT INTO visits VALUES (1, 1), (2, 2);
    INSERT INTO guides VALUES (1, 1)
"""


@pytest.fixture
def places(migrated, guvnor, project):
    """A database with a revision 003 of tables that hold rows."""
    project.add_revision(EXTRA, NO_EXTRA)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    migrated.execute(ROWS)
    return migrated


def plan_hash(text):
    return re.findall(r"Plan hash: ([0-9a-f]{16})", text)[-1]


def losses(guvnor, database, project, *words):
    shown = succeeds(guvnor("migrate", "plan", *words, "--json", database=database, cwd=project.directory))
    return {(loss["how"], loss["name"]): loss["count"] for loss in json.loads(shown.out)["losses"]}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "TRUNCATE places CASCADE",
            {("truncate", "places"): 3, ("truncate", "visits"): 2, ("truncate", "guides"): 1},
        ),
        ("DELETE FROM visits", {("delete", "visits"): 2}),
        (
            (
                "DO $$ BEGIN DELETE FROM places; "
                "ALTER TABLE visits DROP CONSTRAINT visits_place_id_fkey; END $$"
            ),
            {("delete", "places"): 3, ("delete", "visits"): 2, ("update", "guides.place_id"): 1},
        ),
        (
            "DELETE FROM places",
            {("delete", "places"): 3, ("delete", "visits"): 2, ("update", "guides.place_id"): 1},
        ),
        ("UPDATE places SET active = false WHERE active", {("update", "places.active"): 2}),
        (
            "DO $$ BEGIN UPDATE places SET state = 'x', active = true; END $$",
            {("update", "places.active"): 2, ("update", "places.state"): 1},
        ),
        ("DO $$ BEGIN EXECUTE 'TRUN' || 'CATE visits'; END $$", {("truncate", "visits"): 2}),
        ("SELECT close_all()", {("update", "places.active"): 2}),
        ("UPDATE open_places SET name = 'x'", {("update", "places.name"): 2}),
        (
            "WITH gone AS (DELETE FROM visits RETURNING id) SELECT count(*) FROM gone",
            {("delete", "visits"): 2},
        ),
        (
            "INSERT INTO places (id, state) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET state = 'x'",
            {("update", "places.state"): 1},
        ),
        ("ALTER TABLE places ALTER price TYPE numeric(12, 2)", {("cast", "places.price"): 1}),
        ("ALTER TABLE places ALTER ratio TYPE integer", {("cast", "places.ratio"): 1}),
        ("ALTER TABLE places ALTER at TYPE date", {("cast", "places.at"): 1}),
        (
            (
                "DROP VIEW open_places; "
                "ALTER TABLE places ALTER name TYPE varchar(255) USING CAST(name AS varchar(255))"
            ),
            {("cast", "places.name"): 1},
        ),
        ("ALTER TABLE places ALTER price TYPE numeric(14, 4)", {}),
        ("ALTER TABLE places ALTER state TYPE varchar(100)", {}),
        ("ALTER TABLE places ALTER price TYPE boolean USING true", {("cast", "places.price"): None}),
        ("ALTER TABLE places ALTER state TYPE text USING NULL", {("rewrite", "places.state"): 1}),
        # The types would keep every value, but what USING says does not.
        (
            "DROP VIEW open_places; ALTER TABLE places ALTER name TYPE text USING left(name, 2)",
            {("rewrite", "places.name"): 2},
        ),
        (
            (
                "DROP VIEW open_places; "
                "ALTER TABLE places ALTER name TYPE text USING name::text, ALTER active SET NOT NULL"
            ),
            {},
        ),
        ("ALTER TABLE guides ALTER place_id TYPE bigint USING 1", {("rewrite", "guides.place_id"): 1}),
        ("ALTER TABLE guides ALTER place_id TYPE bigint USING place_id * 100", {}),
        (
            "ALTER TABLE places ALTER state TYPE text USING lower(state), ALTER state SET DEFAULT 'x'",
            {("rewrite", "places.state"): 1},
        ),
        ("ALTER TABLE places ALTER state TYPE text, ALTER price TYPE numeric(14, 6)", {}),
        (
            "ALTER TABLE places ALTER at TYPE timestamptz USING at AT TIME ZONE 'Europe/Berlin'",
            {},
        ),
        ("ALTER TABLE places DROP ratio, ADD ratio float8", {("drop", "places.ratio"): 2}),
        (
            "DROP TABLE visits; CREATE TABLE visits (id integer PRIMARY KEY, place_id integer)",
            {("drop", "visits"): 2},
        ),
        ("ALTER TABLE visits RENAME TO calls; ALTER TABLE calls RENAME place_id TO place", {}),
        ("ALTER TABLE visits RENAME TO calls; DELETE FROM calls", {("delete", "visits"): 2}),
        ("DROP VIEW open_places; DROP MATERIALIZED VIEW all_places", {}),
        ("ALTER TABLE places ADD extra text; UPDATE places SET extra = state", {}),
        ("CREATE TABLE news (id integer); INSERT INTO news VALUES (1); DELETE FROM news", {}),
        ("ALTER TABLE visits DISABLE TRIGGER ALL", {}),
        (
            (
                "ALTER TABLE visits DISABLE TRIGGER ALL; DELETE FROM visits; "
                "ALTER TABLE visits ENABLE TRIGGER ALL"
            ),
            {("delete", "visits"): 2},
        ),
        (
            (
                "DO $$ BEGIN ALTER TABLE visits DISABLE TRIGGER ALL; DELETE FROM visits; "
                "ALTER TABLE visits ENABLE TRIGGER ALL; END $$"
            ),
            {("unseen", "visits"): 2},
        ),
        ("CREATE INDEX ON places (state); ALTER TABLE places ALTER active SET DEFAULT true", {}),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_the_plan_shows_what_is_lost(places, guvnor, project, sql, expected):
    project.add_revision(sql, SAFE)
    assert losses(guvnor, places, project) == expected


def test_production_asks_before_any_loss_and_its_hash_is_that_of_the_plan(places, guvnor, project):
    path = project.add_revision("DO $$ BEGIN EXECUTE 'TRUNCATE visits'; END $$", SAFE)
    here = {"database": places, "env": PRODUCTION, "cwd": project.directory}
    shown = succeeds(guvnor("migrate", "plan", **here))
    assert "  - table visits with 2 rows, which is truncated" in shown.out
    assert shown.out.count("-- seen on empty tables") == 1
    refused = ends(
        guvnor("migrate", "up", **here),
        *(4, "apply a migration that deletes data", "This may result in data loss."),
        "table visits with 2 rows, which is truncated",
    )
    assert plan_hash(refused.err) == plan_hash(shown.out)
    dry = succeeds(guvnor("migrate", "deploy", "--dry-run", **here))
    assert plan_hash(refused.err) in dry.out + dry.err
    # A number of rows does not count, but what is lost does.
    places.execute("INSERT INTO visits VALUES (3, 1)")
    assert plan_hash(succeeds(guvnor("migrate", "plan", **here)).out) == plan_hash(shown.out)
    path.write_text(path.read_text().replace("TRUNCATE visits", "TRUNCATE guides"))
    ends(
        guvnor("migrate", "up", "--confirm", plan_hash(shown.out), **here), 4, "does not belong to this plan"
    )
    path.write_text(path.read_text().replace("TRUNCATE guides", "TRUNCATE visits"))
    succeeds(guvnor("migrate", "up", "--confirm", plan_hash(shown.out), **here), "Applied 004")


def test_the_hash_covers_what_a_routine_does_that_the_revision_only_calls(places, guvnor, project):
    """The statements are the same, but what they lose is not."""
    project.add_revision("SELECT close_all()", SAFE)
    here = {"database": places, "env": PRODUCTION, "cwd": project.directory}
    before = plan_hash(succeeds(guvnor("migrate", "plan", **here)).out)
    other = project.versions / "003_test.py"
    other.write_text(other.read_text().replace("SET active = false", "SET state = NULL"))
    assert plan_hash(succeeds(guvnor("migrate", "plan", **here)).out) != before


def test_what_the_file_accepts_is_shown_and_not_asked(places, guvnor, project):
    accepted = "# changes data: visits: nobody reads them\n"
    path = project.add_revision(
        f'{accepted}op.execute("TRUNCATE visits")', f'op.execute("{SAFE}")', python=True
    )
    here = {"database": places, "env": PRODUCTION, "cwd": project.directory}
    shown = succeeds(guvnor("migrate", "plan", **here))
    assert "No other data would be lost." in shown.out
    assert "  - table visits with 2 rows, which is truncated (004: nobody reads them)" in shown.out
    # Another reason is another plan; another table or column is not accepted.
    text = path.read_text()
    path.write_text(text.replace("nobody reads them", "they are in the archive"))
    assert plan_hash(succeeds(guvnor("migrate", "plan", **here)).out) != plan_hash(shown.out)
    for other in ("guides", "visits.place_id", "visits:", "guides.visits"):
        path.write_text(text.replace("data: visits:", f"data: {other}:").replace("::", ":\n    #"))
        ends(guvnor("migrate", "up", **here), 4, "table visits with 2 rows")
    path.write_text(text)
    done = succeeds(guvnor("migrate", "up", **here), "Applied 004")
    assert "the revisions accept a loss of data" in done.err
    assert "You are about to" not in done.err


def test_what_was_renamed_in_the_same_plan_is_accepted_by_the_name_in_the_file(places, guvnor, project):
    project.add_revision(
        "ALTER TABLE visits RENAME TO calls; ALTER TABLE calls RENAME place_id TO place", SAFE
    )
    project.add_revision(
        "# changes data: calls.place: it is wrong\nop.execute('UPDATE calls SET place = NULL')",
        f"op.execute('{SAFE}')",
        python=True,
    )
    shown = succeeds(guvnor("migrate", "plan", database=places, cwd=project.directory))
    assert "column visits.place_id, of which up to 2 values are overwritten (005: it is wrong)" in shown.out


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        ("op.backfill('places', \"state = 'x'\", 'state IS NULL')", {}),
        ("op.backfill('places', \"state = 'x'\", 'state IS NULL AND id > 0 -- all')", {}),
        (
            "op.backfill('places', \"state = 'x'\", \"state IS DISTINCT FROM 'x'\")",
            {("update", "places.state"): 1},
        ),
        (
            "op.backfill('places', \"state = 'x', active = NULL\", 'active')",
            {("update", "places.state"): 1, ("update", "places.active"): 2},
        ),
        (
            (
                "op.execute('ALTER TABLE places ADD extra text')\n"
                "op.backfill('places', 'extra = state', 'extra IS NULL')"
            ),
            {},
        ),
        ("op.get_bind().exec_driver_sql(\"UPDATE places SET state = 'x'\")", {("update", "places.state"): 1}),
        (
            "op.get_bind().exec_driver_sql('DELETE FROM visits WHERE id = %s', (1,))",
            {("delete", "visits"): 2},
        ),
    ],
)
def test_a_backfill_counts_by_its_predicate(places, guvnor, project, upgrade, expected):
    project.add_revision(upgrade, f'op.execute("{SAFE}")', python=True)
    assert losses(guvnor, places, project) == expected


def test_values_of_any_type_are_counted_on_the_live_database(migrated, guvnor, project):
    here = {"database": migrated, "cwd": project.directory}
    project.add_revision(
        """
        CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE TABLE "Odd.Name"
            (m mood, j json, l varchar(9)[], n numeric, t text, "A b" text, w bigint, k text)
        """,
        'DROP TABLE "Odd.Name"; DROP TYPE mood',
    )
    succeeds(guvnor("migrate", "up", **here))
    migrated.execute("""
        INSERT INTO "Odd.Name" VALUES ('good', '{"a": 1}', '{123}', 1, 'a', 'a', 1, 'good'),
            ('bad', '{"a":1, "a":2}', '{123,1234567}', 1.5, 'abcdef', 'abcdef', 9007199254740993, 'bad');
        INSERT INTO "Odd.Name" (m) VALUES (NULL)
    """)
    project.add_revision(
        """
        CREATE DOMAIN short AS varchar(3);
        ALTER TYPE mood RENAME TO old;
        CREATE TYPE mood AS ENUM ('good');
        CREATE TYPE pair AS (a integer, b integer);
        ALTER TABLE "Odd.Name" ALTER m TYPE mood USING m::text::mood, ALTER j TYPE jsonb,
            ALTER l TYPE varchar(3)[], ALTER n TYPE integer, ALTER t TYPE short, ALTER "A b" TYPE varchar(3),
            ALTER w TYPE float8, ALTER k TYPE pair USING NULL
        """,
        SAFE,
    )
    assert losses(guvnor, migrated, project) == {
        ("cast", '"Odd.Name".m'): 1,
        ("cast", '"Odd.Name".j'): 1,
        ("cast", '"Odd.Name".l'): 1,
        ("cast", '"Odd.Name".n'): 1,
        ("cast", '"Odd.Name".t'): 1,
        ("cast", '"Odd.Name"."A b"'): 1,
        ("cast", '"Odd.Name".w'): 1,
        ("cast", '"Odd.Name".k'): None,
    }
    shown = succeeds(guvnor("migrate", "plan", **here)).out
    assert (
        'column "Odd.Name".k, whose type becomes pair: how many values that changes cannot be counted'
        in shown
    )


def test_a_rollback_of_views_loses_nothing(places, guvnor, project):
    view = "CREATE VIEW v AS SELECT id, name FROM places; CREATE MATERIALIZED VIEW m AS SELECT id FROM places"
    project.add_revision(view, "DROP MATERIALIZED VIEW m; DROP VIEW v")
    succeeds(guvnor("migrate", "up", database=places, cwd=project.directory))
    here = {"database": places, "env": PRODUCTION, "cwd": project.directory}
    asked = ends(guvnor("migrate", "down", **here), 4, "none, since no data is lost")
    succeeds(guvnor("migrate", "down", "--confirm", plan_hash(asked.err), **here), "Rolled back 004")


def test_a_rollback_keeps_what_it_cuts_overwrites_and_deletes(places, guvnor, project, directory):
    """The backup puts it back after another up."""
    project.add_revision(
        "ALTER TABLE places ALTER price TYPE numeric(14, 6)",
        "ALTER TABLE places ALTER price TYPE numeric(12, 1); UPDATE places SET state = NULL; "
        "DELETE FROM visits WHERE id = 1; TRUNCATE guides",
    )
    cwd = project.directory
    succeeds(guvnor("migrate", "up", database=places, cwd=cwd))
    contents = (
        "SELECT p.id, price, state, v.id, g.id FROM places p LEFT JOIN visits v ON v.place_id = p.id "
        "LEFT JOIN guides g ON g.place_id = p.id ORDER BY p.id"
    )
    before = places.execute(contents)
    here = {"database": places, "env": PRODUCTION, "cwd": cwd}
    flags = ("migrate", "down", "--backup", directory)
    refused = ends(
        guvnor(*flags, **here), 4, "of what is dropped, to ", "numeric(12,1) cuts, rounds or refuses"
    )
    succeeds(guvnor(*flags, "--confirm", plan_hash(refused.err), **here), "✅ Backup taken")
    assert places.execute(contents) != before
    succeeds(guvnor("migrate", "up", database=places, cwd=cwd))
    (script,) = [path for path in directory.iterdir() if path.name.endswith(".gz")]
    command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", places.dsn]
    subprocess.run(command, input=gzip.decompress(script.read_bytes()), check=True)
    assert places.execute(contents) == before


def test_a_rollback_that_deletes_some_rows_and_drops_a_column_keeps_the_values_of_the_others(
    places, guvnor, project, directory
):
    """Numbers that were handed out since the rollback are not handed out again."""
    project.add_revision(
        "CREATE TABLE rooms (id serial PRIMARY KEY, name text); ALTER TABLE rooms ADD kind text",
        "DELETE FROM rooms WHERE kind = 'new'; ALTER TABLE rooms DROP kind",
    )
    cwd = project.directory
    succeeds(guvnor("migrate", "up", database=places, cwd=cwd))
    path = project.add_revision(SAFE, "DELETE FROM rooms WHERE kind = 'new'; ALTER TABLE rooms DROP kind")
    again = "ALTER TABLE rooms ADD IF NOT EXISTS kind text"
    path.write_text(path.read_text().replace(f"op.execute({SAFE!r})", f"op.execute({again!r})"))
    succeeds(guvnor("migrate", "up", database=places, cwd=cwd))
    places.execute("INSERT INTO rooms (name, kind) VALUES ('a', 'new'), ('b', 'old')")
    before = places.execute("TABLE rooms ORDER BY id")
    succeeds(guvnor("migrate", "down", "--backup", directory, database=places, cwd=cwd), "✅ Backup taken")
    succeeds(guvnor("migrate", "up", database=places, cwd=cwd))
    places.execute("INSERT INTO rooms (name) VALUES ('c'), ('d')")
    (script,) = [path for path in directory.iterdir() if path.name.endswith(".gz")]
    command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", places.dsn]
    subprocess.run(command, input=gzip.decompress(script.read_bytes()), check=True)
    assert places.execute("SELECT id, name, kind FROM rooms WHERE id < 3 ORDER BY id") == before
    assert places.execute("SELECT nextval('rooms_id_seq')") == [(5,)]


def test_giving_up_the_backup_is_another_plan(places, guvnor, project):
    project.add_revision(SAFE, "DELETE FROM visits")
    succeeds(guvnor("migrate", "up", database=places, cwd=project.directory))
    here = {"database": places, "cwd": project.directory}
    env = PRODUCTION | {"GUVNOR_BACKUP_DIR": str(project.directory)}
    with_backup = ends(guvnor("migrate", "down", env=env, **here), 4)
    without = ends(guvnor("migrate", "down", "--no-backup", env=env, **here), 4)
    assert plan_hash(with_backup.err) != plan_hash(without.err)
    shown = succeeds(guvnor("migrate", "plan", "down", env=PRODUCTION, **here))
    assert plan_hash(shown.out) == plan_hash(with_backup.err)


def test_a_backup_of_the_whole_database_is_no_other_plan(places, guvnor, project, directory):
    project.add_revision("DELETE FROM visits", "SELECT 1")
    here = {"database": places, "cwd": project.directory, "env": PRODUCTION}
    hash_of_plan = plan_hash(succeeds(guvnor("migrate", "plan", **here)).out)
    refused = ends(guvnor("migrate", "deploy", "--backup", directory, **here), 4)
    assert plan_hash(refused.err) == hash_of_plan
    confirmed = ("--confirm", hash_of_plan)
    succeeds(guvnor("migrate", "deploy", "--backup", directory, *confirmed, **here), "Applied 004")


def test_savepoints_of_a_revision_do_not_hide_what_it_loses(places, guvnor, project):
    """The shadow has savepoints of its own, which must not take those of the revision with them."""
    project.add_revision(
        "op.execute('SAVEPOINT a')\n"
        "op.execute('DELETE FROM guides')\n"
        "op.execute('ROLLBACK TO a')\n"
        "op.execute('RELEASE a')\n"
        "with op.get_bind().begin_nested():\n"
        "    op.execute('DELETE FROM visits')\n"
        "op.execute('SAVEPOINT a; CREATE TABLE news (id integer)')\n"
        "op.execute('RELEASE SAVEPOINT a')\n"
        "op.execute('UPDATE places SET state = NULL')",
        f'op.execute("{SAFE}")',
        python=True,
    )
    # What was undone is seen, too: it is better to ask once too often.
    assert losses(guvnor, places, project) == {
        ("delete", "guides"): 1,
        ("delete", "visits"): 2,
        ("update", "places.state"): 1,
    }


def test_rows_of_a_backfill_that_names_a_table_of_the_plan_are_counted_without_its_predicate(
    places, guvnor, project
):
    """The live database does not have that table, but it has the rows."""
    project.add_revision(
        "op.execute('CREATE TABLE states (id integer)')\n"
        "op.backfill('places', \"state = 'x'\", 'id IN (SELECT id FROM states)')",
        f'op.execute("{SAFE}")',
        python=True,
    )
    assert losses(guvnor, places, project) == {("update", "places.state"): 1}


SHAPES = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TYPE addr AS (street text, zip text);
    CREATE TABLE homes (id integer PRIMARY KEY, at addr, moods mood[], "x.y" integer);
    CREATE TABLE parts (id integer, n numeric) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE old (id integer PRIMARY KEY, n numeric);
    CREATE TABLE older (extra text, PRIMARY KEY (id)) INHERITS (old)
"""
NO_SHAPES = """
    DROP TABLE older; DROP TABLE old; DROP TABLE parts; DROP TABLE homes; DROP TYPE addr; DROP TYPE mood
"""


@pytest.fixture
def shapes(migrated, guvnor, project):
    """A database with a revision of tables with types of their own, partitions and inheritance."""
    project.add_revision(SHAPES, NO_SHAPES)
    succeeds(guvnor("migrate", "up", database=migrated, cwd=project.directory))
    migrated.execute("""
        INSERT INTO homes VALUES (1, '(a,1)', '{good,bad}', 1), (2, NULL, NULL, NULL);
        INSERT INTO parts VALUES (1, 1.5), (2, 2);
        INSERT INTO old VALUES (1, 1.5);
        INSERT INTO older VALUES (2, 2.5, 'x'), (3, 3, 'y')
    """)
    return migrated


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TYPE addr DROP ATTRIBUTE zip", {("attribute", "homes.at"): 1}),
        ("ALTER TYPE addr ADD ATTRIBUTE city text", {}),
        (
            (
                "ALTER TYPE mood RENAME TO was; CREATE TYPE mood AS ENUM ('good'); "
                "ALTER TABLE homes ALTER moods TYPE mood[] USING moods::text[]::mood[]"
            ),
            {("cast", "homes.moods"): None},
        ),
        (
            (
                "ALTER TYPE mood RENAME TO was; CREATE TYPE mood AS ENUM ('good', 'new', 'bad'); "
                "ALTER TABLE homes ALTER moods TYPE mood[] USING moods::text[]::mood[]"
            ),
            {},
        ),
        ("ALTER TABLE homes ALTER moods TYPE text[]", {}),
        ('ALTER TABLE homes DROP "x.y"; DROP TABLE homes', {("drop", "homes"): 2}),
        ("TRUNCATE parts", {("truncate", "parts"): 2}),
        ("ALTER TABLE parts ALTER n TYPE integer", {("cast", "parts.n"): 1}),
        ("ALTER TABLE parts DROP n", {("drop", "parts.n"): 2}),
        ("TRUNCATE old", {("truncate", "old"): 3}),
        ("TRUNCATE older", {("truncate", "older"): 2}),
        ("ALTER TABLE old DROP n", {("drop", "old.n"): 3}),
        ("ALTER TABLE old ALTER n TYPE integer", {("cast", "old.n"): 2}),
        ("DROP TABLE old CASCADE", {("drop", "old"): 3}),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_rows_and_parts_of_values_are_counted_once(shapes, guvnor, project, sql, expected):
    project.add_revision(sql, SAFE)
    assert losses(guvnor, shapes, project) == expected


def test_a_rollback_of_tables_that_inherit_keeps_the_rows_of_each(shapes, guvnor, project, directory):
    """The plan names the parent alone, but the backup has to hold all."""
    project.add_revision(SAFE, "TRUNCATE old; TRUNCATE parts; ALTER TYPE addr DROP ATTRIBUTE zip")
    cwd = project.directory
    succeeds(guvnor("migrate", "up", database=shapes, cwd=cwd))
    contents = "SELECT tableoid::regclass::text, id, n FROM old ORDER BY id", "TABLE older", "TABLE parts"
    before = [shapes.execute(query) for query in contents]
    values = shapes.execute("SELECT id, at::text FROM homes ORDER BY id")
    succeeds(guvnor("migrate", "down", "--backup", directory, database=shapes, cwd=cwd), "✅ Backup taken")
    assert shapes.execute("SELECT * FROM old, parts") == []
    shapes.execute("ALTER TYPE addr ADD ATTRIBUTE zip text")
    (script,) = [path for path in directory.iterdir() if path.name.endswith(".gz")]
    command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", shapes.dsn]
    subprocess.run(command, input=gzip.decompress(script.read_bytes()), check=True)
    assert [shapes.execute(query) for query in contents] == before
    assert shapes.execute("SELECT id, at::text FROM homes ORDER BY id") == values


TRIGGERS = """
    CREATE FUNCTION clear() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM guides; RETURN NULL; END $$;
    CREATE TRIGGER clear AFTER DELETE ON visits EXECUTE FUNCTION clear();
    CREATE VIEW seen AS SELECT id FROM guides;
    CREATE TRIGGER clear INSTEAD OF DELETE ON seen FOR EACH ROW EXECUTE FUNCTION clear();
    CREATE TRIGGER later AFTER UPDATE OF ratio ON places EXECUTE FUNCTION clear();
    INSERT INTO seen SELECT 1 WHERE false
"""
NO_TRIGGERS = """
    DROP TRIGGER later ON places; DROP VIEW seen; DROP TRIGGER clear ON visits; DROP FUNCTION clear()
"""


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DELETE FROM visits", ["visits"]),
        ("DELETE FROM places", ["visits"]),
        ("DO $$ BEGIN DELETE FROM seen; END $$", ["seen"]),
        ("UPDATE places SET ratio = 1", ["places"]),
        ("INSERT INTO visits VALUES (9, 1); UPDATE visits SET place_id = 2; TRUNCATE guides", []),
        ("ALTER TABLE visits DISABLE TRIGGER USER; DELETE FROM visits", []),
        ("SELECT * FROM seen; DROP VIEW seen", []),
    ],
)
def test_the_plan_says_where_it_does_not_see_what_triggers_do(places, guvnor, project, sql, named):
    project.add_revision(TRIGGERS, NO_TRIGGERS)
    here = {"database": places, "cwd": project.directory}
    succeeds(guvnor("migrate", "up", **here))
    project.add_revision(sql, SAFE)
    found = json.loads(succeeds(guvnor("migrate", "plan", "--json", **here)).out)
    assert found["steps"][0]["triggers_not_seen"] == named
    shown = succeeds(guvnor("migrate", "plan", **here)).out
    assert shown.count("not seen: what the triggers of ") == len(named)
    assert all(f"⚠️  not seen: what the triggers of {name} do" in shown for name in named)
