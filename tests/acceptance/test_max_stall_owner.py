"""The budget for an owner that may not see what other sessions do, by a role that acts as it."""

from __future__ import annotations

import time

import pytest

from tests.support.command import Command
from tests.support.dangerous import DANGEROUS
from tests.support.expect import AT_HEAD, ends, succeeds, versions
from tests.support.forked import ForkedCommand
from tests.support.load import Load, Waiter
from tests.support.observe import running
from tests.support.project import Project
from tests.support.server import Server
from tests.support.shop import Owned, Shop, owned_template, snapshot

MAX_STALL = "300ms"
AT_MOST = 0.8  # seconds; a loose bound for a busy machine: the work takes 2 s


@pytest.fixture(scope="module")
def owned(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return owned_template(server, ForkedCommand("guvnor", tmp_path_factory.mktemp("owned")))


@pytest.fixture
def shop(
    server: Server, _tidy: None, owned: Owned, project: Project, guvnor: Command, alembic: Command
) -> Shop:
    database = server.create_database(owned.database, owner=owned.owner)
    env = {"GUVNOR_VERIFY": "no", "GUVNOR_STORAGE_ROLE": owned.owner.name}
    return Shop(database, project, guvnor, alembic, database.dsn_with(owned.migrator), env)


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
@pytest.mark.parametrize(
    "kind", ["create index", "update of half the table", "row locks of a long update", "slow python"]
)
def test_it_is_stopped_and_undone_and_goes_through_once_corrected(shop: Shop, kind: str, tool: str) -> None:
    case = DANGEROUS[kind]
    as_owner(shop, case.prepare)
    before = snapshot(shop.database)
    shop.revise(case.body)
    with Load(shop.database) as load:
        result = shop.run(tool=tool, max_stall=MAX_STALL)
        ends(result, 9, "would make the application wait", case.statement)
        assert any(f"pid {pid}" in result.plain + result.err for pid in load.pids), result
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"
        assert snapshot(shop.database) == before
        assert versions(shop.database) == AT_HEAD
        shop.revise(case.corrected)
        succeeds(shop.run(tool=tool, max_stall=MAX_STALL))
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"


def as_owner(shop: Shop, sql: str) -> None:
    shop.database.execute(f'SET ROLE "{shop.env["GUVNOR_STORAGE_ROLE"]}"; {sql}')


@pytest.mark.exhaustive  # a bound that holds on a machine that does nothing else
@pytest.mark.parametrize("kind", DANGEROUS)
def test_nobody_waits_longer_than_the_budget_and_100_ms(shop: Shop, kind: str) -> None:
    case = DANGEROUS[kind]
    as_owner(shop, case.prepare)
    shop.revise(case.body)
    with Load(shop.database) as load:
        ends(shop.run(max_stall="500ms"), 9)
        assert load.longest <= 0.5 + 0.1, f"{load.longest:.3f} s"


def test_a_stall_that_is_within_the_budget_is_recorded(shop: Shop) -> None:
    shop.revise("op.execute('LOCK TABLE items')\nop.execute('SELECT until_told()')")
    with Load(shop.database, sessions=1):
        process = shop.start(max_stall="10s")
        running(shop.database, "until_told")
        time.sleep(0.4)
        shop.tell()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, out + err
    milliseconds, sessions, statement = shop.stalled()
    assert 250 <= milliseconds <= 1500
    assert sessions == 1
    assert "until_told" in statement


def test_whom_another_session_holds_up_as_well_does_not_count(shop: Shop) -> None:
    report = shop.database.connect()
    report.autocommit = False
    report.cursor().execute("SELECT count(*) FROM items")
    shop.revise("op.execute('SELECT count(*) FROM items')\nop.execute('SELECT until_told()')")
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    Waiter(shop.database, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
    time.sleep(0.9)
    assert process.poll() is None, process.communicate()
    shop.tell()
    out, err = process.communicate(timeout=20)
    report.rollback()
    assert process.returncode == 0, out + err


@pytest.mark.parametrize("sees", [False, True])
def test_preflight_says_what_the_watch_cannot_see(shop: Shop, server: Server, sees: bool) -> None:
    owner = shop.env["GUVNOR_STORAGE_ROLE"]
    if sees:
        server.execute(f'GRANT pg_read_all_stats TO "{owner}"')
    try:
        result = succeeds(shop.run(direction="preflight"))
    finally:
        server.execute(f'REVOKE pg_read_all_stats FROM "{owner}"')
    warned = [line for line in (result.plain + result.err).splitlines() if "pg_read_all_stats" in line]
    assert bool(warned) != sees, result
