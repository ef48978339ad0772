"""Which table-level locks conflict with which.

PostgreSQL documentation, "Explicit Locking", "Conflicting Lock Modes"; the names are those of ``pg_locks``.
"""

from __future__ import annotations

import re

_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
# A line of the documentation's table for each mode: the places of the modes that conflict with it.
_TABLE = ("7", "67", "4567", "34567", "23567", "234567", "1234567", "01234567")

CONFLICTS = {
    mode: [_MODES[int(place)] for place in places] for mode, places in zip(_MODES, _TABLE, strict=True)
}


def in_sql(mode: str) -> str:
    """Return a mode as LOCK TABLE takes it: ``ACCESS EXCLUSIVE``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
