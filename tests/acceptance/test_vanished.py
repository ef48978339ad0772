"""A runner that is frozen, or gone, or without its network: its locks end, signals work, others are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guvnor import config
from guvnor.commands import migrate
from guvnor.database import Database as ConfiguredDatabase
from guvnor.migrate import heartbeat, locks
from guvnor.reports import status as status_report
from tests.support.command import CHECKOUT
from tests.support.expect import AT_HEAD, ends, succeeds, versions
from tests.support.forked import ForkedCommand
from tests.support.observe import running, wait_for
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.server import Database, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back

# A revision between two statements.
IDLE = """
    SELECT pid FROM pg_stat_activity
    WHERE state = 'idle in transaction' AND query LIKE 'LOCK TABLE%' AND datname = current_database()
"""


def test_both_ends_notice_that_the_other_is_gone(database: Database) -> None:
    connection = ConfiguredDatabase(database.dsn_with(host="127.0.0.1")).connect("test")
    for name, value in (
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "4"),
        ("tcp_user_timeout", "30000"),
        ("idle_in_transaction_session_timeout", "0"),
    ):
        assert run(connection, f"SHOW {name}") == [(value,)]
    with socket.socket(fileno=socket.dup(connection.info.socket)) as client:
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30000
    connection.close()


def test_what_the_connection_string_says_about_keepalives_wins(database: Database) -> None:
    dsn = database.dsn_with(host="127.0.0.1", keepalives_idle=77)
    connection = ConfiguredDatabase(dsn).connect("test")
    with socket.socket(fileno=socket.dup(connection.info.socket)) as client:
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    connection.close()


def test_only_a_revision_s_session_may_not_idle_in_a_transaction(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    check = """
        DO $$
        BEGIN
            IF current_setting('idle_in_transaction_session_timeout') <> '1min' THEN
                RAISE EXCEPTION 'it is %', current_setting('idle_in_transaction_session_timeout');
            END IF;
        END
        $$
    """
    project.add_revision(
        f"op.execute({check!r})\nop.add_enum_value('severity_x', 'b')\nop.execute({check!r})",
        downgrade=BACK,
        python=True,
    )
    migrated.execute("CREATE TYPE severity_x AS ENUM ('a')")
    succeeds(guvnor("migrate", "up", "--no-verify", database=migrated, cwd=project.directory))


def test_a_revision_that_idles_too_long_loses_its_locks_and_is_told_what_to_say(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    path = project.add_revision(
        "import time\nop.execute('LOCK TABLE incidents')\ntime.sleep(1.5)\nop.execute('SELECT 1')",
        downgrade=BACK,
        python=True,
    )
    source = path.read_text()
    path.write_text(f'{source}\n\nmax_idle = "200ms"  # this is a test\n')
    result = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(result, 1, "idle for 0.2 s", 'max_idle = "10min"', "as it was before it (version 2)")
    assert versions(migrated) == AT_HEAD
    path.write_text(f'{source}\n\nmax_idle = "soon"\n')
    ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 3, "max_idle", "soon")
    path.write_text(f'{source}\n\nmax_idle = "10min"\n')
    told = guvnor("migrate", "up", database=migrated, cwd=project.directory)
    ends(told, 3, f"{path.name} does not say why it needs max_idle = '10min'", 'max_idle = "10min"  # why')
    path.write_text(f'{source}\n\nmax_idle = "10min"  # it sleeps\n')
    succeeds(guvnor("migrate", "up", "--no-verify", database=migrated, cwd=project.directory))


def test_a_frozen_runner_lets_go_and_is_told_from_one_at_work(
    guvnor: ForkedCommand, migrated: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.add_revision(
        "import time\nop.execute('LOCK TABLE incidents')\ntime.sleep(5)\nop.execute('SELECT 1')",
        downgrade=BACK,
        python=True,
    )
    path.write_text(f'{path.read_text()}\n\nmax_idle = "3s"  # this is a test\n')
    process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    ((revision,),) = wait_for("the lock", lambda: migrated.execute(IDLE))
    settings = config.load(environment={"GUVNOR_STORAGE_DSN": migrated.dsn})

    def lines() -> str:
        return "\n".join(status_report.lines(settings, migrate.status(settings)))

    assert "Running: another migration is at work" in lines()
    process.send_signal(signal.SIGSTOP)
    try:
        reader = migrated.connect(options="-c statement_timeout=15s")
        run(reader, "SELECT count(*) FROM incidents")  # the server has ended the session
        time.sleep(0.2)
        monkeypatch.setattr(locks, "_SILENT_MOST", 0.1)
        holder = locks.holder(reader, locks.RUN_LOCK)
        assert holder is not None
        told = lines()
        assert "no sign of life" in told
        assert holder.ends_it in told
        assert str(holder.pid) in holder.ends_it
        assert revision not in holder.others  # it is gone
    finally:
        process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1, out + err
    assert "Traceback" not in err
    assert versions(migrated) == AT_HEAD


def test_who_waits_for_a_silent_runner_is_told_how_to_end_both_its_sessions(
    guvnor: ForkedCommand, migrated: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_revision("SELECT pg_sleep(60)")
    process = guvnor.start("migrate", "up", database=migrated, cwd=project.directory)
    revision = running(migrated, "pg_sleep")
    process.send_signal(signal.SIGSTOP)
    waiter = migrated.connect()
    monkeypatch.setattr(locks, "_SILENT_MOST", 0.1)
    time.sleep(0.2)
    with pytest.raises(locks.LockTimeoutError, match="no sign of life") as raised:
        locks.AdvisoryLock(waiter, locks.RUN_LOCK, "another migration").take(0)
    ends_it = (raised.value.next_step or "").splitlines()[1].partition(";")[0]
    assert str(revision) in ends_it
    run(waiter, ends_it)
    wait_for("the run lock", lambda: locks.holder(waiter, locks.RUN_LOCK) is None)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=20)
    assert process.returncode == 1


def test_a_runner_at_work_gives_signs_of_life(migrated: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other session is busy; this one has nothing to do."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    connection = migrated.connect()
    observer = migrated.connect()
    run(connection, "SELECT pg_advisory_lock(%s)", [locks.RUN_LOCK])
    with heartbeat.beating(connection):
        time.sleep(0.6)
        holder = locks.holder(observer, locks.RUN_LOCK)
    assert holder is not None
    assert holder.silent is not None
    assert holder.silent < 0.5


@pytest.mark.exhaustive  # half a minute each
@pytest.mark.parametrize("what", ["network", "machine"])
def test_neither_end_waits_for_hours_for_the_other(tmp_path: Path, what: str) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root, unshare and ip")
    command = ["unshare", "--net", sys.executable, "-m", "tests.support.vanish", str(tmp_path), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=CHECKOUT, check=True)
    found = json.loads(done.stdout)
    assert 15 < found["sessions"] < 40
    if what == "network":
        assert found["code"] == 1
        assert found["runner"] < 40
        assert "connection to the database was lost" in found["err"]
        assert "The state could not be read: the server does not answer" in found["err"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_whose_network_is_gone(
    guvnor: ForkedCommand, migrated: Database, project: Project, number: signal.Signals, code: int
) -> None:
    project.add_revision("SELECT pg_sleep(60)")
    with Proxy(migrated) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn, cwd=project.directory)
        running(migrated, "pg_sleep")
        proxy.freeze()
        process.send_signal(number)
        began = time.monotonic()
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 9.5  # before Docker kills it
    assert process.returncode == code, err
    assert f"did not answer within 7 s of {number.name}" in err
    assert "The state could not be read: the server does not answer" in err
    assert "Traceback" not in err
