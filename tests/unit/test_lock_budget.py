"""The lock budget: what a transaction may still wait, as a whole."""

from __future__ import annotations

import pytest

from guvnor.migrate.lock_budget import LockBudget


def test_the_first_statement_may_use_all_of_it() -> None:
    assert LockBudget(0.2).timeout(waited=0) == "200ms"


def test_a_timeout_that_is_in_force_is_not_set_again() -> None:
    budget = LockBudget(0.2)
    budget.timeout(waited=0)
    assert budget.timeout(waited=0) is None


def test_what_was_waited_is_taken_off() -> None:
    budget = LockBudget(0.2)
    budget.timeout(waited=0)
    assert budget.timeout(waited=0.15) == "50ms"
    assert budget.timeout(waited=0.15) is None


@pytest.mark.parametrize("waited", [0.2, 0.3, 60])
def test_an_exhausted_budget_is_never_no_timeout_at_all(waited: float) -> None:
    """For PostgreSQL, 0 means to wait for ever."""
    assert LockBudget(0.2).timeout(waited) == "1ms"
