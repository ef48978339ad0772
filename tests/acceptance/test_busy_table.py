"""Tables that others hold: does the application go on, are the blockers named, and does the run end well?"""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from psycopg2.extensions import connection

from tests.support import facts, sample_data
from tests.support.command import Command, Result
from tests.support.observe import wait_for, waiting_for_lock
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.server import Database, run

REPORT = "nightly report"
BACK = "op.execute('SELECT 1')"  # every revision has a way back


def hold(database: Database, statement: str, application: str = REPORT) -> connection:
    """Open a transaction that keeps the locks of a statement until it is rolled back."""
    session = database.connect(application_name=application)
    run(session, "BEGIN")
    run(session, statement)
    return session


def application_queries(session: connection) -> float:
    """Do once what the application does all the time; return how long it took, in seconds."""
    began = time.monotonic()
    run(session, "INSERT INTO incidents (title, severity, team_id) VALUES ('Slow again', 'low', 'payments')")
    run(session, "SELECT id, title FROM incidents WHERE team_id = 'payments' ORDER BY created_at LIMIT 50")
    return time.monotonic() - began


def test_the_application_goes_on_behind_a_long_query(at_version_1: Database, guvnor: Command) -> None:
    sample_data.fill(at_version_1)
    report = hold(at_version_1, "SELECT count(*) FROM incidents")
    application = at_version_1.connect()
    process = guvnor.start("migrate", "up", database=at_version_1)
    assert process.stderr is not None
    first_wait = next(line for line in process.stderr if "could not get a lock" in line)
    held_until = time.monotonic() + 4
    longest, rounds = 0.0, 0
    while time.monotonic() < held_until:
        longest = max(longest, application_queries(application))
        rounds += 1
    assert process.poll() is None  # it is still trying
    run(report, "ROLLBACK")
    while process.poll() is None:
        longest = max(longest, application_queries(application))
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    # Queries queue for no longer than one try waits, 0.2 s; a run that waited for the report would take 4 s.
    assert longest < 2, f"{longest:.2f} s, {rounds} rounds"
    assert rounds > 5
    assert f"pid {report.info.backend_pid}" in first_wait
    assert REPORT in first_wait
    assert "count(*)" not in first_wait + err  # the text of a query may hold data
    assert "tries" in out
    assert at_version_1.execute("SELECT version_num FROM alembic_version") == [("002",)]


def gives_up(tool: str, database: Database, guvnor: Command, alembic: Command) -> Result:
    if tool == "guvnor":
        return guvnor("migrate", "up", "--max-wait", "700ms", database=database)
    return alembic("upgrade", "head", database=database, env={"GUVNOR_MAX_WAIT": "700ms"})


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_gives_up_at_the_deadline(
    at_version_1: Database, guvnor: Command, alembic: Command, tool: str
) -> None:
    sample_data.fill(at_version_1)
    connection = at_version_1.connect()
    before = facts.details(connection), sample_data.contents(at_version_1)
    report = hold(at_version_1, "SELECT count(*) FROM incidents")
    result = gives_up(tool, at_version_1, guvnor, alembic)
    assert result.code == 7, result
    assert f"pid {report.info.backend_pid}" in result.err
    assert REPORT in result.err
    assert "idle in transaction" in result.err
    assert f"SELECT pg_cancel_backend({report.info.backend_pid})" not in result.err  # it runs no query
    assert f"SELECT pg_terminate_backend({report.info.backend_pid})" in result.err
    assert (facts.details(connection), sample_data.contents(at_version_1)) == before
    assert at_version_1.execute("SELECT version, dirty FROM schema_migrations") == [(1, False)]
    ((event, code),) = at_version_1.execute(
        "SELECT event, sqlstate FROM guvnor_migration_history "
        "WHERE revision = '002' AND event NOT IN ('started', 'measured')"
    )
    assert (event, code) in [("failed", None), ("failed", "55P03")]
    run(report, "ROLLBACK")
    assert guvnor("migrate", "up", database=at_version_1).code == 0


