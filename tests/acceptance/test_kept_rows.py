"""Rows that a revision changes or deletes, and keeps: brought back, killed, in a script, in one piece."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from guvnor.embedded.programs import binaries
from guvnor.online.keeping import KeptChange
from tests.support import revision_runner
from tests.support.clone import Clone
from tests.support.command import Command, Result
from tests.support.expect import ends, succeeds
from tests.support.observe import wait_for
from tests.support.project import Project
from tests.support.reports import review
from tests.support.server import Database, Server, run

TABLES = """
    CREATE TYPE mood AS ENUM ('calm', 'tense');
    CREATE TABLE rules (
        id integer PRIMARY KEY, active boolean, note text, doc json, mood mood, score numeric
    );
    CREATE TABLE "Odd ""Names" (
        "The Key" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "a b" text,
        twice text GENERATED ALWAYS AS ("a b" || "a b") STORED
    );
    CREATE TABLE parts (team text, id integer, open boolean, PRIMARY KEY (team, id)) PARTITION BY LIST (team);
    CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
    CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b')
"""
ROWS = """
    INSERT INTO rules SELECT n, n % 3 > 0, CASE WHEN n % 5 > 0 THEN 'note ' || n END,
        CASE WHEN n % 4 > 0 THEN json_build_object('n', n) END,
        CASE WHEN n % 2 > 0 THEN 'calm' END::mood, n / 7.0
    FROM generate_series(1, 500) AS n;
    INSERT INTO "Odd ""Names" ("a b") SELECT 'x' || n FROM generate_series(1, 20) AS n;
    INSERT INTO parts SELECT CASE WHEN n % 2 > 0 THEN 'a' ELSE 'b' END, n, true
    FROM generate_series(1, 99) AS n
"""
NO_TABLES = 'DROP TABLE rules, "Odd ""Names", parts; DROP TYPE mood'
CHANGE = """op.change_rows(
    "rules", set={"active": "false", "doc": "NULL", "mood": "'tense'"}, where="active", keep=True
)"""
DELETE = 'op.delete_rows("rules", where="score > 10 OR note IS NULL", keep=True)'
BACK = 'op.bring_back("rules")'
KEPT = "guvnor_kept_004_rules"


@pytest.fixture(scope="module")
def template(server: Server, template_at_head: Database) -> Database:
    """A database at the head, with the tables of revision 003 beside."""
    database = server.create_database(template_at_head, keep=True)
    database.execute(TABLES)
    database.execute(ROWS)
    database.execute("UPDATE alembic_version SET version_num = '003'")
    database.execute("UPDATE schema_migrations SET version = 3")
    return database


@pytest.fixture
def rules(server: Server, template: Database, project: Project) -> Database:
    project.add_revision(TABLES, NO_TABLES)
    return server.create_database(template)


def contents(database: Database, table: str = "rules") -> list[tuple[object, ...]]:
    return database.execute(f'SELECT t::text FROM {table} AS t ORDER BY t::text COLLATE "C"')


def kept_tables(database: Database) -> list[str]:
    return [
        name
        for (name,) in database.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'guvnor_kept%' ORDER BY 1"
        )
    ]


def up(guvnor: Command, database: Database, project: Project, **env: str) -> Result:
    return guvnor("migrate", "up", database=database, cwd=project.directory, env=env)


def down(guvnor: Command, database: Database, project: Project, to: str = "003") -> Result:
    return guvnor("migrate", "down", "--to", to, database=database, cwd=project.directory)


def confirmed(refused: Result, command: Command, *words: str, database: Database, cwd: Path) -> Result:
    """Run a migration again with the hash that its refusal has named."""
    (plan,) = set(re.findall(r"--confirm ([0-9a-f]{16})", refused.err))
    return command("migrate", *words, "--confirm", plan, database=database, cwd=cwd)


def in_one_transaction(database: Database, body: str) -> None:
    """Run the body of a revision's function in a transaction, in which online operations are plain."""
    with (
        revision_runner.connect(database) as connection,
        Operations.context(MigrationContext.configure(connection)) as op,
    ):
        exec(body, {"op": op, "revision": "004", "down_revision": "003"})
        connection.commit()


