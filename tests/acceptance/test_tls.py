"""Is a connection that others can read along kept out of production, and TLS let through, verified or not?"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from guvnor.embedded import LocalServer, programs
from guvnor.postgres import tls
from tests.support.choice import in_memory
from tests.support.expect import AT_1, AT_HEAD, ends, next_step, succeeds, versions
from tests.support.server import Server

pytestmark = pytest.mark.integration

PRODUCTION = {"GUVNOR_ENV": "production"}


def own_address() -> str | None:
    """An address of this machine that is not the loopback's; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if tls.is_local(address) else address


def programs_with_tls() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found and shutil.which("openssl") else None


needs_tls = pytest.mark.skipif(
    programs_with_tls() is None or own_address() is None,
    reason="needs openssl, a PostgreSQL with TLS below /usr/lib/postgresql and a network",
)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """Make a certificate authority; its certificate is in the file that is returned."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    return certificate


def certify(folder: Path, ca: Path, address: str) -> tuple[Path, Path]:
    """Make a key and a certificate for an address."""
    key, request, certificate = (folder / f"server.{end}" for end in ("key", "csr", "crt"))
    extensions = folder / "server.ext"
    extensions.write_text(f"subjectAltName = IP:{address}\n")
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db.example", "-keyout", key, "-out", request
    )
    openssl(
        "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca.with_suffix(".key"), "-CAcreateserial",
        "-days", "2", "-extfile", extensions, "-out", certificate,
    )  # fmt: skip
    return key, certificate


class TlsServer:
    """A server with TLS that listens on an address of this machine that is not the loopback's, too."""

    def __init__(self, server: Server, address: str, port: int, ca: Path, other_ca: Path) -> None:
        self.server = server
        self.address = address
        self.port = port
        self.ca = ca
        self.other_ca = other_ca


