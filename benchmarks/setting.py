"""Where the benchmarks run: a local server of their own, and the machine in words."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2

from guvnor.embedded import LocalServer, binaries

PROJECT = Path(__file__).resolve().parent.parent
OWNER = "guvnor"  # who migrates
ADMINISTRATOR = "postgres"
CLIENTS = 20  # of the load


class Server:
    """A local server that is there for one benchmark."""

    def __init__(self, local: LocalServer) -> None:
        self._status = local.status()

    def dsn(self, database: str, role: str = OWNER) -> str:
        """Return a connection string for libpq."""
        return f"host={self.socket_directory} port={self._status.port} dbname={database} user={role}"

    @property
    def socket_directory(self) -> Path:
        return self._status.socket_directory

    @property
    def data(self) -> Path:
        return self._status.data

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run one statement as the administrator, in autocommit mode, and return its rows."""
        with contextlib.closing(psycopg2.connect(self.dsn(database, ADMINISTRATOR))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    def create(self, database: str, template: str = "template1") -> None:
        """Make a database anew, as a copy of another one."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE {template}")


@contextlib.contextmanager
def local_server(**settings: str) -> Iterator[Server]:
    """Start a server in a temporary directory (below TMPDIR) and take it away at the end.

    :param settings: of the server, beyond its defaults.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server goes away, too
    with tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as directory:
        local = LocalServer(Path(directory) / ".guvnor")
        try:
            local.start()
            server = Server(local)
            for name, value in settings.items():
                server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            if settings:
                local.stop()
                local.start()
            yield server
        finally:
            local.stop()


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    return str(binaries() / name)


def script(name: str) -> str:
    """Return the path of a command of this Python environment."""
    return str(Path(sys.executable).parent / name)


def environment(dsn: str = "") -> dict[str, str]:
    """Return the environment for a command: no setting but the connection string; modules stay compiled."""
    dropped = ("GUVNOR_", "PG", "ALEMBIC_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"GUVNOR_STORAGE_DSN": dsn}


def offline(revisions: str) -> str:
    """Return the SQL of revisions as a script for psql.

    :param revisions: as ``alembic upgrade`` takes them: ``head``, ``001:002``.
    """
    command = [script("alembic"), "upgrade", revisions, "--sql"]
    return subprocess.run(
        command, cwd=PROJECT, env=environment(), check=True, capture_output=True, text=True
    ).stdout


def in_one_transaction(revisions: str) -> str:
    """Return the same in a form that fits ``psql -1``: nothing online, no transaction of its own."""
    sql = offline(revisions).replace("CONCURRENTLY ", "")
    return re.sub(r"^(BEGIN|COMMIT);$", "", sql, flags=re.MULTILINE)


def introduce(server: Server) -> None:
    """Print which command this is and on which machine, so that figures can be compared."""
    version = server.execute("SHOW server_version")[0][0]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Command   python {' '.join(sys.argv)}")
    print(f"Machine   {_processor()}, {os.cpu_count()} cores, {_memory()}; load before: {load}")
    print(f"Software  PostgreSQL {version}, Python {platform.python_version()}, {platform.platform()}")
    print(flush=True)


def _processor() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table: the first is the heading, the first column text and the others numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
    print(flush=True)


def call(command: Sequence[str], dsn: str = "", directory: Path = PROJECT) -> None:
    """Run a command, and give up when it fails.

    It is "nice", since who migrates is elsewhere and does not compete with the server for its processors.
    """
    done = subprocess.run(
        ["nice", *command],
        cwd=directory,
        env=environment(dsn),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def start_load(
    server: Server, scratch: Path, weights: Mapping[str, int], options: argparse.Namespace, number: int
) -> subprocess.Popen[str]:
    """Let the application work on database ``run`` at a fixed rate; see :func:`ended_and_took`.

    :param scratch: the folder with a script of pgbench for each name of ``weights``.
    :param options: the transactions per second (``rate``), and for how many seconds.
    :param number: of the round: each has other random numbers.
    """
    for log in scratch.glob("load.*"):
        log.unlink()
    scripts = (f"--file={scratch / name}.sql@{weight}" for name, weight in weights.items())
    return subprocess.Popen(
        [
            program("pgbench"),
            *("--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=2"),
            *(f"--rate={options.rate}", f"--time={options.seconds}", f"--random-seed={number}"),
            *("--log", f"--log-prefix={scratch / 'load'}"),
            *scripts,
            server.dsn("run", ADMINISTRATOR),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended_and_took(scratch: Path) -> list[tuple[float, float]]:
    """Read from pgbench's logs when each transaction ended (seconds since the epoch) and how long it took.

    The fields are those of the PostgreSQL documentation, pgbench, "Per-Transaction Logging".

    :param scratch: the folder with the logs, whose prefix is ``load``.
    """
    found = []
    for log in scratch.glob("load.*"):
        for line in log.read_text().splitlines():
            fields = [int(field) for field in line.split()]
            found.append((fields[4] + fields[5] / 1e6, fields[2] / 1e6))
    return found
