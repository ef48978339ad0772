"""Revisions that would make the application wait: stopped by the budget, undone, explained, and put right."""

from __future__ import annotations

import re

import pytest

from tests.support.command import Result
from tests.support.dangerous import DANGEROUS, Dangerous
from tests.support.expect import AT_HEAD, ends, next_step, succeeds, versions
from tests.support.load import NAME, Load
from tests.support.shop import BACK, Shop, snapshot

BUDGET = 0.3  # seconds
MAX_STALL = "300ms"
# What nobody stops makes the application wait for 2 s. On a machine that is busy with other tests, a thread
# or a process may come late by some tenths of a second; the exhaustive test asks for 0.1 s.
AT_MOST = BUDGET + 0.5


@pytest.fixture(params=DANGEROUS)
def case(request: pytest.FixtureRequest) -> Dangerous:
    return DANGEROUS[request.param]


def explains(result: Result, case: Dangerous, load: Load) -> None:
    """Expect exit code 9, and who waited, how long, behind which statement and lock, and what to write."""
    ends(result, 9, "would make the application wait", case.statement)
    told = result.plain + result.err
    waiters = {int(pid) for pid in re.findall(r"pid (\d+)", told)}
    assert waiters & load.pids, told
    assert NAME in told, told
    assert re.search(r"\b\d+ ms\b|\b\d+\.\d+ s\b", told), told
    assert re.search(case.lock, told), told
    assert "items" in told, told
    assert case.instead in "\n".join(next_step(result)), told


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_it_is_stopped_and_undone_and_goes_through_once_corrected(
    shop: Shop, case: Dangerous, tool: str
) -> None:
    shop.database.execute(case.prepare)
    before = snapshot(shop.database)
    shop.revise(case.body)
    with Load(shop.database) as load:
        result = shop.run(tool=tool, max_stall=MAX_STALL)
        explains(result, case, load)
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"
        assert snapshot(shop.database) == before
        shop.revise(case.corrected)
        if case.alone:
            ends(shop.run(), 5)
            succeeds(shop.run("--back", direction="repair"))
        assert versions(shop.database) == AT_HEAD
        if tool == "guvnor":
            succeeds(shop.run(max_stall=MAX_STALL))
            assert load.longest < AT_MOST, f"{load.longest:.3f} s"
            assert versions(shop.database) == (["003"], [(3, False)])


@pytest.mark.exhaustive  # a bound that holds on a machine that does nothing else
@pytest.mark.parametrize("budget", [0.2, 0.5])
def test_nobody_waits_longer_than_the_budget_and_100_ms(shop: Shop, case: Dangerous, budget: float) -> None:
    shop.database.execute(case.prepare)
    before = snapshot(shop.database)
    shop.revise(case.body)
    with Load(shop.database) as load:
        ends(shop.run(max_stall=f"{budget * 1000:.0f}ms"), 9)
        assert load.longest <= budget + 0.1, f"{load.longest:.3f} s"
    assert snapshot(shop.database) == before


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
@pytest.mark.parametrize("kind", ["create index", "update of half the table", "slow python"])
def test_a_downgrade_is_stopped_too(shop: Shop, kind: str, tool: str) -> None:
    case = DANGEROUS[kind]
    shop.database.execute(case.prepare)
    shop.revise(BACK, case.body)
    succeeds(shop.run())
    before = snapshot(shop.database)
    with Load(shop.database) as load:
        result = shop.run(tool=tool, direction="down", max_stall=MAX_STALL)
        explains(result, case, load)
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"
        assert snapshot(shop.database) == before
        assert versions(shop.database) == (["003"], [(3, False)])
        shop.revise(BACK, case.corrected)
        succeeds(shop.run(tool=tool, direction="down", max_stall=MAX_STALL))
    assert versions(shop.database) == AT_HEAD


def test_it_is_not_tried_again(shop: Shop) -> None:
    shop.revise(DANGEROUS["check"].body)
    with Load(shop.database):
        ends(shop.run(max_stall=MAX_STALL), 9)
    ((tries,),) = shop.database.execute(
        "SELECT tries FROM guvnor_migration_history WHERE revision = '003' AND event = 'failed'"
    )
    assert tries == 1
