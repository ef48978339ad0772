"""How long a try may wait for locks, and how long to pause after one that did not get them.

While a statement waits for a lock, everyone who comes later queues behind it. So a try waits briefly, and the
pause after it is at least four times as long, which lets the queue drain.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

SHORTEST, LONGEST = 0.040, 0.200  # seconds a transaction may wait for locks, as a whole
_PAUSE_MOST = 8.0  # seconds
_TRIES_AT_EACH = 3


@dataclass(frozen=True)
class Try:
    """One try: how long it may wait for locks, and how long to pause after it, in seconds."""

    wait: float
    pause: float


def tries() -> Iterator[Try]:
    """Yield tries without end: waits of 40, 80, 160 and 200 ms, with growing, jittered pauses."""
    wait, longest_pause, count = SHORTEST, SHORTEST * 8, 0
    while True:
        shortest_pause = max(wait * 4, longest_pause / 2)
        yield Try(wait, random.uniform(shortest_pause, max(shortest_pause, longest_pause)))  # noqa: S311 - no secret
        count += 1
        if count % _TRIES_AT_EACH == 0:
            wait = min(wait * 2, LONGEST)
        longest_pause = min(longest_pause * 1.5, _PAUSE_MOST)
