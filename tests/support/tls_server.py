"""A server with TLS, for which certificates are made on the spot."""

from __future__ import annotations

import contextlib
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
from tests.support.server import Server


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


def certify(folder: Path, ca: Path, address: str, *names: str) -> tuple[Path, Path]:
    """Make a key and a certificate for an address and host names."""
    key, request, certificate = (folder / f"server.{end}" for end in ("key", "csr", "crt"))
    extensions = folder / "server.ext"
    listed = ",".join([f"IP:{address}", *(f"DNS:{name}" for name in names)])
    extensions.write_text(f"subjectAltName = {listed}\n")
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


@contextlib.contextmanager
def tls_server(*names: str) -> Iterator[TlsServer]:
    """Start a server with TLS; stop it, and drop what is on it, at the end.

    :param names: host names that its certificate is for, besides its address.
    """
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
        for file in certify(folder, ca, address, *names):
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
