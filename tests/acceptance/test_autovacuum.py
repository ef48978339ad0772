"""A table that is being autovacuumed: does the vacuum go, and the application go on meanwhile?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import autovacuum
from tests.support.command import Command, Result
from tests.support.project import Project
from tests.support.server import Database, Role, Server, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back
ADD_COLUMN = "op.execute('ALTER TABLE items ADD COLUMN a integer')"


@pytest.fixture(autouse=True)
def _eager(server: Server) -> Iterator[None]:
    with autovacuum.eager(server):
        yield


@pytest.fixture
def items(migrated: Database) -> Database:
    """A database at the head, with a table of many pages that is all dead rows."""
    fill(migrated)
    return migrated


def fill(database: Database) -> None:
    """Make the table; autovacuum begins with it a moment later."""
    fill_unnoticed(database)
    database.execute(f"ALTER TABLE items SET ({autovacuum.parameters(enabled='on')})")


def fill_unnoticed(database: Database) -> None:
    """Make the table, without autovacuum, which would be done with it before it is slowed down."""
    database.execute(
        "CREATE TABLE items (n integer PRIMARY KEY, label text) "
        "WITH (fillfactor = 10, autovacuum_enabled = off)"
    )
    database.execute("INSERT INTO items SELECT n, 'old' FROM generate_series(1, 3000) AS n")
    database.execute("UPDATE items SET label = 'new'")


class Application(threading.Thread):
    """Reads and writes the table all the time, and knows how long the longest of it took."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._session = database.connect()
        self._ended = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self._ended.wait(0.005):
            began = time.monotonic()
            run(self._session, "SELECT label FROM items WHERE n = 7")
            run(self._session, "UPDATE items SET label = 'newer' WHERE n = 8")
            self.longest = max(self.longest, time.monotonic() - began)

    def __enter__(self) -> Application:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def tries(database: Database, revision: str = "003") -> int:
    ((count,),) = database.execute(
        "SELECT tries FROM guvnor_migration_history WHERE revision = %s AND event = 'succeeded'", [revision]
    )
    return int(count)


def up(tool: Command, *arguments: str, database: Database | str, project: Project) -> Result:
    words = ("migrate", "up", *arguments) if tool.module == "guvnor" else ("upgrade", "head")
    return tool(*words, database=database, cwd=project.directory)


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_it_goes_while_the_application_goes_on(
    items: Database, guvnor: Command, alembic: Command, project: Project, tool: str
) -> None:
    project.add_revision(ADD_COLUMN, BACK, python=True)
    pid = autovacuum.worker(items, "items")
    with Application(items) as application:
        result = up(guvnor if tool == "guvnor" else alembic, database=items, project=project)
    assert result.code == 0, result
    assert f"an autovacuum on items (pid {pid}" in result.err
    assert "knocking" in result.err
    assert tries(items) >= 2  # the application may hold a row for a moment just then
    # Who waits for ACCESS EXCLUSIVE for deadlock_timeout, 1 s, makes everybody else wait as long.
    assert application.longest < 0.8, result


def test_it_goes_from_a_table_that_is_changed_after_an_online_step(
    items: Database, guvnor: Command, project: Project
) -> None:
    items.execute("CREATE TYPE level AS ENUM ('low')")
    project.add_revision(f"op.add_enum_value('level', 'high')\n{ADD_COLUMN}", BACK, python=True)
    autovacuum.worker(items, "items")
    with Application(items) as application:
        result = up(guvnor, database=items, project=project)
    assert result.code == 0, result
    assert tries(items) >= 2  # the application may hold a row for a moment just then
    assert application.longest < 0.8, result


def test_it_goes_from_each_of_several_tables(items: Database, guvnor: Command, project: Project) -> None:
    items.execute(f"""
        CREATE TABLE others WITH ({autovacuum.parameters()}) AS SELECT * FROM items;
        DELETE FROM others;
    """)
    project.add_revision(ADD_COLUMN + "\n" + ADD_COLUMN.replace("items", "others"), BACK, python=True)
    for table in ("items", "others"):
        autovacuum.worker(items, table)
    result = up(guvnor, database=items, project=project)
    assert result.code == 0, result
    assert tries(items) == 3


@pytest.fixture
def owner(server: Server) -> Role:
    """A role without any privilege but those of an owner."""
    return server.create_role()


@pytest.fixture
def owned(server: Server, guvnor: Command, project: Project, owner: Role) -> tuple[Database, str]:
    """A database that this role has migrated, with the table of a superuser; and the role's DSN."""
    database = server.create_database(owner=owner)
    dsn = database.dsn_with(owner)
    assert up(guvnor, "--to", "2", database=dsn, project=project).code == 0
    fill(database)
    return database, dsn


