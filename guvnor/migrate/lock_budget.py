"""How long a transaction may wait for locks, as a whole.

PostgreSQL's ``lock_timeout`` counts for each statement (PostgreSQL documentation, "Client Connection
Defaults"). A transaction that waits a little for each of several locks holds the first ones meanwhile, and
other sessions queue behind them. So the time that its statements have waited is subtracted from the timeout
of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_SHORTEST = 0.001  # seconds; 0 would mean no timeout at all


@dataclass
class LockBudget:
    """The seconds that one transaction may wait for locks in all."""

    seconds: float
    _in_force: float | None = field(default=None, init=False)

    def timeout(self, waited: float) -> str | None:
        """Return the ``lock_timeout`` to set after so many seconds of waiting; None to keep the last one."""
        allowed = max(_SHORTEST, self.seconds - waited)
        if self._in_force is not None and allowed >= self._in_force:
            return None
        self._in_force = allowed
        return f"{max(1, round(allowed * 1000))}ms"
