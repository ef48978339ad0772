"""The hash that a confirmation refers to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from guvnor.postgres import Identity


def confirmation_hash(
    database: Identity, current: str | None, target: str | None, content: Sequence[str]
) -> str:
    """Return a hash over the database, the current version, the target version and what will be run."""
    place = f"{database.system_identifier}/{database.oid}/{database.database}"
    parts = (place, current or "", target or "", *content)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