CASES = {
    "change": (CHANGE, BACK, "rules"),
    "delete": (DELETE, BACK, "rules"),
    "no own predicate": (
        'op.change_rows("rules", set={"score": "score + 1"}, where="true -- all", keep=True)', BACK, "rules"
    ),
    "odd names": (
        """op.change_rows('Odd "Names', set={"a b": "'y'"}, where='"The Key" > 3', keep=True)""",
        """op.bring_back('Odd "Names')""",
        '"Odd ""Names"',
    ),
    "delete identity and generated": (
        """op.delete_rows('Odd "Names', where='"The Key" > 3', keep=True)""",
        """op.bring_back('Odd "Names')""",
        '"Odd ""Names"',
    ),
    "change partitions": (
        'op.change_rows("parts", set={"open": "NOT open"}, where="parts.id > 7", keep=True)',
        'op.bring_back("parts")',
        "parts",
    ),
    "delete from partitions": (
        'op.delete_rows("parts", where="id > 7", keep=True)', 'op.bring_back("parts")', "parts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_up_down_up(rules: Database, guvnor: Command, project: Project, name: str) -> None:
    there, back, table = CASES[name]
    project.add_revision(there, back, python=True)
    before = contents(rules, table)
    succeeds(up(guvnor, rules, project))
    after = contents(rules, table)
    assert after != before
    assert len(kept_tables(rules)) == 1
    succeeds(guvnor("schema", "check", database=rules, cwd=project.directory))
    succeeds(down(guvnor, rules, project))
    assert contents(rules, table) == before
    assert kept_tables(rules) == []
    succeeds(up(guvnor, rules, project))
    assert contents(rules, table) == after


def test_what_is_kept_is_no_loss_and_what_is_forgotten_is(
    rules: Database, guvnor: Command, project: Project
) -> None:
    project.add_revision(CHANGE, BACK, python=True)
    shown = succeeds(guvnor("migrate", "plan", "--json", database=rules, cwd=project.directory))
    assert json.loads(shown.out)["losses"] == []
    text = succeeds(guvnor("migrate", "plan", database=rules, cwd=project.directory)).out
    assert "No data would be lost." in text
    assert (
        "-- op.change_rows: UPDATE rules SET active = false, doc = NULL, mood = 'tense' WHERE active" in text
    )
    assert "seen on empty tables" not in text
    assert "pg_catalog" not in text
    succeeds(up(guvnor, rules, project, GUVNOR_ENV="production"))
    project.add_revision(
        'op.forget_kept("rules", revision="004")', python=True, downgrade="op.execute('SELECT 1')"
    )
    refused = ends(up(guvnor, rules, project), 4, f"table {KEPT} with 334 rows")
    succeeds(confirmed(refused, guvnor, "up", database=rules, cwd=project.directory))
    assert kept_tables(rules) == []
    after = contents(rules)
    refused = ends(down(guvnor, rules, project), 4)
    assert "Lost:" not in refused.err
    words = ("down", "--to", "003")
    result = succeeds(confirmed(refused, guvnor, *words, database=rules, cwd=project.directory))
    assert "the rows that revision 004 kept are gone" in result.err
    assert contents(rules) == after


def test_what_the_application_has_written_since_stays(
    rules: Database, guvnor: Command, project: Project
) -> None:
    project.add_revision(CHANGE, BACK, python=True)
    succeeds(up(guvnor, rules, project))
    rules.execute("""
        UPDATE rules SET active = true WHERE id = 1;
        UPDATE rules SET active = NULL, mood = NULL, note = 'new' WHERE id = 2;
        DELETE FROM rules WHERE id = 4;
        UPDATE rules SET note = 'new' WHERE id = 5
    """)
    result = succeeds(down(guvnor, rules, project))
    assert (
        "2 rows of rules could not be brought back. They are kept, with the reason: "
        f"SELECT * FROM public.{KEPT};" in result.err
    )
    assert rules.execute("SELECT id, active, note, doc, mood FROM rules WHERE id < 6 ORDER BY id") == [
        (1, True, "note 1", {"n": 1}, "calm"),  # as it was before, whoever wrote it
        (2, None, "new", {"n": 2}, None),
        (3, False, "note 3", {"n": 3}, "calm"),
        (5, True, "new", {"n": 5}, "calm"),
    ]
    assert rules.execute(f"SELECT id, guvnor_left_why FROM {KEPT} ORDER BY id") == [
        (2, "The row is gone, or was written since."),
        (4, "The row is gone, or was written since."),
    ]
    rules.execute("UPDATE rules SET active = true WHERE id = 2")
    before = contents(rules)
    succeeds(up(guvnor, rules, project))  # rows that were left do not count as changed
    assert rules.execute("SELECT count(*) FROM rules WHERE active") == [(0,)]
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before
    assert rules.execute(f"SELECT count(*) FROM {KEPT}") == [(2,)]


@pytest.mark.parametrize("form", ["online", "plain"])
def test_rows_that_cannot_be_inserted_again_are_reported(
    rules: Database, guvnor: Command, project: Project, form: str
) -> None:
    rules.execute("""
        CREATE TABLE teams (id integer PRIMARY KEY);
        INSERT INTO teams VALUES (1), (2);
        ALTER TABLE rules ADD parent integer REFERENCES rules, ADD team integer REFERENCES teams;
        UPDATE rules SET parent = 501 - id WHERE id <= 100;
        UPDATE rules SET team = id % 2 + 1
    """)
    text = (
        TABLES
        + """; CREATE TABLE teams (id integer PRIMARY KEY);
        ALTER TABLE rules ADD parent integer REFERENCES rules, ADD team integer REFERENCES teams"""
    )
    next(project.versions.glob("003*")).unlink()
    project.add_revision(text, NO_TABLES)
    delete = 'op.delete_rows("rules", where="id <> 200", keep=True)'
    project.add_revision(delete, BACK, python=True)
    before = dict(rules.execute("SELECT id, r::text FROM rules AS r"))
    if form == "online":
        succeeds(up(guvnor, rules, project))
    else:
        in_one_transaction(rules, delete)
    assert rules.execute("SELECT id FROM rules") == [(200,)]
    rules.execute("INSERT INTO rules (id, note) VALUES (7, 'taken'); UPDATE rules SET team = NULL")
    rules.execute("DELETE FROM teams WHERE id = 2")
    if form == "online":
        result = succeeds(down(guvnor, rules, project))
        assert "rows of rules could not be brought back" in result.err
    else:
        in_one_transaction(rules, BACK)
    left = dict(rules.execute(f"SELECT id, guvnor_left_why FROM {KEPT}"))
    assert "taken" in left[7]
    assert "foreign key" in left[9]
    expected = {n for n in range(1, 501) if n % 2 == 1}  # of the team that is gone
    refer_to_one = {n for n in range(1, 101) if 501 - n in expected}
    assert left.keys() == expected | refer_to_one
    assert contents(rules) == sorted(
        [(text,) for n, text in before.items() if n not in left and n != 200]
        + rules.execute("SELECT r::text FROM rules AS r WHERE id IN (7, 200)")
    )


REFERRED = """
    CREATE TABLE visits (id integer PRIMARY KEY, rule integer REFERENCES rules ON DELETE {action});
    INSERT INTO visits VALUES (1, 100), (2, NULL)
"""


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_rows_that_others_refer_to_are_not_deleted(
    rules: Database, guvnor: Command, project: Project, action: str
) -> None:
    next(project.versions.glob("003*")).unlink()
    made = REFERRED.format(action=action)
    project.add_revision(TABLES + ";" + made.partition(";")[0], "DROP TABLE visits; " + NO_TABLES)
    rules.execute(made)
    path = project.add_revision(DELETE, BACK, python=True)
    before = contents(rules)
    said = "Rows that would be deleted are referred to, by constraint visits_rule_fkey of table visits"
    ends(up(guvnor, rules, project), 1, said)
    assert contents(rules) == before
    assert kept_tables(rules) == []
    path.unlink()
    project.add_revision(
        """op.delete_rows("visits", where="rule IN (SELECT id FROM rules WHERE score > 10)", keep=True)\n"""
        + DELETE,
        BACK + '\nop.bring_back("visits")',
        python=True,
    )
    succeeds(up(guvnor, rules, project))
    assert rules.execute("SELECT id FROM visits") == [(2,)]
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before
    assert rules.execute("SELECT * FROM visits ORDER BY id") == [(1, 100), (2, None)]


def test_a_table_without_a_key_is_refused(rules: Database, guvnor: Command, project: Project) -> None:
    project.add_revision(
        'op.change_rows("rules", set={"id": "-id"}, where="true", keep=True)', BACK, python=True
    )
    before = contents(rules)
    ends(
        up(guvnor, rules, project), 1, "Rows of table rules cannot be kept: it has no key that stays as it is"
    )
    assert contents(rules) == before
    assert rules.execute("SELECT version, dirty FROM schema_migrations") == [(3, False)]


def test_killed_between_two_batches(rules: Database, guvnor: Command, project: Project) -> None:
    """Each row is changed once, and each is brought back once."""
    change = 'op.change_rows("rules", set={"score": "score + 1"}, where="true", keep=True)'
    project.add_revision(change, BACK, python=True)
    rules.execute("""
        ALTER TABLE rules SET (fillfactor = 10);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE UPDATE ON rules FOR EACH ROW EXECUTE FUNCTION slow();
        INSERT INTO rules SELECT n, true, NULL, NULL, NULL, n FROM generate_series(501, 1500) AS n
    """)
    before = contents(rules)
    ((total,),) = rules.execute("SELECT sum(score) FROM rules")
    process = guvnor.start("migrate", "up", database=rules, cwd=project.directory)
    wait_for(
        "the first batch",
        lambda: f"{KEPT}" in kept_tables(rules) and rules.execute(f"SELECT FROM {KEPT} LIMIT 1"),
    )
    process.kill()
    process.wait()
    wait_for(
        "the end of its session",
        lambda: (
            not rules.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
                "AND pid <> pg_backend_pid()"
            )
        ),
    )
    ((kept,),) = rules.execute(f"SELECT count(*) FROM {KEPT}")
    assert 0 < kept < 1500
    succeeds(up(guvnor, rules, project))
    assert rules.execute("SELECT sum(score), count(*) FROM rules") == [(total + 1500, 1500)]
    process = guvnor.start("migrate", "down", "--to", "003", database=rules, cwd=project.directory)
    wait_for("the first batch", lambda: rules.execute(f"SELECT count(*) FROM {KEPT}") < [(1500,)])
    process.kill()
    process.wait()
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before
    assert kept_tables(rules) == []


@pytest.mark.parametrize("name", list(CASES))
def test_in_one_transaction(rules: Database, name: str) -> None:
    there, back, table = CASES[name]
    before = contents(rules, table)
    in_one_transaction(rules, there)
    assert contents(rules, table) != before
    in_one_transaction(rules, back)
    assert contents(rules, table) == before
    assert kept_tables(rules) == []


def test_in_a_script(rules: Database, alembic: Command, guvnor: Command, project: Project) -> None:
    def play(*words: str) -> None:
        script = succeeds(alembic(*words, "--sql", cwd=project.directory)).out
        command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", rules.dsn]
        applied = subprocess.run(command, input=script, capture_output=True, text=True)
        assert applied.returncode == 0, applied.stderr

    project.add_revision(CHANGE, BACK, python=True)
    project.add_revision(DELETE, BACK, python=True)  # the same table again
    before = contents(rules)
    play("upgrade", "003:005")
    assert kept_tables(rules) == [KEPT, "guvnor_kept_005_rules"]
    after = contents(rules)
    succeeds(guvnor("schema", "check", database=rules, cwd=project.directory))
    play("downgrade", "005:003")
    assert contents(rules) == before
    succeeds(alembic("upgrade", "head", database=rules, cwd=project.directory))
    assert contents(rules) == after
    succeeds(alembic("downgrade", "003", database=rules, cwd=project.directory))
    assert contents(rules) == before
    assert kept_tables(rules) == []


def test_nobody_reads_what_is_kept_who_could_not_read_the_table(
    server: Server, rules: Database, guvnor: Command, project: Project
) -> None:
    reader, writer, other = (server.create_role() for _ in range(3))
    rules.execute(f"""
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {other.name}, PUBLIC;
        GRANT SELECT ON rules TO {reader.name} WITH GRANT OPTION;
        GRANT INSERT, UPDATE ON rules TO {writer.name};
        GRANT SELECT (id, mood) ON rules TO {other.name}
    """)
    project.add_revision(CHANGE, BACK, python=True)
    succeeds(up(guvnor, rules, project))
    granted = """
        SELECT a.grantee::regrole::text, a.privilege_type, a.is_grantable
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = '{}'::regclass AND a.grantee <> c.relowner ORDER BY 1, 2
    """
    assert rules.execute(granted.format(KEPT)) == rules.execute(granted.format("rules")) != []
    may = "SELECT has_column_privilege(%s, %s, name, 'SELECT') FROM unnest(%s) AS name"
    names = ["id", "mood", "active", "guvnor_written_1"]
    assert rules.execute(may, (other.name, KEPT, names)) == [(True,), (True,), (False,), (False,)]
    assert "guvnor_kept" not in guvnor("schema", "check", database=rules, cwd=project.directory).out
    succeeds(down(guvnor, rules, project))
    rules.execute("ALTER TABLE rules ENABLE ROW LEVEL SECURITY")
    rules.execute("CREATE POLICY few ON rules USING (id < 3)")
    succeeds(up(guvnor, rules, project))
    session = rules.connect()
    run(session, f"SET ROLE {reader.name}")
    assert run(session, "SELECT count(*) FROM rules") == [(2,)]
    assert run(session, f"SELECT count(*) FROM {KEPT}") == [(0,)]


def test_a_later_revision_may_drop_a_type_that_was_kept(
    rules: Database, guvnor: Command, project: Project
) -> None:
    project.add_revision(CHANGE, BACK, python=True)
    before = contents(rules)
    again = """
        ALTER TYPE mood RENAME TO old_mood; CREATE TYPE mood AS ENUM ({labels});
        ALTER TABLE rules ALTER mood TYPE mood USING mood::text::mood; DROP TYPE old_mood
    """
    project.add_revision(
        again.format(labels="'calm', 'tense', 'glad'"), again.format(labels="'calm', 'tense'")
    )
    succeeds(up(guvnor, rules, project))
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before


def test_who_waits_for_a_batch_makes_it_smaller(rules: Database, guvnor: Command, project: Project) -> None:
    """The application waits for no longer than it may, and nothing is changed twice."""
    rules.execute("""
        ALTER TABLE rules SET (fillfactor = 10);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE UPDATE ON rules FOR EACH ROW WHEN (OLD.id > 500) EXECUTE FUNCTION slow();
        INSERT INTO rules SELECT n, true, NULL, NULL, NULL, n FROM generate_series(501, 1500) AS n
    """)
    change = 'op.change_rows("rules", set={"score": "score + 1"}, where="true", keep=True)'
    project.add_revision(change, BACK, python=True)
    process = guvnor.start("migrate", "up", "--max-stall", "150ms", database=rules, cwd=project.directory)
    wait_for("the table beside", lambda: kept_tables(rules))
    writer = rules.connect()
    written, waited = 0, 0.0
    while process.poll() is None:
        began = time.monotonic()
        run(writer, "UPDATE rules SET score = score + 1000 WHERE id IN (600, 1100)")
        written, waited = written + 1, max(waited, time.monotonic() - began)
    assert process.returncode == 0
    assert written > 3
    assert waited < 1.5  # all rows take 2 s
    assert rules.execute("SELECT id FROM rules WHERE id > 500 AND score % 1000 <> (id + 1) % 1000") == []
    assert rules.execute("SELECT score FROM rules WHERE id = 600") == [(601 + 1000 * written,)]
    assert rules.execute(f"SELECT count(*) FROM {KEPT} WHERE guvnor_written_1::numeric = score + 1") == [
        (1500,)
    ]


def test_what_refers_to_changed_rows(rules: Database, guvnor: Command, project: Project) -> None:
    """Where rows follow, they come back, too; where they would forget, the revision is refused."""
    made = """
        CREATE TABLE towns (id integer PRIMARY KEY, code text UNIQUE);
        CREATE TABLE streets (id integer PRIMARY KEY, town text REFERENCES towns (code) ON UPDATE {})
    """
    next(project.versions.glob("003*")).unlink()
    project.add_revision(TABLES + ";" + made.format("CASCADE"), "DROP TABLE streets, towns; " + NO_TABLES)
    rules.execute(made.format("CASCADE"))
    rules.execute(
        "INSERT INTO towns VALUES (1, 'a'), (2, 'b'); INSERT INTO streets VALUES (1, 'a'), (2, 'b')"
    )
    project.add_revision(
        """op.get_context()  # so that the Python runs in the shadow
op.change_rows("towns", set={"code": "upper(code)"}, where="true", keep=True)""",
        'op.bring_back("towns")',
        python=True,
    )
    shown = succeeds(guvnor("migrate", "plan", "--json", database=rules, cwd=project.directory))
    assert json.loads(shown.out)["losses"] == []
    succeeds(up(guvnor, rules, project))
    assert rules.execute("SELECT town FROM streets ORDER BY id") == [("A",), ("B",)]
    succeeds(down(guvnor, rules, project))
    assert rules.execute("SELECT town FROM streets ORDER BY id") == [("a",), ("b",)]
    rules.execute(
        "ALTER TABLE streets DROP CONSTRAINT streets_town_fkey, "
        "ADD FOREIGN KEY (town) REFERENCES towns (code) ON UPDATE SET NULL"
    )
    ends(up(guvnor, rules, project), 1, "constraint streets_town_fkey would make them forget it")
    assert rules.execute("SELECT town FROM streets ORDER BY id") == [("a",), ("b",)]


def test_autogenerate_and_the_models_do_not_see_what_is_kept(
    migrated: Database, guvnor: Command, alembic: Command, project: Project
) -> None:
    migrated.execute("INSERT INTO schedules (name, team_id) VALUES ('night', gen_random_uuid())")
    project.add_revision(
        """op.change_rows("schedules", set={"name": "name || '!'"}, where="true", keep=True)""",
        'op.bring_back("schedules")',
        python=True,
    )
    succeeds(up(guvnor, migrated, project))
    assert kept_tables(migrated) == ["guvnor_kept_003_schedules"]
    succeeds(guvnor("schema", "check", "--against", "models", database=migrated, cwd=project.directory))
    succeeds(alembic("check", database=migrated, cwd=project.directory))
    result = alembic("revision", "--autogenerate", "-m", "nothing", database=migrated, cwd=project.directory)
    assert "guvnor_kept" not in result.out + result.err
    assert [path.name for path in project.versions.glob("004*")] == []


def test_the_review_proves_that_what_is_kept_comes_back(tmp_path: Path, server: Server) -> None:
    (directory := tmp_path / "clone").mkdir()
    clone = Clone(directory)
    clone.add_revision(
        """
op.change_rows("notification_rules", set={"active": "NOT active", "name": "'x'"}, where="true", keep=True)
op.delete_rows("audit_logs", where="true", keep=True)
""",
        """
op.bring_back("audit_logs")
op.bring_back("notification_rules")
""",
        python=True,
    )
    result = review(clone, server.dsn)
    assert result.code == 0, result.out
    assert "schema and rows came back" in result.out
    assert "The upgrade drops no stored data. Neither does the downgrade." in result.out
    assert "-- op.delete_rows: DELETE FROM audit_logs WHERE true" in result.out
    assert "pg_catalog" not in result.out


def test_names_of_any_length_and_keys_of_any_type(rules: Database, guvnor: Command, project: Project) -> None:
    long = "é" * 20 + "x" * 23  # 63 bytes
    assert len(long.encode()) == 63
    made = f"""
        CREATE DOMAIN code AS text CHECK (VALUE <> '');
        CREATE TABLE "{long}" (
            code code, mood mood, "{long}" code, "where" varchar(5), CONSTRAINT k UNIQUE (mood, code),
            n numeric, f float8, i interval, b bytea, z timestamptz, r int4range, a mood[]
        );
        ALTER TABLE "{long}" ALTER code SET NOT NULL, ALTER mood SET NOT NULL
    """
    next(project.versions.glob("003*")).unlink()
    project.add_revision(f"{TABLES}; {made}", f'DROP TABLE "{long}"; DROP DOMAIN code; {NO_TABLES}')
    rules.execute(made)
    rules.execute(f"""
        INSERT INTO "{long}" SELECT 'c' || n, (ARRAY['calm', 'tense'])[1 + n % 2]::mood,
            CASE WHEN n % 3 > 0 THEN 'v' || n END, 'w' || n, n / 3.0, n / 3::float8, n * interval '1.5 days',
            decode(md5(n::text), 'hex'), now() + n * interval '1 s', int4range(n, n + 5),
            ARRAY['calm'::mood, NULL]
        FROM generate_series(1, 50) AS n
    """)
    table = f'"{long}"'
    before = contents(rules, table)
    columns = {long: "'new'", **dict.fromkeys(("where", "n", "f", "i", "b", "z", "r", "a"), "NULL")}
    project.add_revision(
        f"op.change_rows({long!r}, set={columns!r}, where='mood = $$calm$$ OR n > 9', keep=True)",
        f"op.bring_back({long!r})",
        python=True,
    )
    project.add_revision(
        f"op.delete_rows({long!r}, where='mood = $guvnor$tense$guvnor$', keep=True)",
        f"op.bring_back({long!r})",
        python=True,
    )
    succeeds(up(guvnor, rules, project))
    assert [len(name.encode()) <= 63 for name in kept_tables(rules)] == [True, True]
    assert contents(rules, table) != before
    rules.execute(f'UPDATE {table} SET "where" = NULL')  # nothing that was not NULL before
    succeeds(guvnor("schema", "check", database=rules, cwd=project.directory))
    succeeds(down(guvnor, rules, project))
    assert contents(rules, table) == before
    assert kept_tables(rules) == []


def test_a_second_change_of_a_table_needs_a_revision_of_its_own(
    rules: Database, guvnor: Command, project: Project
) -> None:
    project.add_revision(CHANGE + "\n" + DELETE, BACK, python=True)
    result = ends(up(guvnor, rules, project), 1, "keeps the rows of another change")
    assert "put the other one into a revision of its own" in result.err


def test_a_trigger_that_keeps_rows_from_being_deleted(
    rules: Database, guvnor: Command, project: Project
) -> None:
    rules.execute("""
        CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER stay BEFORE DELETE ON rules FOR EACH ROW WHEN (OLD.id = 100) EXECUTE FUNCTION stay();
        INSERT INTO rules (id, score) VALUES (1000, 100)
    """)
    project.add_revision(DELETE, BACK, python=True)
    before = contents(rules)
    ends(up(guvnor, rules, project), 1, "could not be deleted: other rows refer to them, or a trigger")
    rules.execute("DROP TRIGGER stay ON rules")
    succeeds(up(guvnor, rules, project))
    assert rules.execute("SELECT count(*) FROM rules WHERE score > 10 OR note IS NULL") == [(0,)]
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before


def test_a_table_that_forces_row_security(
    server: Server, rules: Database, guvnor: Command, project: Project
) -> None:
    """Nothing is changed by halves: who may not see all rows is refused before."""
    owner = server.create_role()
    rules.execute(f"""
        ALTER TABLE rules OWNER TO {owner.name};
        ALTER TABLE rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY few ON rules USING (id < 3);
        GRANT CREATE, USAGE ON SCHEMA public TO {owner.name}
    """)
    before = contents(rules)
    session = rules.connect()
    run(session, f"SET ROLE {owner.name}; SET row_security = off")
    change = KeptChange("rules", {"active": "false"}, "active", "004")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run(session, change.make())
    assert kept_tables(rules) == []
    project.add_revision(CHANGE, BACK, python=True)
    succeeds(up(guvnor, rules, project))  # as a superuser
    assert rules.execute(f"SELECT relforcerowsecurity FROM pg_class WHERE oid = '{KEPT}'::regclass") == [
        (True,)
    ]
    run(session, "SET row_security = on")
    assert run(session, f"SELECT count(*) FROM {KEPT}") == [(0,)]
    succeeds(down(guvnor, rules, project))
    assert contents(rules) == before


def test_what_has_no_place_any_more_stays(rules: Database, guvnor: Command, project: Project) -> None:
    """A downgrade does not fail for a column or a table that somebody has dropped by hand."""
    project.add_revision(CHANGE, BACK, python=True)
    succeeds(up(guvnor, rules, project))
    rules.execute("ALTER TABLE rules DROP COLUMN mood")
    before = contents(rules)
    result = succeeds(down(guvnor, rules, project))
    assert "334 rows of rules could not be brought back" in result.err
    assert rules.execute(f"SELECT DISTINCT guvnor_left_why FROM {KEPT}") == [
        ("These columns are gone: mood",)
    ]
    assert contents(rules) == before
    rules.execute(f"DROP TABLE {KEPT}")
    in_one_transaction(rules, BACK)
    assert contents(rules) == before
