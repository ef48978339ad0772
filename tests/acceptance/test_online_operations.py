"""The online operations: online, after a kill, once more over their own result, in a transaction, offline."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text

from guvnor.embedded.programs import binaries
from guvnor.online import execute
from tests.support import revision_runner
from tests.support.command import Command, Result
from tests.support.observe import running, sessions, wait_for
from tests.support.project import Project
from tests.support.proxy import Message, Proxy
from tests.support.server import Database, Server, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back


@dataclass(frozen=True)
class Case:
    """An operation in a revision.

    :ivar body: of the revision's ``upgrade()``.
    :ivar prepare: SQL that makes what the revision starts from.
    :ivar done: SQL that gives true when it is done, all of it.
    """

    body: str
    prepare: str
    done: str


CASES = {
    "create_index_concurrently": Case(
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON items (n)")',
        "SELECT 1",
        "SELECT COALESCE((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_n')), false)",
    ),
    "add_enum_value": Case(
        'op.add_enum_value("level", "middle", after="low")',
        "CREATE TYPE level AS ENUM ('low', 'high')",
        """
        SELECT array_agg(enumlabel ORDER BY enumsortorder)::text = '{low,middle,high}'
        FROM pg_enum WHERE enumtypid = 'level'::regtype
        """,
    ),
    "drop_index_concurrently": Case(
        'op.drop_index_concurrently("by_n")',
        "CREATE INDEX by_n ON items (n)",
        "SELECT to_regclass('by_n') IS NULL",
    ),
    "validate_constraint": Case(
        """
