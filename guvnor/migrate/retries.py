"""Trying a transaction again while tables are busy, until a deadline."""

from __future__ import annotations

import time

from psycopg2 import errorcodes

from guvnor.online import backoff
from guvnor.online.backoff import Try

# Another try may succeed after these: a lock that was not free in time, and a deadlock that this run lost.
RETRYABLE = (errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED)


class Retries:
    """The tries of one step and the time that they may take.

    Time outside of transactions (online steps) does not count: the revision waits for no lock then.
    """

    def __init__(self, max_wait: float) -> None:
        """Begin; ``max_wait`` is how many seconds to go on trying."""
        self.count = 0
        self.began = time.monotonic()
        self._max_wait = max_wait
        self._backoff = backoff.tries()
        self._outside = 0.0
        self._left_at: float | None = None

    def next(self) -> Try:
        """Begin the next try."""
        self.count += 1
        return next(self._backoff)

    def next_after_knock(self) -> Try:
        """Begin the next try of a step whose tables were free a moment ago; only others need a wait."""
        self.count += 1
        return Try(backoff.SHORTEST, backoff.SHORTEST * 4)

    def leave_transaction(self) -> None:
        """Stop counting: what comes next runs outside of a transaction."""
        self._left_at = time.monotonic()

    def enter_transaction(self) -> None:
        """Go on counting."""
        if self._left_at is not None:
            self._outside += time.monotonic() - self._left_at
            self._left_at = None

    @property
    def waited(self) -> float:
        """The seconds since the first try, without those outside of transactions."""
        return time.monotonic() - self.began - self._outside

    @property
    def remaining(self) -> float:
        """The seconds until the time is up; negative from then on."""
        return self._max_wait - self.waited

    def pause_after(self, attempt: Try) -> float | None:
        """Return how many seconds to pause before the next try; None when the time is up."""
        remaining = self.remaining
        return min(attempt.pause, remaining) if remaining > 0 else None