def test_it_goes_for_a_role_that_may_not_see_what_it_does(
    owned: tuple[Database, str], owner: Role, guvnor: Command, project: Project
) -> None:
    database, dsn = owned
    database.execute(f'ALTER TABLE items OWNER TO "{owner.name}"')
    project.add_revision(ADD_COLUMN, BACK, python=True)
    autovacuum.worker(database, "items")
    result = up(guvnor, database=dsn, project=project)
    assert result.code == 0, result
    assert "an autovacuum on items" in result.err
    assert tries(database) == 2


def test_a_role_that_may_not_lock_the_table_does_not_knock(
    owned: tuple[Database, str], owner: Role, guvnor: Command, project: Project
) -> None:
    """To reference a table takes less than to lock it."""
    database, dsn = owned
    database.execute(f'GRANT REFERENCES ON items TO "{owner.name}"')
    project.add_revision("ALTER TABLE events ADD COLUMN item integer REFERENCES items", "SELECT 1")
    pid = autovacuum.worker(database, "items")
    result = up(guvnor, "--max-wait", "1s", database=dsn, project=project)
    assert result.code == 7, result
    assert f"In the way: an autovacuum on items (pid {pid}" in result.err
    assert "knocking" not in result.err


def test_it_goes_from_the_toast_table_of_a_table_that_is_dropped(
    migrated: Database, guvnor: Command, project: Project
) -> None:
    migrated.execute(f"""
        CREATE TABLE texts (n integer, body text)
            WITH (autovacuum_enabled = off, toast.autovacuum_enabled = on, {autovacuum.parameters("toast.")});
        ALTER TABLE texts ALTER body SET STORAGE EXTERNAL;
        INSERT INTO texts SELECT n, repeat('long ', 5000) FROM generate_series(1, 100) AS n;
        DELETE FROM texts WHERE n > 1;
    """)
    ((toast,),) = migrated.execute(
        "SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'texts'"
    )
    project.add_revision("op.execute('DROP TABLE texts')", BACK, python=True)
    autovacuum.worker(migrated, toast)
    result = up(guvnor, database=migrated, project=project)
    assert result.code == 0, result
    assert tries(migrated) == 2


def test_it_goes_from_a_materialized_view(migrated: Database, guvnor: Command, project: Project) -> None:
    migrated.execute(f"""
        CREATE TABLE below AS SELECT n, 'old' AS label FROM generate_series(1, 3000) AS n;
        CREATE MATERIALIZED VIEW above WITH (fillfactor = 10, {autovacuum.parameters()})
            AS SELECT * FROM below;
        CREATE UNIQUE INDEX ON above (n);
        UPDATE below SET label = 'new';
    """)
    migrated.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY above")
    project.add_revision("op.execute('DROP MATERIALIZED VIEW above')", BACK, python=True)
    autovacuum.worker(migrated, "above")
    result = up(guvnor, database=migrated, project=project)
    assert result.code == 0, result
    assert tries(migrated) == 2


def test_one_against_wraparound_is_not_asked(migrated: Database, guvnor: Command, project: Project) -> None:
    """The server does not cancel it, so the run waits for it like for anybody, and says so."""
    fill_unnoticed(migrated)
    autovacuum.use_up_transactions(migrated, 110_000)
    slow = autovacuum.parameters(enabled="on", freeze_max_age="100000")
    migrated.execute(f"ALTER TABLE items SET ({slow})")
    project.add_revision(ADD_COLUMN, BACK, python=True)
    pid = autovacuum.worker(migrated, "items")
    result = up(guvnor, "--max-wait", "3s", database=migrated, project=project)
    assert result.code == 7, result
    assert "to prevent transaction ID wraparound: it does not give way" in result.err
    assert f"pid = {pid}" in result.err.split("Next:")[1]
    assert "pg_cancel_backend" not in result.err
    assert "knocking" not in result.err
    assert autovacuum.at_work(migrated, pid, "items")


def test_max_wait_holds_for_a_knock(items: Database, guvnor: Command, project: Project) -> None:
    project.add_revision(ADD_COLUMN, BACK, python=True)
    pid = autovacuum.worker(items, "items")
    result = up(guvnor, "--max-wait", "800ms", "--no-verify", database=items, project=project)
    assert result.code == 7, result
    assert f"In the way: an autovacuum on items (pid {pid}" in result.err
    assert "let the run wait longer" in result.err.split("Next:")[1]
    assert autovacuum.at_work(items, pid, "items")
