"""Which server the suite uses: the one that is named, else one in Docker, else a local one of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2

from guvnor.embedded import LocalServer
from tests.support.server import Server, uri

IMAGE = "postgres:15"
RYUK_IMAGE = "testcontainers/ryuk"

# Nothing here has to survive a crash of the machine, and a wild query shall not fill it up.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "temp_file_limit": "1GB"}

REMOVE = """
import shutil, sys
from pathlib import Path
from guvnor.embedded import LocalServer
sys.stdin.read()
LocalServer(Path(sys.argv[1])).stop()
shutil.rmtree(sys.argv[1])
"""


@contextlib.contextmanager
def chosen_server() -> Iterator[Server]:
    """Start the server if need be, and stop what was started."""
    if named := os.environ.get("GUVNOR_TEST_DSN"):
        yield Server(named, "named by GUVNOR_TEST_DSN")
    elif (container := docker_container()) is not None:
        with container() as dsn:
            yield Server(dsn, f"{IMAGE} in Docker")
    else:
        with local_server() as dsn:
            yield Server(dsn, "local server")


def announced() -> str:
    """Say which one it will be, without starting it."""
    if os.environ.get("GUVNOR_TEST_DSN"):
        return "the one that GUVNOR_TEST_DSN names"
    return f"{IMAGE} in Docker" if docker_container() is not None else "a local one"


def docker_container() -> Callable[[], contextlib.AbstractContextManager[str]] | None:
    """Find out whether a Docker engine answers and has the image; nothing is pulled."""
    if not os.environ.get("DOCKER_HOST") and not any(map(os.path.exists, usual_sockets())):
        return None
    with quiet():
        from docker.errors import DockerException, ImageNotFound
        from testcontainers.core.docker_client import DockerClient

        try:
            client = DockerClient(timeout=3).client
        except (DockerException, OSError):
            return None
        try:
            client.images.get(IMAGE)
            has_ryuk = any(tag.startswith(RYUK_IMAGE) for image in client.images.list() for tag in image.tags)
        except (ImageNotFound, DockerException, OSError):
            return None
        finally:
            client.close()
    return lambda: running_container(has_ryuk)


def usual_sockets() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    home = str(Path.home())
    return [
        "/var/run/docker.sock",
        f"{runtime}/docker.sock",
        f"{home}/.docker/run/docker.sock",
        f"{home}/.docker/desktop/docker.sock",
        f"{home}/.colima/default/docker.sock",
    ]


@contextlib.contextmanager
def running_container(has_ryuk: bool) -> Iterator[str]:
    with quiet():
        from testcontainers.community.postgres import PostgresContainer
        from testcontainers.core.config import testcontainers_config

        if not has_ryuk:  # it would be pulled
            testcontainers_config.ryuk_disabled = True
        settings = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        container = PostgresContainer(
            IMAGE, username="postgres", password=secrets.token_urlsafe(12), dbname="postgres", driver=None
        ).with_command(f"postgres {settings}")
        container.start()
    try:
        yield container.get_connection_url()
    finally:
        with quiet():
            container.stop()
            container.get_docker_client().client.close()


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """A server of the project's own kind in a temporary directory.

    It is removed by a process of its own when this one is done with it, however this one ends.
    """
    home = tempfile.mkdtemp(prefix="guvnor-test-", dir=in_memory())
    with subprocess.Popen(
        [sys.executable, "-c", REMOVE, home], stdin=subprocess.PIPE, start_new_session=True
    ) as remover:
        status = LocalServer(Path(home)).start(tcp=True)
        admin = {"user": "test_admin", "password": secrets.token_urlsafe(12)}
        where: dict[str, Any] = {"host": str(status.socket_directory), "port": status.port}
        with contextlib.closing(psycopg2.connect(**where, user="postgres", dbname="postgres")) as superuser:
            superuser.autocommit = True
            with superuser.cursor() as cursor:
                for name, value in SETTINGS.items():
                    cursor.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                cursor.execute("SELECT pg_reload_conf()")
                cursor.execute(
                    f"CREATE ROLE {admin['user']} SUPERUSER LOGIN PASSWORD %s", [admin["password"]]
                )
        yield uri({**admin, "host": "127.0.0.1", "port": str(status.port), "dbname": "postgres"})
    assert remover.returncode == 0, f"the local server in {home} could not be removed"


def in_memory() -> Path | None:
    """Where a server's data is best put, for speed, if there is room: a database is made for each test."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    return memory if usable else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings of Docker's libraries are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
