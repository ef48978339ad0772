"""Does every online operation take a partitioned table, at any depth, and tables that inherit?"""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from tests.support import parted
from tests.support.command import Command, Result
from tests.support.expect import ends, next_step, succeeds, versions
from tests.support.observe import running
from tests.support.parted import OPERATIONS
from tests.support.project import Project
from tests.support.proxy import Message, Proxy
from tests.support.server import Database, Server, run

DONE = (["002"], [(2, False)])
BEFORE = (["001"], [(1, False)])


@pytest.fixture
def parts(server: Server, guvnor: Command, project: Project, request: pytest.FixtureRequest) -> Database:
    """A database at revision 001 with rows, and a project whose revision 002 is an operation."""
    operation = getattr(request, "param", OPERATIONS["index"])
    parted.fill(project, operation)
    database = server.create_database()
    succeeds(guvnor("migrate", "up", "--to", "001", database=database, cwd=project.directory))
    database.execute(parted.ROWS)
    return database


@pytest.fixture
def up(guvnor: Command, project: Project, parts: Database) -> Any:
    """Apply the operation; what a test has made beside it is no matter."""
    return lambda: guvnor("migrate", "up", "--no-verify", database=parts, cwd=project.directory)


def each(names: Any = OPERATIONS) -> Any:
    return pytest.mark.parametrize(
        "parts", [OPERATIONS[name] for name in names], indirect=True, ids=list(names)
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_makes_what_the_plain_statement_makes(
    server: Server, guvnor: Command, alembic: Command, project: Project, name: str
) -> None:
    operation = OPERATIONS[name]
    parted.fill(project, operation)
    online, plain = server.create_database(), server.create_database()
    for database in (online, plain):
        succeeds(guvnor("migrate", "up", "--to", "001", database=database, cwd=project.directory))
        database.execute(parted.ROWS)
    before = parted.catalogs(online), parted.rows(online)
    plain.execute(operation.plain)
    expected = parted.catalogs(plain), parted.rows(plain)

    result = succeeds(guvnor("migrate", "up", database=online, cwd=project.directory))
    assert "online step" in result.err or name == "drop of an index"
    assert versions(online) == DONE
    assert (parted.catalogs(online), parted.rows(online)) == expected
    succeeds(guvnor("schema", "check", database=online, cwd=project.directory))
    succeeds(alembic("check", database=online, cwd=project.directory))

    succeeds(guvnor("migrate", "down", database=online, cwd=project.directory))
    if "backfill" not in name:
        assert (parted.catalogs(online), parted.rows(online)) == before
    succeeds(guvnor("migrate", "up", database=online, cwd=project.directory))
    assert parted.catalogs(online) == expected[0]


# -- an index --


def invalid(database: Database) -> list[Any]:
    return database.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")


def test_a_partition_that_appears_meanwhile_is_included(
    parts: Database, guvnor: Command, project: Project
) -> None:
    snapshot = parts.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(snapshot, "SELECT txid_current()")
    process = guvnor.start("migrate", "up", "--no-verify", database=parts, cwd=project.directory)
    running(parts, "CREATE INDEX CONCURRENTLY")
    parts.execute("""
        SET lock_timeout = '1s';
        CREATE TABLE late (LIKE parts); INSERT INTO late VALUES (1, '2026-05-01', 1, 1);
        CREATE TABLE parts_early PARTITION OF parts FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
        INSERT INTO parts VALUES (7, '2023-05-01', 1, 1)
    """)
    run(snapshot, "ROLLBACK")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert invalid(parts) == []
    leaves = "SELECT count(*) FROM pg_partition_tree('parts') WHERE isleaf"
    built = "SELECT count(*) FROM pg_partition_tree('by_n') WHERE isleaf"
    assert parts.execute(leaves) == parts.execute(built) == [(5,)]


def test_an_index_of_a_partition_that_is_equal_is_used(parts: Database, up: Any) -> None:
    """As the plain statement does; one that differs is not."""
    parts.execute("CREATE INDEX mine ON parts_old (n); CREATE INDEX other ON parts_rest (n DESC)")
    succeeds(up())
    assert invalid(parts) == []
    attached = parts.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'by_n'::regclass ORDER BY 1"
    )
    assert attached == [("mine",), ("parts_2025_n_idx",), ("parts_rest_n_idx",)]


