"""How long the application stalls while an online operation works on a partitioned table.

pgbench plays the application (reads by key, inserts and updates, through prepared statements) at a fixed
rate, before, during and after an index is built on a table of 20 partitions: not at all, by one plain CREATE
INDEX, and by ``op.create_index_concurrently``. A transaction counts from the moment when it was due. Every
run has a fresh copy of the database.

    python benchmarks/online.py [--rows N] [--rate N] [--seconds N] [--rounds N]

Two million rows have 250 MB, twice (below TMPDIR).
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from setting import (
    PROJECT,
    Server,
    call,
    ended_and_took,
    introduce,
    local_server,
    median,
    program,
    script,
    start_load,
    table,
)

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
WARM_UP, COOL_DOWN = 3.0, 1.0  # seconds of load that do not count
PARTITIONS = 20
MOST, AT_LEAST = 1.5, 0.2  # of the load alone; seconds

NONE, PLAIN, GUVNOR = "no migration", "plain CREATE INDEX", "op.create_index_concurrently"
INDEX = "ON readings (sensor, at)"

TABLES = """
    CREATE TABLE IF NOT EXISTS readings (
        id integer, at timestamptz NOT NULL, sensor text NOT NULL, value integer NOT NULL, PRIMARY KEY (id)
    ) PARTITION BY RANGE (id)
"""
FILL = """
    INSERT INTO readings
    SELECT n, timestamptz '2026-01-01' + n * interval '1 s', md5((n % 5000)::text), n % 1000
    FROM generate_series(1, {rows}) AS n
"""
LOAD = {
    "get": (6, "\\set id random(1, {rows})\nSELECT * FROM readings WHERE id = :id;\n"),
    "change": (3, "\\set id random(1, {rows})\nUPDATE readings SET value = value + 1 WHERE id = :id;\n"),
    "add": (
        1,
        """\\set id random(1, {rows})
        INSERT INTO readings VALUES (:id, now(), 'new', 0)
        ON CONFLICT (id) DO UPDATE SET at = excluded.at, sensor = excluded.sensor;
        """,
    ),
}
ENVIRONMENT = """
from alembic import context
from sqlalchemy import MetaData

from guvnor.cli.plain_alembic import run
from guvnor.project import Project

run(context, Project(lambda: MetaData()))
"""
REVISION = '''"""{title}