op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS positive")
op.execute("ALTER TABLE items ADD CONSTRAINT positive CHECK (n > 0) NOT VALID")
op.validate_constraint("items", "positive")
        """,
        "SELECT 1",
        "SELECT COALESCE((SELECT convalidated FROM pg_constraint WHERE conname = 'positive'), false)",
    ),
    "set_not_null": Case(
        'op.set_not_null("items", "n")',
        "SELECT 1",
        """
        SELECT attnotnull
           AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c')
        FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname = 'n'
        """,
    ),
    "backfill": Case(
        """op.backfill("items", "label = 'item ' || n", "label IS NULL")""",
        "UPDATE items SET label = NULL",
        "SELECT NOT EXISTS (SELECT FROM items WHERE label IS DISTINCT FROM 'item ' || n)",
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def items_template(server: Server, template_at_head: Database) -> Database:
    """A database at the head, with a table of 3,000 rows on many pages beside."""
    database = server.create_database(template_at_head, keep=True)
    database.execute("CREATE TABLE items (n integer, label text) WITH (fillfactor = 10)")
    database.execute("INSERT INTO items SELECT n, 'old' FROM generate_series(1, 3000) AS n")
    return database


@pytest.fixture
def items(server: Server, items_template: Database) -> Database:
    return server.create_database(items_template)


def revision(project: Project, body: str) -> None:
    project.add_revision(body, BACK, python=True)


def is_done(database: Database, case: Case) -> bool:
    """Whether the operation is done, the version is reached and nothing is left over."""
    assert database.execute("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    assert database.execute("SELECT version, dirty FROM schema_migrations") == [(3, False)]
    return database.execute(case.done) == [(True,)]


def test_online(items: Database, guvnor: Command, project: Project, case: Case) -> None:
    items.execute(case.prepare)
    assert items.execute(case.done) == [(False,)]
    revision(project, case.body)
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert "online step" in result.err
    assert is_done(items, case)


def test_over_its_own_result(items: Database, guvnor: Command, project: Project, case: Case) -> None:
    items.execute(case.prepare)
    revision(project, case.body + "\n" + case.body)
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert is_done(items, case)


class Killer:
    """Kills runs of a case somewhere between the commit that makes the database dirty and the last one."""

    def __init__(self, server: Server, template: Database, command: Command, project: Project, case: Case):
        self.server = server
        self.template = template
        self.command = command
        self.directory = project.directory
        self.case = case
        revision(project, case.body)

    def __call__(self, number: int, *, sent: bool = False) -> bool:
        """Kill one run and let the next one finish the revision.

        :param number: of the message, counted from the one that writes the dirty flag.
        :param sent: kill while the server is at it; else before it is sent.
        :returns: whether it came so far.
        """
        database = self.server.create_database(self.template)
        database.execute(self.case.prepare)
        numbers = itertools.count()
        begun: list[int] = []

        def stop_at(message: Message) -> bool:
            begun.extend([message.number] if "dirty) VALUES (3, true)" in message.text else [])
            return bool(begun) and next(numbers) == number

        with Proxy(database, stop_at, sent=sent) as proxy:
            process = self.command.start("migrate", "up", database=proxy.dsn, cwd=self.directory)
            stopped = proxy.wait_until_stopped(lambda: process.poll() is None)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        result = self.command("migrate", "up", database=database, cwd=self.directory)
        assert result.code == 0, f"{stopped}\n{result.out}\n{result.err}"
        assert is_done(database, self.case), stopped
        return stopped is not None


@pytest.fixture
def killer(server: Server, items_template: Database, guvnor: Command, project: Project, case: Case) -> Killer:
    return Killer(server, items_template, guvnor, project, case)


@pytest.mark.parametrize(("number", "sent"), [(3, True), (9, False), (12, True), (15, False), (17, False)])
def test_finished_after_a_kill(killer: Killer, number: int, sent: bool) -> None:
    killer(number, sent=sent)


@pytest.mark.exhaustive
def test_finished_after_a_kill_at_every_message(killer: Killer, capsys: pytest.CaptureFixture[str]) -> None:
    for number in itertools.count():
        killer(number, sent=True)
        if not killer(number):
            break
    with capsys.disabled():
        print(f"\n{2 * number} points", flush=True)
    assert number > 15


def test_in_a_transaction_that_does_not_commit(items: Database, case: Case) -> None:
    items.execute(case.prepare)
    with revision_runner.connect(items) as connection:
        with Operations.context(MigrationContext.configure(connection)) as op:
            exec(case.body, {"op": op})
        assert connection.execute(text(case.done.replace(":", r"\:"))).scalar() is True
        connection.rollback()
    assert items.execute(case.done) == [(False,)]


def test_offline(items: Database, alembic: Command, project: Project, case: Case) -> None:
    items.execute(case.prepare)
    revision(project, case.body)
    result = alembic("upgrade", "002:003", "--sql", cwd=project.directory)
    assert result.code == 0, result
    assert re.search(r"COMMIT;.*BEGIN;", result.out.partition("Running upgrade")[2], re.DOTALL), result.out
    command = [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", items.dsn]
    applied = subprocess.run(command, input=result.out, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    assert is_done(items, case)


# -- what is special about an index --


def test_a_build_takes_the_memory_and_the_workers_that_the_server_has_to_give(items: Database) -> None:
    connection = items.connect()

    def settings() -> list[tuple[int, int]]:
        return run(
            connection,
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')), "
            "current_setting('max_parallel_maintenance_workers')::integer",
        )

    def build() -> tuple[int, int]:
        step = execute.OnlineStep(connection, connection, 0, "build", lambda _: None)
        execute.create_index(step, "by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON items (n)")
        return settings()[0]

    run(connection, "SET maintenance_work_mem = '1MB'")
    before = settings()[0]
    assert build() == (
        items.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))")[0][0],
        before[1],
    )
    run(connection, "SET max_parallel_workers = 6")
    assert build()[1] == max(3, before[1])


INDEX = CASES["create_index_concurrently"]


def test_an_invalid_index_is_rebuilt(items: Database, guvnor: Command, project: Project) -> None:
    """CREATE INDEX CONCURRENTLY IF NOT EXISTS would leave it as it is."""
    items.execute("INSERT INTO items VALUES (1, 'double')")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        items.execute("CREATE UNIQUE INDEX CONCURRENTLY by_n ON items (n)")
    assert items.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_n'::regclass") == [(False,)]
    revision(project, INDEX.body)
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert "dropping the invalid index" in result.err
    assert is_done(items, INDEX)
    assert items.execute("SELECT indisunique FROM pg_index WHERE indexrelid = 'by_n'::regclass") == [(False,)]


def test_a_build_that_goes_on_after_a_kill_is_awaited(
    items: Database, guvnor: Command, project: Project
) -> None:
    revision(project, INDEX.body)
    snapshot = items.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(snapshot, "SELECT txid_current()")
    killed = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    builder = running(items, "CREATE INDEX CONCURRENTLY")
    ((identity,),) = wait_for("the index", lambda: items.execute("SELECT to_regclass('by_n')::oid"))
    killed.kill()
    killed.wait()
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    assert process.stderr is not None
    found = next(line for line in process.stderr if "still builds index by_n" in line)
    assert json.loads(found)["pid"] == builder
    assert f"which still builds index by_n: pid {builder} (role " in json.loads(found)["msg"]
    # It waits itself, and the one who has to end is named.
    found = next(line for line in process.stderr if f"(by surviving backend {builder})" in line)
    assert f"waits for pid {snapshot.info.backend_pid}" in json.loads(found)["phase"]
    run(snapshot, "ROLLBACK")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert is_done(items, INDEX)
    assert items.execute("SELECT 'by_n'::regclass::oid") == [(identity,)]  # it was not built again


def test_writers_go_on_during_a_build(items: Database, guvnor: Command, project: Project) -> None:
    revision(project, INDEX.body)
    snapshot = items.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(snapshot, "SELECT txid_current()")
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    running(items, "CREATE INDEX CONCURRENTLY")
    writer = items.connect(options="-c lock_timeout=1s")
    run(writer, "INSERT INTO items VALUES (4000, 'new')")
    run(writer, "UPDATE items SET label = 'newer' WHERE n = 4000")
    run(snapshot, "ROLLBACK")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert is_done(items, INDEX)


# -- what is special about the others --


def test_rows_that_violate_a_constraint_are_named(items: Database, guvnor: Command, project: Project) -> None:
    items.execute("INSERT INTO items VALUES (-5, 'bad')")
    revision(project, CASES["validate_constraint"].body)
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 1
    assert "23514" in result.err
    assert "half done" in result.err
    items.execute("DELETE FROM items WHERE n < 0")
    assert guvnor("migrate", "up", database=items, cwd=project.directory).code == 0
    assert is_done(items, CASES["validate_constraint"])


def test_a_constraint_that_is_not_there(items: Database, guvnor: Command, project: Project) -> None:
    revision(project, 'op.validate_constraint("items", "unknown")')
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 1
    assert "Table items has no constraint unknown" in result.err


def test_not_null_is_set_without_a_scan(items: Database, guvnor: Command, project: Project) -> None:
    """The scan is that of the validation, which lets writers go on."""
    items.execute("INSERT INTO items VALUES (NULL, 'bad')")
    revision(project, CASES["set_not_null"].body)
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 1
    assert "23514" in result.err  # the check's validation found it, not SET NOT NULL (23502)
    items.execute("UPDATE items SET n = 0 WHERE n IS NULL")
    assert guvnor("migrate", "up", database=items, cwd=project.directory).code == 0
    assert is_done(items, CASES["set_not_null"])


def filled(items: Database, guvnor: Command, project: Project, assignment: str) -> tuple[Result, int]:
    """Run a backfill of the labels and count its transactions that changed rows."""
    items.execute("UPDATE items SET label = NULL")
    revision(project, f'op.backfill("items", "{assignment}", "label IS NULL")')
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    ((batches,),) = items.execute("SELECT count(DISTINCT xmin::text) FROM items")
    return result, batches


def test_batches_adapt_to_what_they_take(
    server: Server, items_template: Database, guvnor: Command, tmp_path: Path
) -> None:
    """Each should take about 0.2 s: many small ones when a row takes long, few when it does not."""
    counts = []
    for name, assignment in (
        ("slow", "label = (SELECT 'x' FROM pg_sleep(n * 0 + 0.0005))"),
        ("fast", "label = 'x'"),
    ):
        directory = tmp_path / name
        directory.mkdir()
        database = server.create_database(items_template)
        result, batches = filled(database, guvnor, Project(directory), assignment)
        assert result.code == 0, result
        counts.append(batches)
    slow, fast = counts
    assert slow > 2 * fast, counts


def test_a_backfill_goes_on_where_it_stopped(items: Database, guvnor: Command, project: Project) -> None:
    items.execute("UPDATE items SET label = NULL")
    items.execute("CREATE TABLE log (n integer)")
    items.execute("""
        CREATE FUNCTION slow_label(n integer) RETURNS text LANGUAGE sql
        AS $$ INSERT INTO log VALUES (n); SELECT 'item' FROM pg_sleep(0.0005) $$
    """)
    revision(project, 'op.backfill("items", "label = slow_label(n)", "label IS NULL")')
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    wait_for("the first batch", lambda: items.execute("SELECT 1 FROM items WHERE label IS NOT NULL LIMIT 1"))
    process.kill()
    process.wait()
    assert items.execute("SELECT 1 FROM items WHERE label IS NULL LIMIT 1") == [(1,)]
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert "backfill items" in result.out
    assert items.execute("SELECT count(*), count(DISTINCT n) FROM log") == [(3000, 3000)]  # no row twice


def test_who_an_online_step_waits_for_is_named(items: Database, guvnor: Command, project: Project) -> None:
    """It has no lock timeout, so somebody has to know whom to ask."""
    items.execute("CREATE INDEX by_n ON items (n)")
    revision(project, 'op.drop_index_concurrently("by_n")')
    reader = items.connect()
    ((pid,),) = run(reader, "BEGIN; LOCK TABLE items IN ACCESS SHARE MODE; SELECT pg_backend_pid()")
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    assert process.stderr is not None
    said = next((line for line in process.stderr if "waits for" in line), "")
    assert f"waits for pid {pid} " in said
    assert "idle in transaction" in said
    reader.close()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, out + err


def test_a_backfill_without_an_end_is_stopped(items: Database, guvnor: Command, project: Project) -> None:
    """It would fill the disk."""
    revision(project, 'op.backfill("items", "n = n + 1", "n > 0")')
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 1, result
    assert "would never end" in result.err
    assert "still match n > 0" in result.err


def test_a_backfill_that_a_trigger_keeps_from_its_rows_is_stopped(
    items: Database, guvnor: Command, project: Project
) -> None:
    """It would go over the table for ever."""
    items.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE UPDATE ON items FOR EACH ROW WHEN (OLD.n = 7) EXECUTE FUNCTION keep();
    """)
    revision(project, """op.backfill("items", "label = 'new'", "label = 'old'")""")
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 1, result
    assert "would never end" in result.err
    assert items.execute("SELECT array_agg(n) FROM items WHERE label = 'old'") == [([7],)]
    items.execute("DROP TRIGGER keep ON items")
    assert guvnor("migrate", "up", database=items, cwd=project.directory).code == 0