def test_an_invalid_index_of_a_partition_is_built_again(parts: Database, up: Any) -> None:
    parts.execute("INSERT INTO parts_old VALUES (1, '2024-05-05', 1, 1)")
    with pytest.raises(Exception, match="could not create unique"):
        parts.execute("CREATE UNIQUE INDEX CONCURRENTLY parts_old_n_idx ON parts_old (n)")
    parts.execute("UPDATE pg_index SET indisunique = false WHERE indexrelid = 'parts_old_n_idx'::regclass")
    succeeds(up(), "dropping the invalid index")
    assert invalid(parts) == []
    assert parts.execute("SELECT to_regclass('parts_old_n_idx1')") == [(None,)]


def test_a_name_that_is_taken_is_passed_over_as_the_server_does(parts: Database, up: Any) -> None:
    parts.execute("CREATE SEQUENCE parts_old_n_idx; CREATE TABLE parts_rest_n_idx ()")
    succeeds(up())
    assert invalid(parts) == []
    assert parts.execute("SELECT 'parts_old_n_idx1'::regclass::text, 'parts_rest_n_idx1'::regclass::text")


@each(["unique index"])
def test_duplicates_are_named_and_the_next_run_goes_on(
    parts: Database, up: Any, guvnor: Command, project: Project
) -> None:
    snapshot = parts.connect()
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    run(snapshot, "SELECT txid_current()")
    process = guvnor.start("migrate", "up", "--no-verify", database=parts, cwd=project.directory)
    running(parts, "CREATE UNIQUE INDEX CONCURRENTLY")
    parts.execute("INSERT INTO parts SELECT * FROM parts WHERE id = 900")  # in a leaf whose turn comes later
    run(snapshot, "ROLLBACK")
    out, err = process.communicate(timeout=60)
    failed = ends(Result(process.returncode, out, err), 1, "23505", "half done")
    (query,) = [line.partition(";")[0] for line in next_step(failed) if line.startswith("SELECT")]
    assert len(parts.execute(query)) == 1
    parts.execute("DELETE FROM parts WHERE id = 900")
    succeeds(up())
    assert invalid(parts) == []


def test_a_unique_index_without_the_partition_key_is_refused_before_anything(
    parts: Database, up: Any, project: Project
) -> None:
    body = OPERATIONS["index"].body.replace("CREATE INDEX", "CREATE UNIQUE INDEX")
    change(project, 'op.execute("CREATE TABLE beside ()")\n' + body)
    ends(up(), 1, "0A000", "at")
    assert versions(parts) == BEFORE
    assert parts.execute("SELECT to_regclass('beside'), to_regclass('by_n')") == [(None, None)]


def change(project: Project, body: str, back: str = 'op.execute("SELECT 1")') -> None:
    (path,) = project.versions.glob("002_*.py")
    path.unlink()
    project.add_revision(body, back, name="operation", python=True)


def test_a_part_of_an_index_is_not_dropped_by_itself(parts: Database, up: Any, project: Project) -> None:
    parts.execute("CREATE INDEX by_n ON parts (n)")
    change(project, 'op.execute("CREATE TABLE beside ()")\nop.drop_index_concurrently("parts_old_n_idx")')
    failed = ends(up(), 1, "is a part of by_n")
    assert 'op.drop_index_concurrently("by_n")' in "\n".join(next_step(failed))
    assert versions(parts) == BEFORE


# -- what a step cannot work on --

FOREIGN = """
    CREATE EXTENSION IF NOT EXISTS file_fdw;
    CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE parts_far PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
        SERVER files OPTIONS (filename '/dev/null')
"""


@each(
    [
        name
        for name in OPERATIONS
        if name not in ("check", "not null", "drop of an index") and not name.startswith("rows")
        if "inherit" not in name
    ]
)
def test_a_foreign_partition_is_refused_before_anything(
    parts: Database, up: Any, project: Project, server: Server
) -> None:
    if not server.execute("SELECT FROM pg_available_extensions WHERE name = 'file_fdw'"):
        pytest.skip("the server has no file_fdw")
    parts.execute(FOREIGN)
    (path,) = project.versions.glob("002_*.py")
    path.write_text(
        path.read_text().replace(
            "upgrade() -> None:", 'upgrade() -> None:\n    op.execute("CREATE TABLE beside ()")'
        )
    )
    before = parted.catalogs(parts)
    failed = ends(up(), 1, "parts_far", "foreign table", "The revision was rolled back")
    assert "parts_far" in "\n".join(next_step(failed))
    assert versions(parts) == BEFORE
    assert parted.catalogs(parts) == before