@pytest.fixture(scope="module")
def running() -> Iterator[TlsServer]:
    directory, address = programs_with_tls(), own_address()
    assert directory is not None
    assert address is not None
    with tempfile.TemporaryDirectory(prefix="guvnor-tls-", dir=in_memory()) as name:
        folder = Path(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GUVNOR_PG_BIN", str(directory))
            local = LocalServer(folder / ".guvnor")
            local.start()
            sockets = local.status().socket_directory
            local.stop()
        data, account = folder / ".guvnor" / "data", programs.server_account()
        owner = data.stat()
        ca, other_ca = authority(folder, "ca"), authority(folder, "other")
        for file in certify(folder, ca, address):
            shutil.copy(file, data)
            (data / file.name).chmod(0o600)
            os.chown(data / file.name, owner.st_uid, owner.st_gid)
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "listen_addresses": f"127.0.0.1,{address}",
            "port": str(port),
            "unix_socket_directories": str(sockets),
            "ssl": "on",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with subprocess.Popen(
            [*account.prefix, str(directory / "postgres"), "-D", str(data), *options],
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                dsn = f"host={sockets} port={port} user=postgres dbname=postgres"
                wait_until_up(dsn)
                server = Server(dsn, "with TLS")
                yield TlsServer(server, address, port, ca, other_ca)
                server.drop_all()
                server.disconnect()
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(30)


def wait_until_up(dsn: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(dsn).close()
            return
        assert time.monotonic() < deadline, "the server does not come up"
        time.sleep(0.05)


@pytest.fixture
def remote(running):
    """A database, and what makes connection strings for it that leave this machine."""
    role = running.server.create_role()
    database = running.server.create_database(owner=role)
    database.execute(f'ALTER SCHEMA public OWNER TO "{role.name}"')

    def dsn(sslmode, host=running.address, **more):
        return database.dsn_with(role, host=host, port=running.port, sslmode=sslmode, **more)

    database.remote = dsn
    return database


@needs_tls
def test_plaintext_is_refused_in_production(remote, guvnor, alembic):
    plain = {"database": remote.remote("disable"), "env": PRODUCTION}
    for arguments in (
        ["preflight"], ["up"], ["down"], ["status"], ["history"], ["plan"], ["force", "1"],
        ["repair", "--as-is"], ["adopt", "--at", "1"],
    ):  # fmt: skip
        result = ends(guvnor("migrate", *arguments, **plain), 3, "is not encrypted, and this is production")
    assert "sslmode=verify-full" in next_step(result)[0]
    assert "--allow-plaintext" in next_step(result)[1]
    for arguments in (["upgrade", "head"], ["stamp", "head"], ["current"]):
        ends(alembic(*arguments, **plain), 3, "is not encrypted, and this is production")
    assert remote.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]


@needs_tls
def test_plaintext_that_is_allowed_is_put_on_record(running, remote, guvnor, alembic):
    plain = {"database": remote.remote("disable"), "env": PRODUCTION}
    result = succeeds(guvnor("migrate", "up", "--to", "1", "--allow-plaintext", **plain))
    assert f"WARNING: the connection to {running.address} is not encrypted" in result.out
    records = [json.loads(line) for line in result.err.splitlines()]
    (record,) = [record for record in records if record["msg"].startswith("connection without TLS")]
    assert (record["level"], record["host"]) == ("WARN", running.address)
    succeeds(alembic("-x", "allow_plaintext=yes", "upgrade", "head", **plain))
    assert versions(remote) == AT_HEAD
    by_environment = {**plain, "env": {**PRODUCTION, "GUVNOR_ALLOW_PLAINTEXT": "yes"}}
    refused = guvnor("migrate", "force", "1", **by_environment)
    confirm = next_step(ends(refused, 4))[0].split("--confirm ")[1].split()[0]
    succeeds(guvnor("migrate", "force", "1", "--confirm", confirm, **by_environment))
    assert versions(remote) == AT_1
    entries = json.loads(succeeds(guvnor("migrate", "history", "--json", **by_environment)).out)
    assert [entry["direction"] for entry in entries] == ["up", "up", "force"]
    assert {entry["note"] for entry in entries} == {f"connection without TLS to {running.address}"}
    assert "connection without TLS" in guvnor("migrate", "history", **by_environment).out


@needs_tls
def test_the_database_itself_says_that_it_is_production(remote, guvnor):
    plain = remote.remote("disable")
    result = succeeds(guvnor("migrate", "up", database=plain), "is not encrypted: add sslmode=verify-full")
    succeeds(guvnor("db", "mark", database=remote.remote("require")))
    result = ends(guvnor("migrate", "down", database=plain), 3, "the database was marked as production")
    ends(guvnor("migrate", "status", database=plain), 3, "the database was marked as production")
    assert versions(remote) == AT_HEAD
    assert "--allow-plaintext" in result.err


@needs_tls
def test_tls_in_production(running, remote, guvnor):
    def preflight(sslmode, **more):
        return guvnor("migrate", "preflight", database=remote.remote(sslmode, **more), env=PRODUCTION)

    verified = succeeds(preflight("verify-full", sslrootcert=running.ca))
    assert "WARNING: the connection is" not in verified.out
    assert "sslmode=require does not verify that the server is" in succeeds(preflight("require")).out
    assert "sslmode=prefer does not verify that the server is" in succeeds(preflight("prefer")).out
    verified = preflight("verify-ca", sslrootcert=running.ca)
    assert "sslmode=verify-ca does not verify that the server is" in succeeds(verified).out
    # Another authority's certificate, no authority at all, a certificate of another host.
    ends(preflight("verify-full", sslrootcert=running.other_ca), 3, "its certificate was not accepted")
    ends(preflight("verify-full"), 3, "its certificate was not accepted", "sslrootcert")
    named = {"host": "other.example", "hostaddr": running.address, "sslrootcert": running.ca}
    ends(preflight("verify-full", **named), 3, "its certificate was not accepted")
    succeeds(
        guvnor("migrate", "up", database=remote.remote("verify-full", sslrootcert=running.ca), env=PRODUCTION)
    )
    assert remote.execute("SELECT DISTINCT note FROM guvnor_migration_history") == [(None,)]


@needs_tls
def test_this_machine_needs_no_tls(running, remote, guvnor):
    """What counts is the address: a name that means this machine is as local as a socket."""
    for host in ("127.0.0.1", "localhost"):
        result = guvnor("migrate", "preflight", database=remote.remote("disable", host), env=PRODUCTION)
        assert "encrypted" not in succeeds(result).out
    named = remote.remote("disable", "far.example", hostaddr="127.0.0.1")
    succeeds(guvnor("migrate", "preflight", database=named, env=PRODUCTION))
    named = remote.remote("disable", "localhost", hostaddr=running.address)
    ends(guvnor("migrate", "preflight", database=named, env=PRODUCTION), 3, "is not encrypted")
    succeeds(guvnor("migrate", "preflight", database=remote, env=PRODUCTION))
