"""Does an online step that fails for a reason that stays say so, and what is needed instead?"""

from __future__ import annotations

import signal

import psycopg2
import pytest

from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions
from tests.support.observe import running, wait_for
from tests.support.server import run

FINISHES = "the next run finishes the revision"
FAILS_AGAIN = "The next run fails in the same way, until the cause is corrected."
GOES_ON = "the application can go on using it"
UNDONE = "guvnor migrate repair --back   # or: undo what the revision has committed"
SHOWS = ";   -- shows them"


@pytest.fixture
def items(migrated):
    migrated.execute("""
        CREATE TABLE kinds (id integer PRIMARY KEY);
        CREATE TABLE items (n integer, kind integer, label text);
        INSERT INTO kinds VALUES (1);
        INSERT INTO items VALUES (1, 1, 'a'), (2, 1, 'A'), (3, NULL, NULL), (4, NULL, NULL), (5, 1, 'b');
    """)
    return migrated


@pytest.fixture
def up(guvnor, project, items):
    return lambda: guvnor("migrate", "up", database=items, cwd=project.directory)


def stays(result, code, *texts):
    """Expect a failure that the next run would only repeat."""
    ends(result, 1, code, "half done", FAILS_AGAIN, *texts)
    assert FINISHES not in result.err.lower()
    assert next_step(result)[-1] == UNDONE
    return result


def query(result):
    """The query for the rows that an error says to type."""
    (found,) = [line.removesuffix(SHOWS) for line in next_step(result) if line.endswith(SHOWS)]
    return found


def index(unique_on):
    return (
        'op.execute("CREATE TABLE IF NOT EXISTS beside (i integer)")\n'
        f'op.create_index_concurrently("one", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one '
        f'ON items {unique_on}")'
    )


INDEX_BACK = 'op.execute("DROP INDEX IF EXISTS one")\nop.execute("DROP TABLE IF EXISTS beside")'


def constraint(definition):
    return (
        f'op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS checked, '
        f'ADD CONSTRAINT checked {definition} NOT VALID")\n'
        'op.validate_constraint("items", "checked")'
    )


CONSTRAINT_BACK = 'op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS checked")'


# -- rows in the way --


@pytest.mark.parametrize(
    ("on", "shown"),
    [
        ("(lower(label))", [("a", 2)]),
        ("(kind, upper(label)) WHERE n > 0", [(1, "A", 2)]),
        ("(n, kind) INCLUDE (label)", []),
    ],
)
def test_duplicates_are_shown_by_a_query(items, up, project, on, shown):
    """NULLs are no duplicates of each other."""
    if not shown:
        items.execute("INSERT INTO items VALUES (1, 1, 'c')")
        shown = [(1, 1, 2)]
    project.add_revision(index(on), INDEX_BACK, python=True)
    failed = stays(up(), "23505", GOES_ON, "Correct the rows that violate it, then: guvnor migrate up")
    assert items.execute(query(failed)) == shown
    items.execute("DELETE FROM items WHERE label IN ('A', 'c')")
    assert items.execute(query(failed)) == []
    succeeds(up(), "Applied 003")


def test_duplicates_are_nulls_where_the_index_says_so(server, items, up, project):
    if server.major < 15:
        pytest.skip("NULLS NOT DISTINCT is new in PostgreSQL 15")
    project.add_revision(index("(kind) NULLS NOT DISTINCT WHERE n > 2"), INDEX_BACK, python=True)
    assert items.execute(query(stays(up(), "23505"))) == [(None, 2)]


def test_the_way_back_undoes_what_was_committed(items, guvnor, up, project):
    project.add_revision(index("(kind)"), INDEX_BACK, python=True)
    failed = stays(up(), "23505")
    assert items.execute("SELECT to_regclass('beside') IS NULL") == [(False,)]
    words = next_step(failed)[-1].partition("#")[0].split()[1:]
    succeeds(guvnor(*words, database=items, cwd=project.directory), "Rolled back 003")
    assert versions(items) == AT_HEAD
    assert items.execute("SELECT to_regclass('beside') IS NULL") == [(True,)]


def test_going_down_the_same_is_said(items, guvnor, up, project):
    project.add_revision(INDEX_BACK, index("(kind)"), python=True)
    succeeds(up())
    failed = stays(guvnor("migrate", "down", database=items, cwd=project.directory), "23505")
    assert next_step(failed)[0].endswith("then: guvnor migrate down")