@pytest.mark.parametrize(
    "made",
    [
        "VIEW {} AS SELECT 1 AS id, 2 AS n, 'x' AS label",
        "TEMPORARY TABLE {} (id integer, n integer, label text)",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON odd (n)")',
        """op.delete_rows("odd", where="n = 2", keep=True)""",
        """op.backfill("odd", "label = 'x'", "label IS NULL")""",
        """op.change_rows("odd", set={"n": "2"}, where="true", keep=True)""",
        'op.add_foreign_key("odd", "of_kind", "FOREIGN KEY (n) REFERENCES kinds (id)")',
        'op.add_unique_constraint("odd", "one", ["n"])',
    ],
)
def test_what_is_no_table_is_refused_before_anything(
    parts: Database, up: Any, project: Project, body: str, made: str
) -> None:
    if "TEMPORARY" in made and "INDEX" in body:
        made += (
            "; INSERT INTO odd SELECT n FROM generate_series(1, 9999) AS n"  # a small one is built at once
        )
    change(project, f'op.execute("""CREATE {made.format("odd")}""")\n{body}')
    ends(up(), 1, "odd is a ")
    assert versions(parts) == BEFORE
    assert parts.execute("SELECT to_regclass('odd')") == [(None,)]


def test_a_later_operation_is_refused_before_the_first_one_commits(
    parts: Database, up: Any, project: Project
) -> None:
    change(
        project,
        """
op.execute("CREATE VIEW odd AS SELECT 1 AS n")
op.backfill("parts", "label = 'x'", "label IS NULL")
op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON odd (n)")
        """,
    )
    ends(up(), 1, "odd is a view")
    assert versions(parts) == BEFORE
    assert parts.execute("SELECT count(*) FROM parts WHERE label = 'x'") == [(0,)]


# -- rows that are kept --


@each([name for name in OPERATIONS if name.startswith("rows")])
def test_the_plan_counts_no_loss_of_rows_that_are_kept(
    parts: Database, guvnor: Command, project: Project
) -> None:
    shown = succeeds(guvnor("migrate", "plan", "--json", database=parts, cwd=project.directory))
    assert json.loads(shown.out)["losses"] == []


# -- nothing is read under a lock --

LAST = {
    "check": 'ALTER TABLE "parts" VALIDATE CONSTRAINT',
    "not null": 'ALTER TABLE "parts" ALTER COLUMN "n" SET NOT NULL',
    "foreign key": 'ALTER TABLE "parts" (VALIDATE|ADD) CONSTRAINT "of_kind"(?!.*NOT VALID)',
    "unique constraint": "ALTER TABLE parts_rest ADD CONSTRAINT .* USING INDEX",
    "primary key": "ALTER TABLE parts_rest ADD CONSTRAINT .* USING INDEX",
}


@each(LAST)
def test_the_table_itself_has_nothing_to_read(
    parts: Database, up: Any, guvnor: Command, project: Project, request: pytest.FixtureRequest
) -> None:
    """Its statement comes when each leaf has been read: it holds the locks on all of them."""
    pattern = LAST[request.node.callspec.id]
    half_done: list[Message] = []  # the same statement runs in the scratch schema before

    def stop_at(message: Message) -> bool:
        half_done.extend([message] if "dirty) VALUES (2, true)" in message.text else [])
        return bool(half_done) and re.match(pattern, message.text) is not None

    with Proxy(parts, stop_at) as proxy:
        process = guvnor.start("migrate", "up", "--no-verify", database=proxy.dsn, cwd=project.directory)
        message = proxy.wait_until_stopped(lambda: process.poll() is None)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert message is not None
    by_hand = parts.connect()
    run(by_hand, "BEGIN")
    run(by_hand, message.text)
    read = "SELECT relid::regclass::text, seq_tup_read FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0"
    assert run(by_hand, read) == []
    run(by_hand, "ROLLBACK")
    succeeds(up())
