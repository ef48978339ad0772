"""The retry loop: how often a step is tried, how long it pauses, and when it gives up."""

from __future__ import annotations

import time

from guvnor.migrate.retries import Retries


def test_tries_are_counted_and_wait_longer() -> None:
    retries = Retries(max_wait=600)
    waits = [retries.next().wait for _ in range(10)]
    assert retries.count == 10
    assert waits == sorted(waits)
    assert waits[0] == 0.04
    assert waits[-1] == 0.2


def test_a_pause_lets_the_queue_drain() -> None:
    """Who queued behind the try needs time to be served: at least four times the wait."""
    retries = Retries(max_wait=600)
    for _ in range(30):
        attempt = retries.next()
        pause = retries.pause_after(attempt)
        assert pause is not None
        assert pause >= attempt.wait * 4


def test_the_last_pause_ends_at_the_deadline() -> None:
    retries = Retries(max_wait=0.1)
    pause = retries.pause_after(retries.next())
    assert pause is not None
    assert pause <= 0.1


def test_there_is_no_pause_after_the_deadline() -> None:
    retries = Retries(max_wait=0)
    assert retries.pause_after(retries.next()) is None


def test_time_outside_of_transactions_does_not_count() -> None:
    retries = Retries(max_wait=600)
    retries.leave_transaction()
    time.sleep(0.2)
    retries.enter_transaction()
    assert retries.waited < 0.1
    retries.enter_transaction()  # twice in a row: nothing was left in between
    assert retries.waited < 0.1


def test_what_remains_of_the_time_is_known() -> None:
    retries = Retries(max_wait=600)
    assert 599 < retries.remaining <= 600
    assert Retries(max_wait=0).remaining <= 0
