"""Which way a step goes."""

from __future__ import annotations

from enum import StrEnum


class Direction(StrEnum):
    """Which way a step goes: it applies a revision, rolls one back, or only moves the version."""

    UP = "up"
    DOWN = "down"
    STAMP = "stamp"
