"""How long the whole check for drift takes: against `alembic check`, and on a schema of many tables.

Both compare the same database at the head with what it should be, each as a command of its own; every round
runs both, so that a busy machine slows both. Alembic compares with the models, and compares less; the check
compares with the revision. Then the check runs on a schema of 1,000 tables, against psql, which builds the
same tables and rolls them back. The server is given room for the locks.

    TMPDIR=/dev/shm python benchmarks/drift.py [--rounds N] [--tables N]

TMPDIR is where the server's data goes. On ext4, each round slows down the next one: for minutes after files
were deleted, the file system looks at their inodes whenever it makes a new file (``recently_deleted`` took
half of the time of a round). No real database is checked every few seconds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from setting import (
    ADMINISTRATOR,
    OWNER,
    PROJECT,
    Server,
    environment,
    introduce,
    local_server,
    median,
    program,
    script,
    table,
)

LOCKS_A_TABLE = 11

MANY = '''"""many tables

Revision ID: 003
"""

from alembic import op

revision = "003"
down_revision = "002"

TABLE = """
    CREATE TABLE many_{{0}} (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
        name varchar(100) NOT NULL,
        kind text CHECK (kind IN ('a', 'b')),
        severity incident_severity NOT NULL DEFAULT 'low',
        parent_id uuid REFERENCES {{1}},
        config jsonb NOT NULL DEFAULT '{{{{}}}}',
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT many_{{0}}_name_set CHECK (length(trim(name)) > 0),
        UNIQUE (name, kind)
    );
    CREATE INDEX many_{{0}}_kind ON many_{{0}} (kind) WHERE kind IS NOT NULL;
    CREATE INDEX many_{{0}}_severity ON many_{{0}} (severity, created_at);
    CREATE INDEX many_{{0}}_parent ON many_{{0}} (parent_id);
    CREATE INDEX many_{{0}}_config ON many_{{0}} USING gin (config);
    CREATE INDEX many_{{0}}_lower ON many_{{0}} (lower(name))
"""


def upgrade():
    for number in range({tables}):
        op.execute(TABLE.format(number, f"many_{{number - 1}}" if number else "incidents"))


def downgrade():
    for number in reversed(range({tables})):
        op.execute(f"DROP TABLE many_{{number}}")
'''

BARE_ENV = """
from alembic import context
from sqlalchemy import create_engine
from guvnor.models import metadata

with create_engine({url!r}).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the check for drift against alembic check.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tables", type=int, default=1000)
    options = parser.parse_args()
    room = str(max(64, options.tables * LOCKS_A_TABLE // 40))  # a server has at least 100 connections
    with (
        local_server(max_locks_per_transaction=room) as server,
        tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as scratch,
    ):
        introduce(server)
        small(server, Path(scratch), options.rounds)
        many(server, Path(scratch), options.rounds, options.tables)


def small(server: Server, scratch: Path, rounds: int) -> None:
    """Time the check of the project's own schema and Alembic's."""
    server.create("head")
    run([script("guvnor"), "migrate", "up"], PROJECT, server.dsn("head"))
    bare = bare_project(scratch / "bare", server)
    ours: list[float] = []
    alembics: list[float] = []
    for number in range(rounds + 1):
        first = run([script("guvnor"), "schema", "check"], PROJECT, server.dsn("head"))
        second = run(
            [script("alembic"), "check"], bare, expected=(0, 255)
        )  # it takes our bookkeeping for drift
        if number:  # the first round compiles the modules and fills the caches
            ours.append(first)
            alembics.append(second)
    table(
        [
            ("13 tables", "median", "ratio", "to reach"),
            ("alembic check", f"{median(alembics):.3f} s", "", ""),
            (
                "guvnor schema check",
                f"{median(ours):.3f} s",
                f"{median(ours) / median(alembics):.2f}",
                "0.75",
            ),
        ]
    )


def many(server: Server, scratch: Path, rounds: int, tables: int) -> None:
    """Time the check of a schema with many tables."""
    project = scratch / "many"
    shutil.copytree(PROJECT / "alembic", project / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "alembic.ini", project)
    (project / "alembic" / "versions" / "003_many_tables.py").write_text(MANY.format(tables=tables))
    server.create("many")
    run([script("guvnor"), "migrate", "up"], project, server.dsn("many"))
    statements = scratch / "many.sql"
    names: dict[str, str] = {}
    exec((project / "alembic" / "versions" / "003_many_tables.py").read_text(), names)
    body = "".join(
        names["TABLE"].format(n, f"many_{n - 1}" if n else "public.signals") + ";" for n in range(tables)
    )
    opening = "BEGIN; CREATE SCHEMA scratch; SET LOCAL search_path = scratch, public;"
    statements.write_text(f"{opening} {body} ROLLBACK;")
    psql = [program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(statements)]
    build = [*psql, server.dsn("many", ADMINISTRATOR)]
    check = [script("guvnor"), "schema", "check"]
    builds: list[float] = []
    checks: list[float] = []
    for _ in range(min(rounds, 5)):
        for command, seconds in ((build, builds), (check, checks)):
            # A rollback leaves dead rows in the catalogs; no run shall have to read those of another.
            server.execute("VACUUM (ANALYZE)", "many")
            seconds.append(run(command, project, server.dsn("many")))
    table(
        [
            (f"{tables} tables more", "median", "ratio", "to reach"),
            ("psql: the same tables, rolled back", f"{median(builds):.2f} s", "", ""),
            (
                "guvnor schema check",
                f"{median(checks):.2f} s",
                f"{median(checks) / median(builds):.2f}",
                "1.30",
            ),
        ]
    )


def bare_project(directory: Path, server: Server) -> Path:
    """Make an Alembic project that compares the same database with the models, and nothing more."""
    directory.mkdir()
    run([script("alembic"), "init", "alembic"], directory)
    shutil.copytree(PROJECT / "alembic" / "versions", directory / "alembic" / "versions", dirs_exist_ok=True)
    place = f"host={server.socket_directory}&port={server.dsn('head').split('port=')[1].split()[0]}"
    url = f"postgresql+psycopg2://{OWNER}@/head?{place}"
    (directory / "alembic" / "env.py").write_text(BARE_ENV.format(url=url))
    return directory


def run(command: list[str], directory: Path, dsn: str = "", expected: tuple[int, ...] = (0,)) -> float:
    """Run a command and return the seconds it took.

    :param expected: the exit codes that it may end with.
    """
    began = time.perf_counter()
    done = subprocess.run(command, cwd=directory, env=environment(dsn), capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode not in expected:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


if __name__ == "__main__":
    main()
