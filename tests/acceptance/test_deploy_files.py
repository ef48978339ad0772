"""Does what each file below ``deploy/`` runs work with the four roles, on a server with TLS?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from tests.support.command import CHECKOUT, FROZEN, OF_THE_CALLER, Result
from tests.support.deploy_files import Job, elsewhere, job_of
from tests.support.expect import AT_1, AT_HEAD, ends, next_step, succeeds, versions
from tests.support.forked import ForkedCommand
from tests.support.server import Database
from tests.support.tls_server import TlsServer, needs_tls, tls_server

pytestmark = [pytest.mark.integration, needs_tls]

HOST = "db.example.com"
PASSWORD = "p:w\\d"  # with what a password file has to escape
WHERE = f"guvnor_migrator:p%3Aw%5Cd@{HOST}/guvnor?sslmode=verify-full"


@pytest.fixture(scope="module")
def running() -> Iterator[TlsServer]:
    with tls_server(HOST) as server:
        yield server


@pytest.fixture
def production(running: TlsServer, guvnor: ForkedCommand) -> Database:
    """The database of the examples, with the four roles under the names that they have by default."""
    running.server.execute("DROP DATABASE IF EXISTS guvnor WITH (FORCE)")
    running.server.execute("CREATE DATABASE guvnor")
    database = Database(running.server.dsn_with(dbname="guvnor"), "guvnor")
    database.execute(succeeds(guvnor("migrate", "roles")).out)
    for role in ("guvnor_migrator", "guvnor_app"):
        database.execute(f"ALTER ROLE {role} PASSWORD %s", [PASSWORD])
    return database


@dataclass
class Place:
    """Where a job runs: its files, and the address that the name of its server leads to."""

    job: Job
    folder: Path
    guvnor: ForkedCommand
    environment: dict[str, str]

    def run(self) -> Result:
        """Run what the file runs."""
        if not self.job.script:
            return self.other(*self.job.words)
        kept = {name: value for name, value in os.environ.items() if not OF_THE_CALLER.match(name)}
        ended = subprocess.run(
            ["bash", "-e", "-c", self.job.script],
            cwd=self.folder,
            env={**kept, **self.environment, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(ended.returncode, ended.stdout, ended.stderr)

    def other(self, *words: str) -> Result:
        """Run another command with the same environment."""
        here = [elsewhere(word, self.folder) for word in words]
        return self.guvnor(*here, env=self.environment, timeout=180)


def placed(kind: str, running: TlsServer, guvnor: ForkedCommand, folder: Path) -> Place:
    """Lay out what a job finds where it runs."""
    ca = running.ca.read_text()
    dsn = f"postgres://{WHERE}"
    secrets = {"dsn": dsn, "GUVNOR_MIGRATOR_DSN": dsn, "GUVNOR_SERVER_CA": ca}
    for name in ("run/secrets", "etc/guvnor", "dev", "backups", "runner", "bin"):
        (folder / name).mkdir(parents=True)
    for name in ("run/secrets", "etc/guvnor"):
        (folder / name / "ca.crt").write_text(ca)
    (folder / "dev/termination-log").touch()
    password_file = folder / "run/secrets/pgpass"
    escaped = PASSWORD.replace("\\", r"\\").replace(":", r"\:")
    password_file.write_text(f"{HOST}:{running.port}:guvnor:guvnor_migrator:{escaped}\n")
    password_file.chmod(0o600)
    (folder / "scripts").symlink_to(CHECKOUT / "scripts")
    (folder / "bin/guvnor").write_text(f'#!/bin/sh\nexec {sys.executable} -m guvnor "$@"\n')
    (folder / "bin/guvnor").chmod(0o755)
    job = job_of(kind, secrets)
    environment = {name: elsewhere(value, folder) for name, value in job.environment.items()}
    network = {
        "PGHOSTADDR": running.address,
        "PGPORT": str(running.port),
        "ALEMBIC_CONFIG": str(FROZEN / "alembic.ini"),
    }
    return Place(job, folder, guvnor, {**environment, **network})


@pytest.mark.parametrize("kind", ["compose", "kubernetes", "helm", "github"])
def test_what_a_deploy_file_runs_works_with_the_roles(kind, running, production, guvnor, tmp_path):
    here = placed(kind, running, guvnor, tmp_path / "there")
    deployed = succeeds(here.run(), "Deployed 2 revision(s): the database is at version 2")
    warned = [line for line in deployed.out.splitlines() if "WARNING" in line]
    assert [line for line in warned if "is marked as production now" not in line] == []
    assert versions(production) == AT_HEAD
    succeeds(here.other("migrate", "status", "--exit-code"), "Version 2")
    succeeds(here.other("schema", "check"), "No drift")
    succeeds(here.other("migrate", "roles", "--check"), "no more")

    write = {"host": HOST, "hostaddr": running.address, "port": running.port, "dbname": "guvnor"}
    with psycopg2.connect(
        **write, user="guvnor_app", password=PASSWORD, sslmode="verify-full", sslrootcert=running.ca
    ) as application:
        insert = "INSERT INTO escalation_policies (name, team_id) VALUES ('all', 'team')"
        application.cursor().execute(insert)
    application.close()
    backup = [] if "GUVNOR_BACKUP_DIR" in here.environment else ["--no-backup"]
    refused = ends(here.other("migrate", "down", *backup), 4, "production")
    confirm = next_step(refused)[0].partition("--confirm ")[2].split()[0]
    succeeds(here.other("migrate", "down", *backup, "--confirm", confirm), "Rolled back 002")
    assert versions(production) == AT_1
    assert bool(list((here.folder / "backups").glob("*-dropped.sql.gz"))) == (not backup)
    succeeds(here.run(), "Deployed 1 revision(s): the database is at version 2")

    written = here.folder / ("result.json" if kind == "github" else "dev/termination-log")
    if kind != "compose":
        text = written.read_text("utf-8")
        assert len(text.encode()) <= 4096
        result = json.loads(text)
        assert (result["exit_code"], result["applied"]) == (0, ["002"])
    jobs = {job for (job,) in production.execute("SELECT DISTINCT job FROM guvnor_migration_history")}
    assert (jobs == {"kubernetes: the-namespace the-name"}) == (kind in ("kubernetes", "helm"))


@pytest.mark.usefixtures("production")
def test_a_password_file_that_is_not_used_is_named(running, guvnor, tmp_path):
    """A file that is mounted into a container keeps the owner and the mode that it has outside."""
    here = placed("compose", running, guvnor, tmp_path / "there")
    file = Path(here.environment["PGPASSFILE"])
    file.chmod(0o644)
    failed = ends(here.other("migrate", "preflight"), 3, "is ignored, since others may read it (mode 644)")
    assert next_step(failed)[0].startswith(f"chown {os.geteuid()} {file} && chmod 600 {file}")
    file.chmod(0o600)
    succeeds(here.other("migrate", "preflight"))
    file.write_text("elsewhere:5432:guvnor:guvnor_migrator:secret\n")
    failed = ends(here.other("migrate", "preflight"), 3, f"no line of the password file {file} fits")
    line = f"{HOST}:{running.port}:guvnor:guvnor_migrator:PASSWORD"
    assert next_step(failed)[0].startswith(line)
    file.unlink()
    ends(here.other("migrate", "preflight"), 3, f"there is no password file {file}")
    file.mkdir()  # as Docker does where the file to mount is missing
    ends(here.other("migrate", "preflight"), 3, f"the password file {file} is not a file")
