"""How long a revision may leave its open transaction idle: its locks last as long.

A revision that computes something between two statements for longer than the default says so::

    max_idle = "10min"  # reads the addresses from a file
"""

from __future__ import annotations

from types import ModuleType

from guvnor.config import seconds

_DEFAULT = "60s"


def max_idle(revision: ModuleType | None) -> float:
    """Return the seconds for which the server lets a revision's transaction be idle.

    :param revision: its file as a module; None for a step that runs none.
    :raises ValueError: when the file names something else than a duration of at least a millisecond.
    """
    named = getattr(revision, "max_idle", _DEFAULT)
    found = seconds(named) if isinstance(named, str) else 0.0
    if found < 0.001:  # 0 would mean no limit
        raise ValueError(f"{named!r} is not a duration such as 90s, 10min or 1h")
    return found
