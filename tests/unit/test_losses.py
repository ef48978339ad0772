"""Is each loss said with the verb for it, and an upper bound as one?"""

from __future__ import annotations

import pytest

from guvnor.backup.losses import Loss, verbs


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Loss("table", "a", 2, True), "table a with 2 rows"),
        (Loss("table", "a", 50, False), "table a with about 50 rows"),
        (Loss("table", "a"), "table a, which could not be counted"),
        (Loss("table", "a", 1, True, "truncate"), "table a with 1 row, which is truncated"),
        (Loss("table", "a", None, False, "truncate"), "table a, which could not be counted and is truncated"),
        (Loss("table", "a", 2, True, "delete", at_most=True), "table a, from which up to 2 rows are deleted"),
        (Loss("table", "a", 1, True, "delete"), "table a, from which 1 row is deleted"),
        (Loss("table", "a", None, how="delete"), "table a, from which an unknown number of rows are deleted"),
        (
            Loss("column", "a.b", 50, False, "update", at_most=True),
            "column a.b, of which up to about 50 values are overwritten",
        ),
        (
            Loss("table", "a", 2, True, "unseen", at_most=True),
            "table a, whose triggers are switched off: up to 2 rows may be changed",
        ),
        (
            Loss("column", "a.b", 1, True, "cast", type="date"),
            "column a.b with 1 value that the type date cuts, rounds or refuses",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loss_in_words(loss: Loss, said: str) -> None:
    assert str(loss) == said


@pytest.mark.parametrize(
    ("hows", "said"),
    [
        (["drop"], "drops"),
        (["delete", "truncate"], "deletes"),
        (["cast"], "cuts"),
        (["update", "drop"], "drops and overwrites"),
        (["cast", "update", "delete", "drop"], "drops, deletes, overwrites and cuts"),
        ([], "may lose"),
    ],
)
def test_what_a_plan_does_to_data(hows: list[str], said: str) -> None:
    assert verbs(Loss("table", "a", how=how) for how in hows) == said
