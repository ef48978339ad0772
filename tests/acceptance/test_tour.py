"""Is the tour of docs/tour.md what three people see today?"""

from __future__ import annotations

import os

import pytest

from tests.support import tour


@pytest.mark.skipif(
    "GUVNOR_PG_BIN" in os.environ, reason="the page was made with the server of the extra embedded"
)
def test_the_tour_is_current():
    page, taken = (tour.lasting(text).split("$ ") for text in (tour.PAGE.read_text("utf-8"), tour.take()))
    assert page == taken, "run: python -m tests.support.tour"