def test_a_try_waits_no_longer_in_all_than_for_one_lock(
    at_version_1: Database, guvnor: Command, project: Project
) -> None:
    """Eight tables, each held until somebody has waited 40 ms for it: no try may sit all of them out."""
    tables = [f"busy_{number}" for number in range(1, 9)]
    at_version_1.execute(";".join(f"CREATE TABLE {table} ()" for table in ["busy_0", *tables]))
    project.add_revision("SELECT 1", number=2)  # in place of the real one
    for path in project.versions.glob("002_add*"):
        path.unlink()
    project.add_revision(
        "\n".join(f"op.execute('ALTER TABLE {table} ADD COLUMN a integer')" for table in ["busy_0", *tables]),
        downgrade=BACK,
        python=True,
    )
    holders = {table: hold(at_version_1, f"SELECT FROM {table}") for table in tables}
    observer = at_version_1.connect()
    waited_out: Counter[str] = Counter()
    process = guvnor.start("migrate", "up", database=at_version_1, cwd=project.directory)
    while holders and process.poll() is None:
        for table, holder in list(holders.items()):
            if waiting := waiting_for_lock(observer, table):
                time.sleep(0.04)
                run(holder, "ROLLBACK")
                del holders[table]
                waited_out[waiting[0][1]] += 1
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert sum(waited_out.values()) == len(tables)
    # At most 0.2 s a try, that is five times 40 ms. A timeout for each statement would allow all eight.
    assert max(waited_out.values()) <= 5, waited_out


def test_a_deadlock_is_tried_again(at_version_1: Database, guvnor: Command, project: Project) -> None:
    at_version_1.execute(f"ALTER DATABASE \"{at_version_1.name}\" SET deadlock_timeout = '5ms'")
    project.add_revision(
        "op.execute('ALTER TABLE incidents ADD COLUMN a integer')\n"
        "op.execute('ALTER TABLE events ADD COLUMN a integer')",
        downgrade=BACK,
        python=True,
    )
    other = at_version_1.connect(options="-c deadlock_timeout=1min")
    with Proxy(at_version_1, lambda message: message.text.startswith("ALTER TABLE events")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn, cwd=project.directory)
        assert proxy.wait_until_stopped()  # it has the lock on incidents
        run(other, "BEGIN")
        run(other, "SELECT count(*) FROM events")
        reader = threading.Thread(target=run, args=(other, "SELECT count(*) FROM incidents"))
        reader.start()
        wait_for("the other session", lambda: waiting_for_lock(at_version_1.connect(), "incidents"))
        proxy.go_on()
        reader.join()
        run(other, "COMMIT")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "deadlock" in err
    assert at_version_1.execute("SELECT version_num FROM alembic_version") == [("003",)]


def test_timeouts_that_a_role_sets_do_not_end_a_run(
    at_version_1: Database, guvnor: Command, project: Project
) -> None:
    settings = ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    if at_version_1.connect().server_version >= 170000:
        settings.append("transaction_timeout")
    for setting in settings:
        at_version_1.execute(f"ALTER DATABASE \"{at_version_1.name}\" SET {setting} = '150ms'")
    project.add_revision(
        "import time\n"
        "op.execute('SELECT pg_sleep(0.4)')\n"
        "time.sleep(0.4)\n"
        "sql = 'CREATE INDEX CONCURRENTLY idx_slow ON incidents (slow(title))'\n"
        "op.create_index_concurrently('idx_slow', sql)",
        downgrade=BACK,
        python=True,
    )
    sample_data.fill(at_version_1)
    at_version_1.execute("""
        CREATE FUNCTION slow(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 FROM pg_sleep(0.2)'
    """)
    result = guvnor("migrate", "up", database=at_version_1, cwd=project.directory)
    assert result.code == 0, result
    assert at_version_1.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_slow'::regclass"
    ) == [(True,)]


def test_the_version_table_itself_is_locked(at_version_1: Database, guvnor: Command) -> None:
    blocker = at_version_1.connect()
    run(blocker, "BEGIN")
    with Proxy(at_version_1, lambda message: "LOCK TABLE public.alembic_version" in message.text) as proxy:
        process = guvnor.start("migrate", "up", "--max-wait", "1s", "--no-verify", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        run(blocker, "LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        proxy.go_on()
        try:
            out, err = process.communicate(timeout=10)
        finally:
            run(blocker, "ROLLBACK")
    assert process.returncode == 7, out + err
    assert f"In the way: pid {blocker.info.backend_pid} on alembic_version (" in err
