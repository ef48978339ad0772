"""What the stall budget saves the application, and what the watch that keeps it costs; for ``stall.py``."""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from setting import (
    ADMINISTRATOR,
    OWNER,
    PROJECT,
    Server,
    ended_and_took,
    environment,
    median,
    program,
    table,
)

CLIENTS = 8
LEAD = 2.0  # seconds of load before the migration: connections and plans are made
BUDGET = "200ms"
STOPPED = 9  # the exit code of a run that the budget has stopped
PAUSE = 5  # seconds that the revision takes which disturbs nobody

STATEMENTS = {
    "CREATE INDEX": "CREATE INDEX by_note ON items (note, n)",
    "ALTER COLUMN TYPE integer to bigint": "ALTER TABLE items ALTER COLUMN n TYPE bigint",
    "ADD CHECK, validating": "ALTER TABLE items ADD CONSTRAINT positive CHECK (n > 0 AND note <> '')",
    "UPDATE of half the table": "UPDATE items SET note = 'changed' WHERE id % 2 = 0",
}
HARMLESS = f"SELECT pg_sleep({PAUSE})"

REVISION = '''"""Under measurement."""

from alembic import op

revision = "003"
down_revision = "002"


def upgrade():
    op.execute({sql!r})


def downgrade():
    op.execute("SELECT 1")
'''

# The command with the watch's looks at the server, and without them.
LAUNCH = """
import sys
from guvnor.cli import main
from guvnor.migrate import watch
if {unwatched}:
    watch.Watch._look_once = lambda self: None
sys.argv[0] = "guvnor"
main()
"""
UPS = 10  # of a revision that does nothing, in each round


@dataclass(frozen=True)
class Outcome:
    """What one run gave; durations in seconds.

    :ivar longest: the longest that a transaction of the application took, from when it was due.
    :ivar code: the exit code of the migration.
    """

    longest: float
    p99: float
    code: int


