"""Who counts as made to wait by a revision, who does not, and a watch that cannot tell."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from guvnor.migrate.locks import golang_keys
from tests.support import autovacuum
from tests.support.expect import AT_HEAD, succeeds, versions
from tests.support.golang import Golang
from tests.support.load import Load, Waiter
from tests.support.observe import running, wait_for
from tests.support.server import Database, Server
from tests.support.shop import Shop, snapshot

MAX_STALL = "300ms"
LONG = 0.9  # seconds: three times the budget
NOW_3 = (["003"], [(3, False)])
WATCH = "SELECT pid FROM pg_stat_activity WHERE {} AND application_name LIKE 'guvnor %%watch'"
OURS = "datname = current_database()"


def holding(*statements: str) -> str:
    """The body of a revision that keeps the locks of statements until the test says so."""
    return "\n".join(f"op.execute({sql!r})" for sql in (*statements, "SELECT until_told()"))


def ended(process: Any, code: int, *texts: str, timeout: float = 20) -> str:
    """Wait for the end of a command, and expect an exit code and some texts."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}{err}"
    for text in texts:
        assert text in out + err, f"{text!r} is missing in\n{out}{err}"
    return str(out + err)


def goes_through(shop: Shop, process: Any) -> None:
    """Let the revision hold its locks for three budgets, and expect that nobody stops it."""
    time.sleep(LONG)
    assert process.poll() is None, process.communicate()
    shop.tell()
    ended(process, 0)
    assert versions(shop.database) == NOW_3


# -- who counts --


@pytest.mark.parametrize(
    ("ours", "its"),
    [
        ("SELECT count(*) FROM items", "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"),
        (
            "LOCK TABLE items IN SHARE MODE",
            "DELETE FROM notes WHERE item_id = 3; DELETE FROM items WHERE id = 3",
        ),
        ("SELECT FROM items WHERE id = 3 FOR UPDATE", "UPDATE items SET seen = 0 WHERE id = 3"),
        ("SELECT pg_advisory_xact_lock(4711)", "SELECT pg_advisory_xact_lock(4711)"),
    ],
    ids=["table", "writes", "row", "advisory lock"],
)
def test_who_waits_for_the_revision_alone_counts(shop: Shop, ours: str, its: str) -> None:
    shop.revise(holding(ours))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    waiter = Waiter(shop.database, its)
    ended(process, 9, "would make the application wait", f"pid {waiter.pid}")
    assert versions(shop.database) == AT_HEAD


