"""How long the application stalls while revision 002 is applied.

pgbench plays the application (reads, inserts and updates of incidents, through prepared statements) at a
fixed rate, before, during and after the migration. A transaction counts from the moment when it was due, so
that one which could not even begin counts, too. Measured are: no migration, 002 as one transaction, 002 by
hand with psql (all but the index in one short transaction, then the index concurrently), and 002 by this
project; each also behind a report, a query that has `incidents` in use for 10 s, and while `incidents` is
being autovacuumed, so slowly that it would take hours. Every run has a fresh copy of the database.

Then (see ``budget.py``) revisions that hold their locks for as long as they take, with and without a stall
budget, on a table of as many rows; and the price of watching them.

    python benchmarks/stall.py [--incidents N] [--rate N] [--seconds N] [--rounds N] [--part PART]

A database of 5,000,000 incidents has 3 GB, and there are two of them at a time (below TMPDIR). The server
must be PostgreSQL 15 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import budget
import psycopg2
from setting import (
    OWNER,
    Server,
    call,
    ended_and_took,
    in_one_transaction,
    introduce,
    local_server,
    median,
    offline,
    program,
    script,
    start_load,
    table,
)

from guvnor.online import execute

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_filename": "server",
    "log_timezone": "UTC",
}
WARM_UP = 3.0  # seconds of load that do not count: connections and plans are made
COOL_DOWN = 1.0  # seconds of load that do not count: all clients leave at once, which stalls the last ones
REPORT = 10.0  # seconds
HEAD_START = 0.5  # seconds from the report's begin to the migration's
VACUUM = """
    ALTER TABLE incidents SET (
        autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1
    )
"""
VACUUM_BEGINS = 60.0  # seconds, at most, until autovacuum is at work
LOCKING = "ADD COLUMN escalation_policy_id"  # what is in the statement of 002 that locks incidents

NONE, ONE_TRANSACTION, GUVNOR = "no migration", "002 as one transaction", "002 by this project"
BY_HAND = "002 by hand, index concurrently"  # the least that PostgreSQL needs for it
QUIET, BEHIND_REPORT = "", f", behind a {REPORT:.0f} s report"
AUTOVACUUMED = ", while autovacuumed"
PARTS = ("budget", "price", "002")
SITUATIONS = (QUIET, BEHIND_REPORT, AUTOVACUUMED)

FILL = """
    INSERT INTO incidents (
        id, title, description, status, severity, team_id, assignee_id, service_id, labels,
        created_at, updated_at, resolved_at
    )
    SELECT
        md5(i::text)::uuid,
        'Incident ' || md5('title' || i),
        repeat('The checkout answers slowly. ', 4),
        CAST(
            CASE WHEN NOT open THEN 'resolved' WHEN i % 2 = 0 THEN 'triggered' ELSE 'acknowledged' END
            AS incident_status
        ),
        (ARRAY['critical', 'high', 'medium', 'low', 'info'])[1 + i % 5]::incident_severity,
        'team-' || i % {teams},
        CASE WHEN i % 3 = 0 THEN 'user-' || i % 1000 END,
        CASE WHEN i % 2 = 0 THEN 'service-' || i % 200 END,
        jsonb_build_object('environment', 'production', 'region', 'region-' || i % 20),
        at, at + interval '1 hour', CASE WHEN NOT open THEN at + interval '1 hour' END
    FROM (
        SELECT i, now() - i * interval '10 seconds' AS at, i / {teams} % 5 = 0 AS open
        FROM generate_series(1, {incidents}) AS i
    ) AS numbered
