"""A network that goes away for real: server and runner in a network namespace of their own, then cut.

Run as ``unshare --net python -m tests.support.vanish DIRECTORY (network|machine)``. Prints as JSON how many
seconds after the cut the server had ended both sessions, and how the runner ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from guvnor.embedded import LocalServer
from tests.support.project import Project
from tests.support.server import Target, uri

OURS = "FROM pg_stat_activity WHERE application_name LIKE 'guvnor %'"


def main(directory: Path, what: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = LocalServer(directory / "server")
    status = server.start(tcp=True)
    try:
        place = {"host": str(status.socket_directory), "port": status.port, "dbname": "guvnor"}
        (directory / "project").mkdir()
        print(json.dumps(cut(Target(uri({**place, "user": "postgres"})), server.url(), directory, what)))
    finally:
        server.stop()


def cut(observer: Target, dsn: str, directory: Path, what: str) -> dict[str, object]:
    Project(directory / "project").add_revision(
        "op.execute('LOCK TABLE incidents')\nop.execute('SELECT pg_sleep(120)')",
        "op.execute('SELECT 1')",
        python=True,
    )
    words = [sys.executable, "-m", "guvnor", "migrate", "up"]
    process = subprocess.Popen(
        words,
        env={**os.environ, "GUVNOR_STORAGE_DSN": dsn},
        cwd=directory / "project",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not observer.execute(f"SELECT 1 {OURS} AND query LIKE '%pg_sleep%'"):
        time.sleep(0.05)
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    began = time.monotonic()
    if what == "machine":
        process.send_signal(signal.SIGKILL)
    while observer.execute(f"SELECT 1 {OURS}") and time.monotonic() < began + 60:
        time.sleep(0.1)
    sessions = time.monotonic() - began
    _, err = process.communicate(timeout=60)
    return {
        "sessions": sessions,
        "runner": time.monotonic() - began,
        "code": process.returncode,
        "err": err,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