def test_a_backfill_may_end_with_a_comment(items: Database, guvnor: Command, project: Project) -> None:
    revision(
        project, """op.backfill("items", "label = 'new'  -- the new one", "label = 'old'  -- the old one")"""
    )
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert items.execute("SELECT DISTINCT label FROM items") == [("new",)]


def test_a_backfill_that_is_killed_ends_soon(items: Database, guvnor: Command, project: Project) -> None:
    """Other than an index build, which goes on."""
    revision(project, 'op.backfill("items", "label = (SELECT label FROM pg_sleep(60))", "label = \'old\'")')
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    running(items, "pg_sleep")
    process.kill()
    process.wait()
    wait_for("its sessions to end", lambda: sessions(items) == 0, seconds=5)


def test_a_backfill_ends_with_statistics(items: Database, guvnor: Command, project: Project) -> None:
    result, _ = filled(items, guvnor, project, "label = 'the same'")
    assert result.code == 0, result
    seen = "SELECT n_distinct FROM pg_stats WHERE tablename = 'items' AND attname = 'label'"
    assert items.execute(seen) == [(1.0,)]


def test_a_backfill_waits_for_no_more_than_a_row(items: Database, guvnor: Command, project: Project) -> None:
    """A row that a transaction holds is awaited, without a lock on the table that stops others."""
    items.execute("UPDATE items SET label = NULL")
    other = items.connect()
    run(other, "BEGIN")
    run(other, "UPDATE items SET n = n WHERE n = 3000")
    revision(project, CASES["backfill"].body)
    process = guvnor.start("migrate", "up", database=items, cwd=project.directory)
    wait_for(
        "the backfill to wait", lambda: items.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> 0")
    )
    writer = items.connect(options="-c lock_timeout=1s")
    run(writer, "INSERT INTO items VALUES (5000, 'item 5000')")
    run(other, "COMMIT")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert is_done(items, CASES["backfill"])


def test_a_partitioned_table_is_filled_too(items: Database, guvnor: Command, project: Project) -> None:
    items.execute("""
        CREATE TABLE parts (n integer, label text) PARTITION BY RANGE (n);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
        INSERT INTO parts SELECT n FROM generate_series(0, 199) AS n
    """)
    revision(project, "op.backfill('parts', 'label = 1', 'label IS NULL')")
    result = guvnor("migrate", "up", database=items, cwd=project.directory)
    assert result.code == 0, result
    assert items.execute("SELECT count(*) FROM parts WHERE label = '1'") == [(200,)]