class Budget:
    """A table that the application updates row by row, and a project with one revision for it."""

    def __init__(self, server: Server, scratch: Path, options: argparse.Namespace) -> None:
        self._server = server
        self._scratch = scratch / "budget"
        self._options = options

    def prepare(self) -> None:
        """Make the table in a database at the newest version, and the project."""
        server, rows = self._server, self._options.incidents
        self._scratch.mkdir()
        project = self._scratch / "project"
        project.mkdir()
        shutil.copy(PROJECT / "alembic.ini", project)
        shutil.copytree(PROJECT / "alembic", project / "alembic")
        server.create("budgeted")
        done = self._guvnor("budgeted", "up")
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
        server.execute(
            f"""
            SET ROLE {OWNER};
            CREATE TABLE items (
                id integer, n integer NOT NULL, seen integer NOT NULL DEFAULT 0, note text NOT NULL
            );
            INSERT INTO items SELECT i, i, 0, 'note ' || i FROM generate_series(1, {rows}) AS i;
            ALTER TABLE items ADD PRIMARY KEY (id);
            """,
            "budgeted",
        )
        server.execute("VACUUM (FREEZE, ANALYZE) items", "budgeted")
        load = f"\\set id random(1, {rows})\nUPDATE items SET seen = seen + 1 WHERE id = :id;\n"
        (self._scratch / "update.sql").write_text(load)

    def run(self, sql: str, max_stall: str, number: int, *, watched: bool = True) -> Outcome:
        """Run a statement as a revision under load, on a fresh copy of the database."""
        server, seconds = self._server, self._options.seconds
        server.execute("DROP DATABASE IF EXISTS run WITH (FORCE)")
        server.execute(f"CREATE DATABASE run OWNER {OWNER} TEMPLATE budgeted STRATEGY file_copy")
        server.execute("SELECT count(*) FROM items WHERE note <> ''; CHECKPOINT", "run")
        self._write(sql)
        for log in self._scratch.glob("load.*"):
            log.unlink()
        options = [f"--client={CLIENTS}", "--jobs=2", f"--rate={self._options.rate}", f"--time={seconds}"]
        load = subprocess.Popen(
            [
                *(program("pgbench"), "--no-vacuum", "--protocol=prepared", f"--random-seed={number}"),
                *options,
                *("--log", f"--log-prefix={self._scratch / 'load'}"),
                f"--file={self._scratch / 'update.sql'}",
                server.dsn("run", ADMINISTRATOR),
            ],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        began = time.time()
        time.sleep(LEAD)
        migration_began = time.time()
        done = self._guvnor("run", "up", "--no-verify", "--max-stall", max_stall, watched=watched)
        took = time.time() - migration_began
        output, _ = load.communicate()
        if load.returncode != 0:
            raise SystemExit(f"The load failed:\n{output}")
        if done.returncode not in (0, STOPPED):
            raise SystemExit(f"The migration failed:\n{done.stdout}{done.stderr}")
        if migration_began + took > began + seconds:
            raise SystemExit("The load ended before the migration: raise --seconds.")
        latencies = self._latencies(migration_began)
        p99 = latencies[math.ceil(len(latencies) * 0.99) - 1]
        return Outcome(latencies[-1], p99, done.returncode)

    def up(self, watched: bool) -> float:
        """Apply a revision that does nothing, without load, and return the seconds that the command took."""
        self._write("SELECT 1")
        began = time.perf_counter()
        done = self._guvnor("budgeted", "up", "--no-verify", watched=watched)
        took = time.perf_counter() - began
        back = self._guvnor("budgeted", "down")
        if done.returncode or back.returncode:
            raise SystemExit(f"The migration failed:\n{done.stdout}{done.stderr}{back.stdout}{back.stderr}")
        return took

    def _write(self, sql: str) -> None:
        revision = self._scratch / "project" / "alembic" / "versions" / "003_measured.py"
        revision.write_text(REVISION.format(sql=sql))

    def _guvnor(
        self, database: str, *arguments: str, watched: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # "nice", since who migrates is elsewhere and does not compete with the server for its processors.
        return subprocess.run(
            ["nice", sys.executable, "-c", LAUNCH.format(unwatched=not watched), "migrate", *arguments],
            cwd=self._scratch / "project",
            env=environment(self._server.dsn(database)),
            capture_output=True,
            text=True,
            check=False,
        )

    def _latencies(self, since: float) -> list[float]:
        """Return how long each transaction took that was due after a moment, sorted."""
        return sorted(took for ended, took in ended_and_took(self._scratch) if since <= ended - took)


def measure(budget: Budget, options: argparse.Namespace) -> None:
    """Measure the statements with and without the budget."""
    runs: dict[tuple[str, str], list[Outcome]] = {}
    for number in range(1, options.rounds + 1):
        for name, sql in STATEMENTS.items():
            for max_stall in ("off", BUDGET):
                run = budget.run(sql, max_stall, number)
                runs.setdefault((name, max_stall), []).append(run)
                print(f"round {number}, {name}, {max_stall}: {_milliseconds(run.longest)}", flush=True)
    print()
    rows = [("statement in the revision", "longest stall, off", f"with {BUDGET}", "stopped")]
    for name in STATEMENTS:
        off, kept = runs[name, "off"], runs[name, BUDGET]
        stopped = sum(run.code == STOPPED for run in kept)
        longest = [_milliseconds(median([run.longest for run in each])) for each in (off, kept)]
        rows.append((name, *longest, f"{stopped} of {len(kept)}"))
    table(rows)
    print(
        f"Medians of {options.rounds} runs, {options.incidents:,} rows, {CLIENTS} sessions that update "
        f"single rows, {options.rate} transactions/s. With the budget at most 300 ms."
    )
    print()


def measure_price(budget: Budget, options: argparse.Namespace) -> None:
    """Measure the price of watching a harmless revision, for the application and for the command."""
    prices: dict[bool, list[Outcome]] = {True: [], False: []}
    ups: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1, options.rounds + 1):
        for watched, results in prices.items():
            ups[watched] += [budget.up(watched) for _ in range(UPS)]
            results.append(run := budget.run(HARMLESS, "500ms", number, watched=watched))
            print(
                f"round {number}, {'' if watched else 'un'}watched: p99 {run.p99 * 1000:.2f} ms", flush=True
            )
    print()
    rows = [("", f"p99 during a revision of {PAUSE} s", "of unwatched", "a whole up", "of unwatched")]
    for watched, results in sorted(prices.items()):
        p99, ratio = _medians([run.p99 for run in results], [run.p99 for run in prices[False]])
        up, up_ratio = _medians(ups[watched], ups[False])
        name = "watched" if watched else "not watched"
        rows.append((name, f"{p99 * 1000:.2f} ms", f"{ratio:.2f}", f"{up:.3f} s", f"{up_ratio:.2f}"))
    table(rows)
    print(f"Medians of {options.rounds} runs. Watched at most: 1.05 of not watched.")
    print()


def _medians(values: list[float], others: list[float]) -> tuple[float, float]:
    """Return the median, and the median of the ratios to what was measured in the same round."""
    return median(values), median([value / other for value, other in zip(values, others, strict=True)])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
