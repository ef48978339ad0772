"""Locks that are asked for without queueing: the application does not wait behind a run that waits."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from tests.support import autovacuum
from tests.support.expect import AT_HEAD, ends, succeeds, versions
from tests.support.load import Load
from tests.support.observe import finds_it_busy, wait_for
from tests.support.server import Database, Server
from tests.support.shop import Shop

ADD_COLUMN = "op.execute('ALTER TABLE items ADD COLUMN a integer')"
NOW_3 = (["003"], [(3, False)])
REPORT = 1.5  # seconds from the first try to the end of the report
# The first try waits 40 ms, and who comes meanwhile queues behind it. Tries that wait 40, 80 and more ms,
# again and again, would make each session of the application wait several times.
FELT = 0.045  # seconds


@contextlib.contextmanager
def report(database: Database, table: str = "items") -> Iterator[connection]:
    """Have a table in use until the transaction is rolled back."""
    session = database.connect(application_name="nightly report")
    session.autocommit = False
    session.cursor().execute(f"SELECT count(*) FROM {table}")
    try:
        yield session
    finally:
        session.rollback()


def goes_through(process: Any) -> str:
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    return str(out + err)


def is_not_felt(load: Load, until: float, times: int = 1) -> None:
    """Expect that the sessions of the application waited so often for a run that was waiting.

    Half of the sessions is enough: on a busy machine, one or the other comes late by itself.

    :param until: when the locks became free (``time.monotonic()``): what the revision does with them takes
        its time on a busy machine, too.
    """
    counts = load.counts_over(FELT, until)
    assert statistics.median_low(counts) <= times, f"{counts}, longest {load.longest:.3f} s"
    assert load.longest < 0.4, f"{load.longest:.3f} s"


def free(*holders: connection) -> float:
    """End the transactions; returns when that was."""
    now = time.monotonic()
    for holder in holders:
        holder.rollback()
    return now


def is_not_felt_behind(shop: Shop, update: str, holder: connection) -> None:
    """Expect that a run goes through once the holder's transaction has ended, and that nobody felt it wait.

    :param update: what the application runs.
    """
    with Load(shop.database, update, sessions=8) as load:
        process = shop.start()
        finds_it_busy(process)
        time.sleep(REPORT)
        ended = free(holder)
        goes_through(process)
    is_not_felt(load, ended)


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_the_application_does_not_feel_a_run_behind_a_report(shop: Shop, tool: str) -> None:
    shop.revise(ADD_COLUMN)
    with Load(shop.database, sessions=8) as load, report(shop.database) as reading:
        process = shop.start(tool=tool)
        finds_it_busy(process)
        time.sleep(REPORT)
        ended = free(reading)
        goes_through(process)
    assert time.monotonic() - ended < 1.5  # knocking every 20 ms, the revision, the end of the process
    is_not_felt(load, ended)
    assert versions(shop.database) == NOW_3


@pytest.mark.parametrize(
    ("statement", "table", "update"),
    [
        ("DROP INDEX by_n", "items", "UPDATE items SET seen = seen + 1 WHERE id = %(id)s"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION slow_row(0)",
            "items",
            "UPDATE items SET seen = seen + 1 WHERE id = %(id)s",
        ),
        ("TRUNCATE notes", "notes", "UPDATE notes SET item_id = item_id WHERE item_id = %(id)s"),
    ],
)
def test_other_statements_knock_too(shop: Shop, statement: str, table: str, update: str) -> None:
    shop.database.execute("CREATE INDEX by_n ON items (n)")
    shop.revise(f"op.execute({statement!r})")
    writer = shop.database.connect()
    writer.autocommit = False
    writer.cursor().execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
    is_not_felt_behind(shop, update, writer)


def test_dropping_an_index_behind_a_report_gives_up_in_time(shop: Shop) -> None:
    shop.database.execute("CREATE INDEX by_n ON items (n)")
    shop.revise("op.execute('DROP INDEX by_n')")
    with Load(shop.database, sessions=8) as load, report(shop.database):
        result = shop.run("--max-wait", "1s", max_stall="300ms")
        ended = time.monotonic()
        ends(result, 7, "nightly report")
        assert versions(shop.database) == AT_HEAD
        assert shop.database.execute("SELECT to_regclass('by_n') IS NOT NULL") == [(True,)]
    is_not_felt(load, ended)
    succeeds(shop.run(max_stall="300ms"))
    assert shop.database.execute("SELECT to_regclass('by_n') IS NULL") == [(True,)]


def test_short_transactions_that_overlap_all_the_time_do_not_keep_it_out(shop: Shop) -> None:
    """There is no moment when the table is free, so knocking alone would go on forever."""
    shop.revise(ADD_COLUMN)
    with Load(shop.database, sessions=8, pause=0, hold=0.03) as load:
        began = time.monotonic()
        succeeds(shop.run())
        took = time.monotonic() - began
    assert took < 2 + 2  # the locks within 2 s, and the process with its checks on a busy machine
    assert load.longest < 0.8, f"{load.longest:.3f} s"
    ((seconds,),) = shop.database.execute(
        "SELECT EXTRACT(EPOCH FROM max(at) FILTER (WHERE event = 'succeeded') - "
        "max(at) FILTER (WHERE event = 'started'))::float8 "
        "FROM guvnor_migration_history WHERE revision = '003'"
    )
    assert seconds < 2.5


BOTH = f"{ADD_COLUMN}\nop.execute('ALTER TABLE others ADD COLUMN a integer')"


def test_a_second_table_that_is_held_is_learned(shop: Shop) -> None:
    """Between the tries the run holds nothing: who needs the first table does not wait for it either."""
    shop.revise(BOTH)
    update = "UPDATE others SET seen = seen + 1 WHERE id = %(id)s"
    with (
        Load(shop.database, sessions=4) as items,
        Load(shop.database, update, sessions=4) as others,
        report(shop.database, "others") as reading,
    ):
        process = shop.start()
        finds_it_busy(process)
        time.sleep(REPORT)
        ended = free(reading)
        goes_through(process)
    for load in (items, others):
        is_not_felt(load, ended)


def test_two_tables_that_are_held_one_after_the_other(shop: Shop) -> None:
    shop.revise(BOTH)
    with (
        Load(shop.database, sessions=8) as load,
        report(shop.database) as first,
        report(shop.database, "others") as second,
    ):
        process = shop.start()
        finds_it_busy(process)
        time.sleep(REPORT / 2)
        first.rollback()
        time.sleep(REPORT)
        ended = free(second)
        goes_through(process)
    is_not_felt(load, ended, 2)


def test_a_partition_that_is_held(shop: Shop) -> None:
    shop.database.execute(
        """
        CREATE TABLE parts (id integer PRIMARY KEY, seen integer NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (20);
        CREATE TABLE high PARTITION OF parts FOR VALUES FROM (20) TO (100);
        INSERT INTO parts SELECT generate_series(1, 40);
        """
    )
    shop.revise("op.execute('ALTER TABLE parts ADD COLUMN a integer')")
    update = "UPDATE parts SET seen = seen + 1 WHERE id = %(id)s"
    with report(shop.database, "high") as reading:
        is_not_felt_behind(shop, update, reading)


def test_autovacuum_and_a_report_together(shop: Shop, server: Server) -> None:
    shop.database.execute(
        "CREATE TABLE worn (n integer PRIMARY KEY, label text) "
        "WITH (fillfactor = 10, autovacuum_enabled = off)"
    )
    shop.database.execute("INSERT INTO worn SELECT n, 'old' FROM generate_series(1, 3000) AS n")
    shop.database.execute("UPDATE worn SET label = 'new'")
    shop.revise("op.execute('ALTER TABLE worn ADD COLUMN a integer')")
    with autovacuum.eager(server):
        shop.database.execute(f"ALTER TABLE worn SET ({autovacuum.parameters(enabled='on')})")
        autovacuum.worker(shop.database, "worn")
        update = "UPDATE worn SET label = 'newer' WHERE n = %(id)s"
        with Load(shop.database, update, sessions=4) as load, report(shop.database, "worn") as reading:
            process = shop.start()
            finds_it_busy(process)
            time.sleep(REPORT)
            reading.rollback()
            told = goes_through(process)
    assert "autovacuum" in told
    assert load.longest < 0.4, f"{load.longest:.3f} s"
    assert versions(shop.database) == NOW_3


def test_a_row_that_is_fought_for_is_no_reason_to_lock_its_table(shop: Shop) -> None:
    """Behind who waits for a row, one waits for one's turn; that is no lock on the table."""
    shop.revise("op.execute('UPDATE items SET n = n WHERE id = 1')")
    holder, next_one, application = (shop.database.connect() for _ in range(3))
    holder.autocommit = False
    holder.cursor().execute("UPDATE items SET seen = 1 WHERE id = 1")
    application.autocommit = True

    def fight() -> None:
        with contextlib.suppress(psycopg2.Error):
            next_one.cursor().execute("UPDATE items SET seen = 2 WHERE id = 1")

    waiting = threading.Thread(target=fight)
    waiting.start()
    waits = "SELECT 1 FROM pg_locks WHERE locktype = 'tuple' AND relation = 'items'::regclass"
    wait_for("the turn to be taken", lambda: shop.database.execute(waits))
    process = shop.start()
    try:
        assert process.stderr is not None
        assert any("trying again in" in line for line in process.stderr)
        for _ in range(20):
            application.cursor().execute("SET lock_timeout = '300ms'; UPDATE items SET seen = 3 WHERE id = 2")
            time.sleep(0.05)
    finally:
        holder.rollback()
        waiting.join()
        next_one.rollback()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert "without making others queue" not in err
