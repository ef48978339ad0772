"""Why libpq took no password from a password file: others may read it, or this process may not."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path


def why_unused(fields: dict[str, str], entry: str) -> tuple[str, str] | None:
    """Say why no password came from the password file, and what to type; None where there is no such file.

    A file of a container belongs to whom it belongs on the host, whatever the names of the users are there.

    :param fields: the fields of the connection string.
    :param entry: what its line has to begin with, such as ``localhost:5432:guvnor:guvnor``.
    """
    named = fields.get("passfile") or os.environ.get("PGPASSFILE")
    path = Path(named) if named else Path(os.environ.get("HOME", "/")) / ".pgpass"
    user = os.geteuid() if hasattr(os, "geteuid") else None
    file = shlex.quote(str(path))
    own = f"chown {user} {file} && chmod 600 {file}   # where it is mounted: the original, on the host"
    try:
        found = path.stat()
    except FileNotFoundError:
        return (f"there is no password file {path}", f"ls -l {file}") if named else None
    except OSError:
        return f"the password file {path} cannot be read by this process, user {user}", own
    if not stat.S_ISREG(found.st_mode):
        return f"the password file {path} is not a file", f"ls -ld {file}"
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(found.st_mode)
        return f"the password file {path} is ignored, since others may read it (mode {mode:o})", own
    if not os.access(path, os.R_OK):
        who = f"it belongs to user {found.st_uid}, and this process is user {user}"
        return f"the password file {path} cannot be read: {who}", own
    return f"no line of the password file {path} fits", f"{entry}:PASSWORD   # is the line; * stands for all"