def test_rows_that_violate_a_check(items, guvnor, up, project):
    """The constraint is there: it refuses what the application writes."""
    project.add_revision(constraint("CHECK (n <> 5)"), CONSTRAINT_BACK, python=True)
    refused = (
        "constraint checked of table items, which is not validated yet, refuses rows that violate it, also "
        "when an older row is updated"
    )
    failed = stays(up(), "23514", f"Until it is finished or undone, {refused}.")
    assert GOES_ON not in failed.err
    assert items.execute(query(failed)) == [(5, 1, "b")]
    for sql in ("INSERT INTO items VALUES (5)", "UPDATE items SET label = 'c' WHERE n = 5"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            items.execute(sql)
    status = succeeds(guvnor("migrate", "status", database=items, cwd=project.directory), refused)
    assert "once the cause is corrected, `guvnor migrate up` finishes it" in status.out
    assert "`guvnor migrate repair --back` undoes what it has committed" in status.out
    items.execute("DELETE FROM items WHERE n = 5")
    again = succeeds(up(), "Applied 003")
    assert "it can be finished once the cause is corrected" in again.out


@pytest.mark.parametrize(
    ("key", "match", "shown"),
    [("kind", "", [(6, 2, None)]), ("(n, kind)", "MATCH FULL", [(3, None, None), (6, 2, None)])],
)
def test_rows_that_violate_a_foreign_key(items, up, project, key, match, shown):
    items.execute("INSERT INTO items VALUES (6, 2, NULL); DELETE FROM items WHERE n = 4")
    to = "kinds"
    if match:
        to = "pairs"
        items.execute("CREATE TABLE pairs (a integer, b integer, PRIMARY KEY (a, b))")
        items.execute("INSERT INTO pairs VALUES (1, 1), (2, 1), (5, 1)")
    definition = f"FOREIGN KEY ({key.strip('()')}) REFERENCES {to} {match}"
    project.add_revision(constraint(definition), CONSTRAINT_BACK, python=True)
    failed = stays(up(), "23503", "constraint checked of table items")
    assert sorted(items.execute(query(failed))) == shown


def test_rows_without_a_value(items, up, project):
    """The check that was added on the way is gone, so the application can write on."""
    project.add_revision('op.set_not_null("items", "kind")', "op.execute('SELECT 1')", python=True)
    failed = stays(up(), "23514", GOES_ON)
    assert [n for n, _, _ in items.execute(query(failed))] == [3, 4]


def test_what_earlier_revisions_left_on_purpose_is_not_named(up, project):
    project.add_revision("ALTER TABLE items ADD CONSTRAINT older CHECK (n > 1) NOT VALID")
    succeeds(up())
    project.add_revision(constraint("CHECK (n <> 5)"), CONSTRAINT_BACK, name="checks", python=True)
    failed = stays(up(), "23514", "constraint checked")
    assert "older of" not in failed.err


# -- what the server does not do by itself --


@pytest.mark.parametrize(
    "body",
    [
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON parts (n)")',
        """
op.execute("CREATE INDEX IF NOT EXISTS by_n ON ONLY parts (n)")
op.create_index_concurrently("by_n_1", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n_1 ON parts_1 (n)")
op.execute("ALTER INDEX by_n ATTACH PARTITION by_n_1")
        """,
    ],
)
def test_an_index_of_a_partitioned_table(items, up, project, body):
    items.execute("""
        CREATE TABLE parts (n integer) PARTITION BY RANGE (n);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
    """)
    project.add_revision(body, 'op.execute("DROP INDEX IF EXISTS by_n")', python=True)
    succeeds(up(), "Applied 003")
    assert items.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_n'::regclass") == [(True,)]


def test_the_drop_of_an_index_of_a_partitioned_table(items, up, project):
    items.execute("CREATE TABLE parts (n integer) PARTITION BY RANGE (n); CREATE INDEX by_n ON parts (n)")
    project.add_revision('op.drop_index_concurrently("by_n")', "op.execute('SELECT 1')", python=True)
    succeeds(up(), "Applied 003")
    assert items.execute("SELECT to_regclass('by_n')") == [(None,)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('op.create_index_concurrently("x", "CREATE INDEX CONCURRENTLY x ON items (nothing)")', "42703"),
        ('op.create_index_concurrently("x", "CREATE INDEX CONCURRENTLY y ON items (n)")', "no valid index"),
        ('op.validate_constraint("items", "nothing")', "no constraint nothing"),
        ("""op.backfill("items", "n = n + 1", "n > 0")""", "would never end"),
        ("""op.backfill("items", "n = 1 / 0", "n > 0")""", "22012"),
        ('op.drop_index_concurrently("none")\nraise ValueError("of its own")', "of its own"),
    ],
)
def test_a_revision_that_is_wrong(up, project, body, code):
    project.add_revision(body, "op.execute('SELECT 1')", python=True)
    failed = stays(up(), code)
    assert "guvnor migrate up" in next_step(failed)[0]


def test_a_failure_in_the_transaction_has_nothing_to_undo(up, project):
    project.add_revision("ALTER TABLE items ADD CHECK (n <> 5)")
    failed = ends(up(), 1, "23514", "rolled back")
    assert "repair" not in failed.err


# -- what passes --


def test_what_an_interrupted_step_leaves_is_named(items, guvnor, project):
    """The next run finishes it; until then it refuses rows."""
    items.execute("""
        CREATE FUNCTION slow(n integer) RETURNS boolean LANGUAGE sql
        AS $$ SELECT n > 0 FROM pg_sleep(60) $$
    """)
    project.add_revision(constraint("CHECK (slow(n))"), CONSTRAINT_BACK, python=True)
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    running(items, "VALIDATE CONSTRAINT")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "Until it is finished or undone, constraint checked of table items" in err
    assert "refuses rows that violate it" in err
    assert "The next run finishes the revision." in err
    assert GOES_ON not in err


def test_a_half_built_unique_index_is_named_with_what_it_refuses(items, guvnor, project):
    project.add_revision(index("(n)"), INDEX_BACK, python=True)
    snapshot = items.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(snapshot, "SELECT txid_current()")
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    ready = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('one') AND indisready"
    wait_for("the index to be written to", lambda: items.execute(ready))
    process.kill()
    process.wait()
    words = "the half-built unique index one of table items refuses rows that repeat a key"
    succeeds(guvnor("migrate", "status", database=items, cwd=project.directory), words)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        items.execute("INSERT INTO items VALUES (1)")
    run(snapshot, "ROLLBACK")
    succeeds(guvnor("migrate", "up", database=items, cwd=project.directory), "Applied 003")
