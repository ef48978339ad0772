"""The tables beside, in which revisions keep the rows that they change or delete: their names."""

from __future__ import annotations

import hashlib
import sys

from guvnor.errors import GuvnorError
from guvnor.postgres.quoting import LONGEST_NAME

PREFIX = "guvnor_kept_"
PATTERNS = (f"{PREFIX}*", f'"{PREFIX}*')
"""What matches such a name as SQL writes it: the catalogs of an application's schema leave those out."""


def kept_name(table: str, revision: str) -> str:
    """Return the name of the table that keeps rows of a table for a revision.

    A name that is too long is cut, and told apart from others by a checksum.
    """
    name = f"{PREFIX}{revision}_{table}".encode()
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 9] + b"_" + hashlib.sha256(name).hexdigest()[:8].encode()
    return name.decode(errors="ignore")


def calling_revision() -> str:
    """Return the identifier of the revision whose function calls, found by the variables of its file.

    Alembic tells an operation nothing of the revision that it stands in.

    :raises GuvnorError: when no revision file calls.
    """
    frame = sys._getframe(1)
    while frame is not None:
        revision = frame.f_globals.get("revision")
        if isinstance(revision, str) and "down_revision" in frame.f_globals:
            return revision
        frame = frame.f_back  # type: ignore[assignment]
    raise GuvnorError("Rows are kept for a revision, so only a revision file can call this.")
