"""Which processes belong to a data directory, and whether they live.

A process number alone proves nothing: it may have been given to another program since, and a killed server
can stay a zombie for a while. On Linux the kernel says in /proc what a process is and where it works; a
server's processes all work in its data directory. Elsewhere only the server's socket tells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_PROC = Path("/proc")


def exists(pid: int) -> bool:
    """Whether the process is there and runs: a zombie does not."""
    if not (_PROC / "self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return _name_and_state(pid)[1] not in ("", "Z", "X")


def is_server(pid: int, data: Path) -> bool:
    """Whether the process is one of the PostgreSQL server of a data directory.

    :param pid: the number of the process.
    :param data: the data directory.
    """
    name, state = _name_and_state(pid)
    if name != "postgres" or state in ("Z", "X"):
        return False
    try:
        return (_PROC / str(pid) / "cwd").samefile(data)
    except PermissionError:  # a container's root may not look into other users' processes
        return os.fsencode(data) in _command(pid)
    except OSError:
        return False


def kill_left_over(data: Path) -> None:
    """End what a killed server left running: until then its shared memory is in use, and no other starts.

    :param data: the data directory, whose main process is gone.
    """
    if not (_PROC / "self").exists():
        return
    left = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    left = [pid for pid in left if is_server(pid, data)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(exists(pid) for pid in left), seconds=10)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition to hold.

    :param condition: what is asked about 50 times a second.
    :param seconds: how long to wait for it.
    :returns: whether it held in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _name_and_state(pid: int) -> tuple[str, str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return "", ""
    name, _, fields = text.partition("(")[2].rpartition(")")
    return name, fields.split()[0]


def _command(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
