"""Does the engine serve another project: other tables, another busiest one, no golang-migrate?"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from guvnor.database import Database as ConfiguredDatabase
from guvnor.revisions.script import script_directory
from guvnor.schema import drift
from tests.support.expect import ends, succeeds
from tests.support.forked import ForkedCommand
from tests.support.observe import wait_for
from tests.support.server import Database, run
from tests.support.stranger import StrangerProject


@pytest.fixture
def shop(tmp_path: Path) -> StrangerProject:
    (directory := tmp_path / "shop").mkdir()
    return StrangerProject(directory)


def tables(database: Database) -> set[str]:
    return {
        name
        for (name,) in database.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
    }


def test_up_check_autogenerate_and_down(
    alembic: ForkedCommand, shop: StrangerProject, database: Database
) -> None:
    def done(*arguments: str) -> str:
        result = succeeds(alembic(*arguments, database=database, cwd=shop.directory))
        return result.out + result.err

    assert "Applied 003 note" in done("upgrade", "head")
    own = {"alembic_version", "guvnor_migration_history"}
    assert tables(database) == own | {"customers", "orders"}
    done("check")
    script = script_directory(shop.directory / "alembic.ini")
    assert drift.check(ConfiguredDatabase(database.dsn), script).clean

    shop.change_models('Column("note", Text),', 'Column("note", Text),\n    Column("paid_at", Text),')
    ends(alembic("check", database=database, cwd=shop.directory), 255, "paid_at")
    done("revision", "--autogenerate", "-m", "add paid at")
    assert [path.name for path in shop.versions.glob("004_*.py")] == ["004_add_paid_at.py"]
    assert "Applied 004" in done("upgrade", "head")
    done("check")

    database.execute("DROP INDEX orders_customer_id_idx")
    ends(alembic("check", database=database, cwd=shop.directory), 255, "orders_customer_id_idx")
    done("downgrade", "base")
    assert tables(database) == own


def test_a_killed_run_is_finished_by_the_next(
    alembic: ForkedCommand, shop: StrangerProject, database: Database
) -> None:
    """Without golang-migrate's table, the history says that a revision is half done."""
    succeeds(alembic("upgrade", "001", database=database, cwd=shop.directory))
    with contextlib.closing(database.connect()) as blocker:
        # An old snapshot, for whose end the index build waits.
        run(blocker, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM customers")
        process = alembic.start("upgrade", "head", database=database, cwd=shop.directory)
        wait_for("the index build", lambda: database.execute("SELECT FROM pg_stat_progress_create_index"))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert "schema_migrations" not in tables(database)
    result = succeeds(alembic("upgrade", "head", database=database, cwd=shop.directory), "Applied 003 note")
    assert "dirty state that can be finished" in result.out


def test_a_table_of_another_tool_is_left_alone(
    alembic: ForkedCommand, shop: StrangerProject, database: Database
) -> None:
    """Rails and dbmate have a table of this name, too."""
    database.execute(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY); "
        "INSERT INTO schema_migrations VALUES ('20240101')"
    )
    succeeds(alembic("upgrade", "head", database=database, cwd=shop.directory))
    assert database.execute("SELECT * FROM schema_migrations") == [("20240101",)]
    succeeds(alembic("downgrade", "base", database=database, cwd=shop.directory))
    assert database.execute("SELECT * FROM schema_migrations") == [("20240101",)]