Revision ID: {number}
"""

from alembic import op

revision: str = "{number}"
down_revision: str | None = {before}


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    op.execute("SELECT 1")
'''


@dataclass(frozen=True)
class Run:
    """What was measured during one run, in seconds."""

    longest: float
    p99: float
    took: float


class Benchmark:
    """The application, and an index on its partitioned table."""

    def __init__(self, server: Server, scratch: Path, options: argparse.Namespace) -> None:
        self._server, self._scratch, self._options = server, scratch, options
        self._project = scratch / "project"

    def prepare(self) -> None:
        """Write the two revisions, apply the first one, and fill the table."""
        shutil.copytree(PROJECT / "alembic", self._project / "alembic")
        shutil.copy(PROJECT / "alembic.ini", self._project)
        (self._project / "alembic" / "env.py").write_text(ENVIRONMENT)
        versions = self._project / "alembic" / "versions"
        for path in versions.glob("*.py"):
            path.unlink()
        size = math.ceil(self._options.rows / PARTITIONS)
        parts = [
            f"CREATE TABLE IF NOT EXISTS readings_{n:02} PARTITION OF readings "
            f"FOR VALUES FROM ({n * size + 1}) TO ({(n + 1) * size + 1})"
            for n in range(PARTITIONS)
        ]
        made = "\n    ".join(f'op.execute("""{sql}""")' for sql in (TABLES, *parts))
        concurrently = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS by_sensor {INDEX}"
        built = f'op.create_index_concurrently("by_sensor", "{concurrently}")'
        for number, before, upgrade in (("001", None, made), ("002", "001", built)):
            text = REVISION.format(title=number, number=number, before=repr(before), upgrade=upgrade)
            (versions / f"{number}_benchmark.py").write_text(text)
        for name, (_, sql) in LOAD.items():
            (self._scratch / f"{name}.sql").write_text(sql.format(rows=self._options.rows))
        self._server.create("version_1")
        self._migrate("version_1", "--to", "001")
        self._server.execute(FILL.format(rows=self._options.rows), "version_1")
        self._server.execute("VACUUM (ANALYZE)", "version_1")

    def run(self, way: str, number: int) -> Run:
        """Let the application run, and build the index meanwhile."""
        self._server.create("run", "version_1")
        self._server.execute("SELECT count(*) FROM readings WHERE value >= 0", "run")
        self._server.execute("CHECKPOINT")
        began = time.time()
        weights = {name: weight for name, (weight, _) in LOAD.items()}
        load = start_load(self._server, self._scratch, weights, self._options, number)
        time.sleep(WARM_UP)
        migration_began = time.time()
        if way == PLAIN:
            call([program("psql"), "-Xqc", f"CREATE INDEX by_sensor {INDEX}", self._server.dsn("run")])
        elif way == GUVNOR:
            self._migrate("run")
        took = time.time() - migration_began
        output, _ = load.communicate()
        if load.returncode != 0:
            raise SystemExit(f"The load failed:\n{output}")
        if began + self._options.seconds - 2 * COOL_DOWN < migration_began + took:
            raise SystemExit(f"The load ended before the migration ({way}): raise --seconds.")
        if way != NONE:
            self._check()
        transactions = ended_and_took(self._scratch)
        since, until = began + WARM_UP, max(transactions)[0] - COOL_DOWN
        times = sorted(took for ended, took in transactions if since <= ended - took < until)
        return Run(times[-1], times[math.ceil(len(times) * 0.99) - 1], took)

    def _check(self) -> None:
        parts = self._server.execute(
            "SELECT count(*) FROM pg_partition_tree('by_sensor') WHERE isleaf", "run"
        )
        invalid = self._server.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid", "run")
        if (parts, invalid) != ([(PARTITIONS,)], [(0,)]):
            raise SystemExit(f"The index is not complete: {parts}, {invalid}.")

    def _migrate(self, database: str, *arguments: str) -> None:
        call([script("guvnor"), "migrate", "up", *arguments], self._server.dsn(database), self._project)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the stalls of an index on a partitioned table.")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rate", type=int, default=300, help="transactions per second")
    parser.add_argument("--seconds", type=int, default=30, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind; medians are shown")
    options = parser.parse_args()
    with (
        local_server(**SETTINGS) as server,
        tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as scratch,
    ):
        introduce(server)
        benchmark = Benchmark(server, Path(scratch), options)
        benchmark.prepare()
        runs: dict[str, list[Run]] = {NONE: [], PLAIN: [], GUVNOR: []}
        for number in range(1, options.rounds + 1):
            for way, results in runs.items():
                results.append(run := benchmark.run(way, number))
                print(f"round {number}, {way}: {run.longest * 1000:,.0f} ms", flush=True)
    print()
    quiet = median([run.longest for run in runs[NONE]])
    rows = [("", "longest stall", "of no migration", "p99", "took")]
    for way, results in runs.items():
        longest, p99 = median([run.longest for run in results]), median([run.p99 for run in results])
        took = f"{median([run.took for run in results]):.1f} s" if way != NONE else ""
        stall = f"{longest * 1000:,.0f} ms"
        rows.append((way, stall, f"{longest / quiet:.2f}", f"{p99 * 1000:,.0f} ms", took))
    table(rows)
    print(
        f"Medians of {options.rounds} runs of {options.seconds} s each, {options.rows:,} rows in "
        f"{PARTITIONS} partitions, {options.rate} transactions/s.\n"
        f"By this project at most: {MOST:.2f} of no migration, or {AT_LEAST * 1000:.0f} ms, whichever is "
        f"more ({max(quiet * MOST, AT_LEAST) * 1000:.0f} ms)."
    )


if __name__ == "__main__":
    main()