def test_who_queues_behind_a_waiter_counts(shop: Shop) -> None:
    """The revision's lock is harmless to it; that of the waiter before it is not."""
    shop.revise(holding("SELECT count(*) FROM items"))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    Waiter(shop.database, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
    Waiter(shop.database, "SELECT count(*) FROM items")
    ended(process, 9, "would make the application wait")


@pytest.mark.parametrize(
    ("others", "ours", "its"),
    [
        (
            "SELECT count(*) FROM items",
            "SELECT count(*) FROM items",
            "LOCK TABLE items IN ACCESS EXCLUSIVE MODE",
        ),
        (
            "SELECT FROM items WHERE id = 3 FOR SHARE",
            "SELECT FROM items WHERE id = 3 FOR SHARE",
            "UPDATE items SET seen = 0 WHERE id = 3",
        ),
        (
            "SELECT pg_advisory_xact_lock_shared(4711)",
            "SELECT pg_advisory_xact_lock_shared(4711)",
            "SELECT pg_advisory_xact_lock(4711)",
        ),
    ],
    ids=["table", "row", "advisory lock"],
)
def test_whom_another_session_holds_up_as_well_does_not_count(
    shop: Shop, others: str, ours: str, its: str
) -> None:
    report = shop.database.connect()
    report.autocommit = False
    report.cursor().execute(others)
    shop.revise(holding(ours))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    Waiter(shop.database, its)
    goes_through(shop, process)
    report.rollback()


def test_who_waited_before_the_revision_does_not_count(shop: Shop) -> None:
    """It waits for somebody else's row lock, on a table that the revision uses, too."""
    other = shop.database.connect()
    other.autocommit = False
    other.cursor().execute("SELECT FROM items WHERE id = 3 FOR UPDATE")
    Waiter(shop.database, "UPDATE items SET seen = 0 WHERE id = 3")
    shop.revise(holding("UPDATE items SET label = 'new' WHERE id = 4"))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    goes_through(shop, process)
    other.rollback()


def test_other_migrators_do_not_count(shop: Shop) -> None:
    """A second run; golang-migrate, waiting for its lock; and one that waits to write its row."""
    shop.revise(holding("LOCK TABLE items"))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    second = shop.start(max_stall=MAX_STALL)
    assert any("waiting" in line for line in second.stderr)
    key = golang_keys(shop.database.name)[0]
    Waiter(shop.database, f"SELECT pg_advisory_xact_lock({key})")
    Waiter(shop.database, "UPDATE alembic_version SET version_num = version_num")
    goes_through(shop, process)
    ended(second, 0, "No change")


def test_the_real_golang_migrate_does_not_count(shop: Shop, golang: Golang) -> None:
    shop.revise(holding("LOCK TABLE items"))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    other = golang.start(shop.database, "version")
    upwards = golang.start(shop.database, "up")
    try:
        wait_for(
            "golang-migrate",
            lambda: shop.database.execute(
                f"SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND {OURS}"
            ),
        )
        goes_through(shop, process)
    finally:
        for started in (other, upwards):
            started.kill()
            started.communicate()


def test_autovacuum_does_not_count(shop: Shop, server: Server) -> None:
    """One against wraparound waits for its lock; others pass a locked table over."""
    autovacuum.use_up_transactions(shop.database, 110_000)
    shop.revise(holding("LOCK TABLE items IN SHARE UPDATE EXCLUSIVE MODE"))
    process = shop.start(max_stall=MAX_STALL)
    running(shop.database, "until_told")
    with autovacuum.eager(server):
        # ALTER TABLE would wait for the revision.
        shop.database.execute(
            "UPDATE pg_class SET reloptions = reloptions || '{autovacuum_freeze_max_age=100000}'::text[] "
            "WHERE oid = 'items'::regclass"
        )
        wait_for(
            "the autovacuum",
            lambda: shop.database.execute(
                "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted "
                "AND relation = 'items'::regclass AND backend_type = 'autovacuum worker'"
            ),
            seconds=40,
        )
        goes_through(shop, process)


def test_what_somebody_else_cancels_is_no_stall(shop: Shop) -> None:
    shop.revise(holding("LOCK TABLE items"))
    with Load(shop.database, sessions=1):
        process = shop.start(max_stall="10s")
        shop.database.execute("SELECT pg_cancel_backend(%s)", [running(shop.database, "until_told")])
        told = ended(process, 1, "somebody cancelled the statement on the server")
    assert "would make the application wait" not in told
    assert versions(shop.database) == AT_HEAD


# -- a watch that cannot tell --


def watch(database: Database) -> int:
    """Wait for the watch of a run, and return the pid of its backend."""
    ((pid,),) = wait_for("the watch", lambda: database.execute(WATCH.format(OURS), []))
    return int(pid)


IN_PYTHON = """
import time
op.execute("LOCK TABLE items")
if not op.get_context().as_sql:
    time.sleep(2)
op.execute("SELECT until_told()")
"""


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
@pytest.mark.parametrize("body", [holding("LOCK TABLE items"), IN_PYTHON], ids=["statement", "python"])
def test_without_its_watch_a_revision_is_not_run(shop: Shop, body: str, tool: str) -> None:
    before = snapshot(shop.database)
    shop.revise(body)
    process = shop.start(tool=tool, max_stall=MAX_STALL)
    revision = locked_by(shop.database)
    shop.database.execute("SELECT pg_terminate_backend(%s)", [watch(shop.database)])
    wait_for("the end of the lock", lambda: locked_by(shop.database, 0) != revision, seconds=2)
    ended(process, 1, "watch was lost", "rolled back")
    assert snapshot(shop.database) == before
    assert versions(shop.database) == AT_HEAD
    shop.tell()
    succeeds(shop.run(tool=tool, max_stall=MAX_STALL))
    assert versions(shop.database) == NOW_3


def locked_by(database: Database, seconds: float = 20) -> int | None:
    """Return the pid of the session of guvnor that has locked items; None for none within the time."""
    sql = (
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'items'::regclass "
        "AND granted AND mode = 'AccessExclusiveLock' AND application_name LIKE 'guvnor %'"
    )
    if not seconds:
        return next((int(pid) for (pid,) in database.execute(sql)), None)
    return int(wait_for("the lock", lambda: database.execute(sql), seconds)[0][0])


@pytest.mark.parametrize("statement", ["SELECT until_told()", "python"])
def test_a_watch_that_does_not_answer_ends_the_revision(shop: Shop, statement: str) -> None:
    before = snapshot(shop.database)
    shop.revise(IN_PYTHON if statement == "python" else holding("LOCK TABLE items"))
    process = shop.start(max_stall="500ms")
    revision = locked_by(shop.database)
    stopped = watch(shop.database)
    try:
        os.kill(stopped, signal.SIGSTOP)
    except (ProcessLookupError, PermissionError):
        process.kill()
        pytest.skip("the server's processes are out of reach")
    began = time.monotonic()
    try:
        wait_for("the end of the lock", lambda: locked_by(shop.database, 0) != revision)
        assert time.monotonic() - began < 0.5 + 0.7
        ended(process, 1, "watch was lost", "rolled back")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert snapshot(shop.database) == before
    assert versions(shop.database) == AT_HEAD


def test_off_stops_nothing_and_records_the_stall(shop: Shop) -> None:
    shop.revise(holding("LOCK TABLE items"))
    with Load(shop.database, sessions=2) as load:
        process = shop.start(max_stall="off")
        running(shop.database, "until_told")
        time.sleep(LONG)
        shop.tell()
        ended(process, 0)
    milliseconds, sessions, statement = shop.stalled()
    assert LONG * 1000 - 100 <= milliseconds <= load.longest * 1000 + 100
    assert sessions == 2
    assert "until_told" in statement