"""

# What the application does, with weights.
LOAD = {
    "list": (
        3,
        """
        \\set team random(0, {teams} - 1)
        SELECT id, title, description, status, severity, team_id, assignee_id, service_id, labels,
               created_at, updated_at, resolved_at
        FROM incidents
        WHERE team_id = concat('team-', :team::integer) AND status = ANY ('{{triggered,acknowledged}}')
        ORDER BY created_at DESC LIMIT 50 OFFSET 0;
        SELECT count(*)
        FROM incidents
        WHERE team_id = concat('team-', :team::integer) AND status = ANY ('{{triggered,acknowledged}}');
        """,
    ),
    "get": (
        4,
        """
        \\set incident random(1, {incidents})
        SELECT id, title, description, status, severity, team_id, assignee_id, service_id, labels,
               created_at, updated_at, resolved_at
        FROM incidents WHERE id = md5(:incident::text)::uuid;
        SELECT s.id, s.source, s.title, s.severity, s.received_at
        FROM signals AS s JOIN incident_signals AS i ON i.signal_id = s.id
        WHERE i.incident_id = md5(:incident::text)::uuid ORDER BY s.received_at;
        SELECT id, type, actor, description, metadata, occurred_at
        FROM events WHERE incident_id = md5(:incident::text)::uuid ORDER BY occurred_at;
        """,
    ),
    "insert": (
        2,
        """
        \\set team random(0, {teams} - 1)
        BEGIN;
        INSERT INTO incidents (title, description, severity, team_id, labels)
        VALUES ('A new incident', 'The checkout answers slowly.', 'high', concat('team-', :team::integer),
                '{{"environment": "production"}}')
        RETURNING id AS incident \\gset
        INSERT INTO signals (source, title, severity) VALUES ('prometheus', 'latency', 'high')
        RETURNING id AS signal \\gset
        INSERT INTO incident_signals (incident_id, signal_id) VALUES (:incident, :signal);
        INSERT INTO events (incident_id, type, actor, description)
        VALUES (:incident, 'created', 'prometheus', 'The incident was created.');
        COMMIT;
        """,
    ),
    "update": (
        2,
        """
        \\set incident random(1, {incidents})
        SELECT updated_at AS seen FROM incidents WHERE id = md5(:incident::text)::uuid \\gset
        BEGIN;
        UPDATE incidents SET assignee_id = 'user-1'
        WHERE id = md5(:incident::text)::uuid AND updated_at = :seen;
        INSERT INTO events (incident_id, type, actor, description)
        VALUES (md5(:incident::text)::uuid, 'assigned', 'user-1', 'The incident was assigned.');
        COMMIT;
        """,
    ),
}


@dataclass(frozen=True)
class Run:
    """What one run gave; durations in seconds.

    :ivar longest: the longest that a transaction of the application took.
    :ivar took: how long the migration took, its wait for the report included.
    :ivar locked: from the moment when incidents was locked to the end of the commit.
    """

    longest: float
    p99: float
    took: float = 0.0
    locked: float = 0.0


class Benchmark:
    """The server, the load, and the ways to apply revision 002."""

    def __init__(self, server: Server, scratch: Path, options: argparse.Namespace) -> None:
        self._server = server
        self._scratch = scratch
        self._options = options

    def prepare(self) -> None:
        """Make a database at version 1 with all incidents, and write the scripts."""
        server, sizes = self._server, self._sizes()
        server.create("version_1")
        self._migrate("version_1", "--to", "1")
        indexes = server.execute(
            """
            SELECT indexname, indexdef FROM pg_indexes
            WHERE schemaname = 'public' AND tablename = 'incidents' AND indexname <> 'incidents_pkey'
            """,
            "version_1",
        )
        # Building the indexes afterwards is many times quicker.
        server.execute(";".join(f"DROP INDEX {name}" for name, _ in indexes), "version_1")
        server.execute(FILL.format(**sizes), "version_1")
        server.execute(
            ";".join(["SET maintenance_work_mem = '1GB'", *(definition for _, definition in indexes)]),
            "version_1",
        )
        server.execute("VACUUM (FREEZE, ANALYZE)", "version_1")
        # What the migration runs goes to the server's log with its duration, and so does a wait for a lock
        # that is longer than deadlock_timeout.
        for setting in ("log_min_duration_statement = 0", "log_lock_waits = on", "deadlock_timeout = '1ms'"):
            server.execute(f"ALTER ROLE {OWNER} SET {setting}")
        for name, (_, sql) in LOAD.items():
            lines = (line.strip() for line in sql.format(**sizes).strip().splitlines())
            (self._scratch / f"{name}.sql").write_text("\n".join(lines) + "\n")
        (self._scratch / "002.sql").write_text(in_one_transaction("001:002"))
        (self._scratch / "by_hand.sql").write_text(offline("001:002"))

    def run(self, way: str, situation: str, number: int) -> Run:
        """Measure one way in one situation, on a fresh copy of the database."""
        server = self._server
        server.execute("DROP DATABASE IF EXISTS run WITH (FORCE)")
        # Copied file by file: through the write-ahead log, checkpoints would fall into the measured time.
        server.execute(f"CREATE DATABASE run OWNER {OWNER} TEMPLATE version_1 STRATEGY file_copy")
        server.execute("VACUUM (ANALYZE) incidents", "run")
        server.execute("CHECKPOINT")
        naptime = "1s" if situation == AUTOVACUUMED else "1h"
        server.execute(f"ALTER SYSTEM SET autovacuum_naptime = '{naptime}'")
        server.execute("SELECT pg_reload_conf()")
        if situation == AUTOVACUUMED:
            # Whoever waits for this long makes an autovacuum go; the role's own value shows waits in the log.
            server.execute(f"ALTER ROLE {OWNER} IN DATABASE run SET deadlock_timeout = '1s'")
            server.execute(VACUUM, "run")
        self._warm_up()
        log_position = self._log.stat().st_size

        began = time.time()
        weights = {name: weight for name, (weight, _) in LOAD.items()}
        load = start_load(self._server, self._scratch, weights, self._options, number)
        time.sleep(WARM_UP)
        reporting = threading.Thread(target=self._report)
        if situation == BEHIND_REPORT:
            reporting.start()
        elif situation == AUTOVACUUMED:
            self._await_autovacuum()
        time.sleep(HEAD_START)
        migration_began = time.time()
        if way == ONE_TRANSACTION:
            self._psql("-1", "-f", str(self._scratch / "002.sql"))
        elif way == BY_HAND:
            self._psql("-f", str(self._scratch / "by_hand.sql"))
        elif way == GUVNOR:
            self._migrate("run")
        migration_ended = time.time()
        if situation == BEHIND_REPORT:
            reporting.join()
        output, _ = load.communicate()
        if load.returncode != 0:
            raise SystemExit(f"The load failed:\n{output}")
        if migration_ended > began + self._options.seconds - 2 * COOL_DOWN:
            raise SystemExit(f"The load ended before the migration ({way}): raise --seconds.")

        measured_from = migration_began - HEAD_START if situation == AUTOVACUUMED else began + WARM_UP
        latencies = self._latencies(measured_from)
        result = Run(latencies[-1], latencies[math.ceil(len(latencies) * 0.99) - 1])
        if way == NONE:
            return result
        locked = self._locked(log_position)
        return Run(result.longest, result.p99, migration_ended - migration_began, locked)

    def build_index(self, raised: bool) -> tuple[float, str]:
        """Build an index over a filled column, with the server's own settings or as this project does.

        :returns: the seconds it took, and the settings.
        """
        name, sql = "on_title", "CREATE INDEX CONCURRENTLY IF NOT EXISTS on_title ON incidents (title)"
        self._server.execute("DROP INDEX IF EXISTS on_title", "version_1")
        self._server.execute("CHECKPOINT")
        with self._connection("version_1") as connection, self._connection("version_1") as onlooker:
            step = execute.OnlineStep(connection, onlooker, connection.info.backend_pid, name, lambda _: None)
            began = time.perf_counter()
            if raised:
                execute.create_index(step, name, sql)
            else:
                step.execute(sql)
            took = time.perf_counter() - began
            with connection.cursor() as cursor:
                cursor.execute(
                    """
                    SELECT format('maintenance_work_mem %s, %s parallel workers',
                                  current_setting('maintenance_work_mem'),
                                  current_setting('max_parallel_maintenance_workers'))
                    """
                )
                (settings,) = cursor.fetchone() or ("",)
        return took, settings

    # -- the parts of a run ----------------------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        incidents = self._options.incidents
        return {"incidents": incidents, "teams": max(1, incidents // 500)}

    def _warm_up(self) -> None:
        """Read the copy once, so that no run starts colder than another."""
        self._server.execute("SELECT count(*) FROM incidents WHERE length(description) > 0", "run")

    def _report(self) -> None:
        with self._connection("run") as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_sleep({REPORT}) FROM incidents LIMIT 1")

    def _await_autovacuum(self) -> None:
        """Wait until autovacuum, which the updates of the load bring about, is at work on incidents."""
        deadline = time.monotonic() + VACUUM_BEGINS
        at_work = """
            SELECT 1 FROM pg_stat_progress_vacuum JOIN pg_stat_activity AS a USING (pid)
            WHERE a.backend_type = 'autovacuum worker' AND relid = 'incidents'::regclass
        """
        while not self._server.execute(at_work, "run"):
            if time.monotonic() > deadline:
                raise SystemExit("Autovacuum has not begun with incidents: raise --seconds.")
            time.sleep(0.1)

    def _migrate(self, database: str, *arguments: str) -> None:
        call([script("guvnor"), "migrate", "up", *arguments], self._server.dsn(database))

    def _psql(self, *arguments: str) -> None:
        settings = ("-X", "-q", "-v", "ON_ERROR_STOP=1")
        call([program("psql"), *settings, *arguments, self._server.dsn("run")])

    def _connection(self, database: str) -> contextlib.closing[psycopg2.extensions.connection]:
        connection = psycopg2.connect(self._server.dsn(database))
        connection.autocommit = True
        return contextlib.closing(connection)

    # -- reading the results ---------------------------------------------------------------------------------

    def _latencies(self, since: float) -> list[float]:
        """Return how long each transaction took that was due after a moment and before the end, sorted."""
        transactions = ended_and_took(self._scratch)
        until = max(transactions)[0] - COOL_DOWN
        return sorted(took for ended, took in transactions if since <= ended - took < until)

    @property
    def _log(self) -> Path:
        return self._server.data / "log" / "server.json"

    def _locked(self, position: int) -> float:
        """Read from the server's log how long it took from the lock on incidents to the end of the commit.

        The statement that takes the lock is logged at its end, with its duration; where it had to wait, the
        moment when it had the lock is logged, too. Time stamps have a precision of a millisecond.
        """
        acquired = locked = None
        with self._log.open() as log:
            log.seek(position)
            for line in log:
                record = json.loads(line)
                if record.get("user") != OWNER:
                    continue
                at = datetime.strptime(record["timestamp"], "%Y-%m-%d %H:%M:%S.%f %Z")
                if "acquired AccessExclusiveLock" in record["message"]:
                    acquired = at
                found = re.match(r"duration: ([\d.]+) ms  statement: (.*)", record["message"], re.DOTALL)
                if found and LOCKING in found[2]:
                    began = at - timedelta(milliseconds=float(found[1]))
                    locked = max(began, acquired) if acquired else began
                elif found and found[2].strip(" ;") == "COMMIT" and locked:
                    return (at - locked).total_seconds()
        raise SystemExit("The server's log does not show the statement that locks incidents.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long the application stalls during 002.")
    parser.add_argument("--incidents", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=300, help="transactions per second")
    parser.add_argument("--seconds", type=int, default=30, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind; medians are shown")
    parser.add_argument("--part", choices=PARTS, action="append", help="run only this part")
    options = parser.parse_args()
    with (
        local_server(**SETTINGS) as server,
        tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as scratch,
    ):
        introduce(server)
        parts = options.part or PARTS
        if {"budget", "price"} & set(parts):
            budgeted = budget.Budget(server, Path(scratch), options)
            budgeted.prepare()
            if "budget" in parts:
                budget.measure(budgeted, options)
            if "price" in parts:
                budget.measure_price(budgeted, options)
        if "002" not in parts:
            return
        benchmark = Benchmark(server, Path(scratch), options)
        benchmark.prepare()
        ways = (NONE, ONE_TRANSACTION, BY_HAND, GUVNOR)
        kinds = [(way, situation) for situation in SITUATIONS for way in ways]
        runs: dict[tuple[str, str], list[Run]] = {kind: [] for kind in kinds}
        indexes: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
        for number in range(1, options.rounds + 1):
            for kind in kinds:
                runs[kind].append(run := benchmark.run(*kind, number))
                print(f"round {number}, {''.join(kind)}: {_milliseconds(run.longest)}", flush=True)
            for raised, builds in indexes.items():
                builds.append(benchmark.build_index(raised))
        print()
        show(runs, indexes, options)


def show(
    runs: dict[tuple[str, str], list[Run]],
    indexes: dict[bool, list[tuple[float, str]]],
    options: argparse.Namespace,
) -> None:
    """Print the medians, and what they are to be at most."""
    quiet = median([run.longest for run in runs[NONE, QUIET]])
    rows = [("", "longest stall", "of no migration", "p99", "migration took", "lock to commit")]
    for (way, situation), results in runs.items():
        longest = median([run.longest for run in results])
        row = [way + situation, _milliseconds(longest), f"{longest / quiet:.2f}"]
        row.append(_milliseconds(median([run.p99 for run in results])))
        if way == NONE:
            row += ["", ""]
        else:
            row.append(f"{median([run.took for run in results]):.1f} s")
            row.append(_milliseconds(median([run.locked for run in results])))
        rows.append(tuple(row))
    table(rows)
    print(
        f"Medians of {options.rounds} runs of {options.seconds} s each, {options.incidents:,} incidents, "
        f"{options.rate} transactions/s."
    )
    print(
        "By this project at most: 1.50 of no migration, also while autovacuumed, 300 ms behind the report, "
        "20 ms from lock to commit."
    )
    print()
    rows = [("index over incidents.title, built concurrently", "took", "gain")]
    base = median([seconds for seconds, _ in indexes[False]])
    for builds in indexes.values():
        took = median([seconds for seconds, _ in builds])
        rows.append((builds[0][1], f"{took:.2f} s", f"{base / took:.2f}"))
    table(rows)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


if __name__ == "__main__":
    main()
