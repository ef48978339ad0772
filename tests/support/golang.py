"""golang-migrate beside this project: the real one, and a session that does what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from psycopg2.extensions import connection

from guvnor.migrate.locks import golang_keys
from guvnor.revisions.script import script_directory
from guvnor.revisions.statements import render
from tests.support.command import FROZEN
from tests.support.server import Database, run

RELEASE = "v4.19.1"
GATE = 77  # the advisory lock at which a gated file of golang-migrate waits
WAITING = """
    SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Golang:
    """golang-migrate's own command, with two files that do little."""

    def __init__(self, program: Path, files: Path) -> None:
        self.program = program
        self.files = files
        for number in (1, 2):
            self.write(number, f"CREATE TABLE golang_{number} ();", f"DROP TABLE golang_{number};")

    def write(self, number: int, up: str, down: str) -> None:
        """Write the files of a version."""
        (self.files / f"{number:06}_test.up.sql").write_text(up)
        (self.files / f"{number:06}_test.down.sql").write_text(down)

    def use_our_statements(self, *, gated: Sequence[int] = ()) -> None:
        """Write files with the statements of our revisions.

        :param gated: the versions whose ``up`` waits for :data:`GATE` first, in its transaction.
        """
        for number, (up, down) in enumerate(our_statements(), 1):
            gate = f"SELECT pg_advisory_xact_lock({GATE});\n" if number in gated else ""
            self.write(number, gate + up, down)

    def start(self, database: Database, *arguments: str) -> subprocess.Popen[str]:
        url = urlsplit(database.dsn)
        dsn = url._replace(scheme="postgres", query=url.query or "sslmode=disable").geturl()
        return subprocess.Popen(
            [self.program, "-path", self.files, "-database", dsn, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, database: Database, *arguments: str) -> str:
        out, _ = self.start(database, *arguments).communicate(timeout=30)
        return out.strip()


def our_statements() -> list[tuple[str, str]]:
    """Return the SQL of each of our revisions, up and down, each in one transaction."""
    script = script_directory(FROZEN / "alembic.ini")
    found = []
    for revision in reversed(list(script.walk_revisions())):
        module = revision.module
        plain = [render(function).plain or () for function in (module.upgrade, module.downgrade)]
        up, down = ("\n".join(f"{statement};" for statement in statements) for statements in plain)
        found.append((up, down))
    return found


def build() -> Path:
    """Build golang-migrate, once for all runs of the suite on this machine; without Go, skip the test."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guvnor-tests"
    built = cache / f"golang-migrate-{RELEASE}" / "migrate"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        pytest.skip("golang-migrate is built with Go, which is not installed")
    package = f"github.com/golang-migrate/migrate/v4/cmd/migrate@{RELEASE}"
    result = subprocess.run(
        [go, "install", "-tags", "postgres", package],
        env=os.environ | {"GOBIN": str(built.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if result.returncode != 0:
        pytest.skip(f"golang-migrate cannot be built: {result.stderr.strip().splitlines()[-1]}")
    return built


class Imitation:
    """A session that locks and writes as golang-migrate does, step by step as the test says."""

    def __init__(self, database: Database, which: int = 0) -> None:
        """Take golang-migrate's lock.

        :param which: 0 for the lock that the Go application takes, 1 for that of its own command.
        """
        self.session: connection = database.connect()
        self.pid = self.session.info.backend_pid
        run(self.session, "SELECT pg_advisory_lock(%s)", [golang_keys(database.name)[which]])
        run(
            self.session,
            "CREATE TABLE IF NOT EXISTS schema_migrations "
            "(version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)",
        )

    def write(self, version: int | None, *, dirty: bool = False) -> None:
        """Write its row: the version before it runs a file, with ``dirty``, and again after it."""
        self.session.autocommit = False
        with self.session, self.session.cursor() as cursor:
            cursor.execute("TRUNCATE schema_migrations")
            if version is not None:
                cursor.execute("INSERT INTO schema_migrations VALUES (%s, %s)", (version, dirty))

    def run(self, sql: str) -> None:
        """Run a file, as one message."""
        run(self.session, sql)

    def end(self) -> None:
        """Let go of the lock, as at its end or when its process dies."""
        self.session.close()
