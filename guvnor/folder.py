"""The folder of the project, found from its subfolders as git finds a checkout."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MARK = "alembic.ini"  # the file that makes a folder a project


def find(name: str, start: Path | None = None) -> Path | None:
    """Return the nearest file or folder of a name, in a folder or one of those above it; None without one.

    What is found is run or believed, and anybody could leave it in ``/tmp``: above the folder to start from,
    it counts only where it belongs to this user, to root, or to the owner of that folder.

    :param start: the folder to start from; the current one when left out.
    """
    start = (start or Path.cwd()).absolute()
    trusted = {0, os.geteuid()}
    with contextlib.suppress(OSError):
        trusted.add(start.stat().st_uid)
    for folder in (start, *start.parents):
        found = folder / name
        if os.path.lexists(found) and (folder == start or found.lstat().st_uid in trusted):
            return found
    return None


def project(start: Path | None = None) -> Path | None:
    """Return the nearest folder that has an ``alembic.ini``; None where there is none. See :func:`find`."""
    found = find(MARK, start)
    return found.parent if found else None


def of_project(name: str, start: Path | None = None) -> Path:
    """Return the nearest file of a name that is not above the project's folder, else where it could be."""
    start = (start or Path.cwd()).absolute()
    found, top = find(name, start), project(start) or start
    return found if found and found.parent.is_relative_to(top) else start / name
