"""One step of a plan: while it is being run, and once it has been."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from guvnor.migrate import history, retry
from guvnor.migrate.plan import Step


@dataclass(frozen=True)
class Applied:
    """A revision that has been applied or rolled back; durations in seconds.

    :ivar tries: how often its transaction was tried.
    """

    step: Step
    duration: float
    lock_wait: float
    tries: int


class Attempt:
    """One step of a plan while it is being run."""

    def __init__(self, step: Step, tool: str, note: str | None) -> None:
        """Begin an attempt at a step."""
        self.step = step
        self.record = history.Attempt(
            number=str(uuid.uuid4()),
            direction=step.direction,
            revision=step.revision,
            from_version=step.from_version,
            to_version=step.to_version,
            checksum=step.checksum,
            tool=tool,
            note=note,
        )
        self.began = time.monotonic()
        self.lock_wait = 0.0
        self.tries = 0
        self.patience = retry.SHORTEST  # seconds this try may wait for locks
        self.committed = False  # a part of it is committed, and the database marked dirty
        self.resumable = True
        self.applied = False  # its version is written; the commit that follows is the last one
        self.finished = False  # that commit has come
        self.online_step: str | None = None  # the online step about to begin
        self.online = 0.0  # seconds outside of transactions, which do not count as waiting
        self.online_since: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return what is recorded at its end."""
        return {
            "duration_ms": round((time.monotonic() - self.began) * 1000),
            "lock_wait_ms": round(self.lock_wait * 1000),
            "tries": self.tries,
        }
