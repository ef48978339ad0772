"""A runner that is killed, stopped or cut off while it knocks, or while somebody waits for its revision."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.expect import AT_HEAD, succeeds, versions
from tests.support.load import Load, Waiter, waits
from tests.support.observe import finds_it_busy, running, sessions, wait_for
from tests.support.proxy import Proxy
from tests.support.server import Database
from tests.support.shop import Shop, snapshot

MAX_STALL = "300ms"
NOW_3 = (["003"], [(3, False)])
ADD_COLUMN = "op.execute('ALTER TABLE items ADD COLUMN a integer')"
HOLDING = "op.execute('LOCK TABLE items')\nop.execute('SELECT until_told()')"
SLOW_BACKFILL = (
    "CREATE TRIGGER slow BEFORE UPDATE OF label ON items FOR EACH ROW EXECUTE FUNCTION slow_row(0.03)"
)
BACKFILL = 'op.backfill("items", "label = \'new\'", "label = \'old\'")'


def knocks(_: Database, process: Any) -> None:
    """The run asks again and again for a table that a report uses."""
    finds_it_busy(process)
    time.sleep(0.3)


def makes_somebody_wait(database: Database, _: Any) -> None:
    """Somebody has waited for half of the budget."""
    running(database, "until_told")
    Waiter(database, "SELECT count(*) FROM items")
    time.sleep(0.15)


def is_being_stopped(database: Database, _: Any) -> None:
    """Somebody has waited for the budget: the cancellation is under way, or has just been."""
    running(database, "until_told")
    waiter = Waiter(database, "SELECT count(*) FROM items")
    wait_for("the end of the wait", lambda: not waits(database, waiter.pid))


def has_halved_a_batch(database: Database, _: Any) -> None:
    """A batch of the backfill was cancelled, and the next one runs."""
    running(database, "UPDATE ONLY items")
    Waiter(database, "UPDATE items SET label = label WHERE id = 1")
    wait_for("the batch", lambda: not running_for(database, 0.3))
    running(database, "UPDATE ONLY items")


def running_for(database: Database, seconds: float) -> bool:
    return bool(
        database.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
            "AND query LIKE '%%UPDATE ONLY items%%' AND application_name LIKE 'guvnor %%' "
            "AND query_start < clock_timestamp() - %s * interval '1 second'",
            [seconds],
        )
    )


MOMENTS: dict[str, tuple[Callable[[Database, Any], None], str]] = {
    "knocking": (knocks, ADD_COLUMN),
    "somebody waits": (makes_somebody_wait, HOLDING),
    "being stopped": (is_being_stopped, HOLDING),
    "halving": (has_halved_a_batch, BACKFILL),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_the_next_run_goes_on(shop: Shop, moment: str, number: signal.Signals) -> None:
    comes, body = MOMENTS[moment]
    shop.database.execute(SLOW_BACKFILL)
    report = shop.database.connect()
    if moment == "knocking":
        report.autocommit = False
        report.cursor().execute("SELECT count(*) FROM items")
    shop.revise(body)
    process = shop.start(max_stall=MAX_STALL)
    comes(shop.database, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    codes = {signal.SIGKILL: (-9, 9), signal.SIGTERM: (143, 9)}  # 9: it had just been stopped
    assert process.returncode in codes[number], out + err
    wait_for("the end of its sessions", lambda: sessions(shop.database) == 0)
    report.rollback()
    if moment != "halving":
        assert versions(shop.database) == AT_HEAD
    shop.tell()
    with Load(shop.database) as load:
        succeeds(shop.run(max_stall=MAX_STALL))
    assert load.longest < 0.8
    assert versions(shop.database) == NOW_3


def test_who_waits_for_a_runner_that_was_killed_does_not_wait_for_its_statement(shop: Shop) -> None:
    """Nobody is there to cancel it: the server looks every 500 ms whether its client is."""
    shop.revise(HOLDING)
    process = shop.start(max_stall="10s")
    running(shop.database, "until_told")
    waiter = Waiter(shop.database, "SELECT count(*) FROM items")
    process.send_signal(signal.SIGKILL)
    waiter.join(10)
    assert not waiter.is_alive()
    assert time.monotonic() - waiter.began < 0.5 + 0.7


@pytest.mark.parametrize("moment", ["knocking", "somebody waits"])
def test_the_next_run_goes_on_after_one_that_lost_its_network(shop: Shop, moment: str) -> None:
    comes, body = MOMENTS[moment]
    before = snapshot(shop.database)
    report = shop.database.connect()
    if moment == "knocking":
        report.autocommit = False
        report.cursor().execute("SELECT count(*) FROM items")
    shop.revise(body)
    with Proxy(shop.database) as proxy:
        process = shop.start(max_stall=MAX_STALL, dsn=proxy.dsn)
        comes(shop.database, process)
        proxy.freeze()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert process.returncode in (1, 143), out + err
        assert "Traceback" not in err
    wait_for("the end of its sessions", lambda: sessions(shop.database) == 0)
    report.rollback()
    assert snapshot(shop.database) == before
    assert versions(shop.database) == AT_HEAD
    shop.tell()
    succeeds(shop.run(max_stall=MAX_STALL))
    assert versions(shop.database) == NOW_3
