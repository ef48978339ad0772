"""Does the progress of a long step say what it does?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from guvnor.online import backfill, kept_rows, progress
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.execute import OnlineStep
from guvnor.online.keeping import KeptChange
from tests.support.server import Database, run


def test_each_step_names_what_it_does(database: Database) -> None:
    database.execute("CREATE TABLE items (n integer PRIMARY KEY, label text)")
    database.execute("INSERT INTO items SELECT n, 'x' FROM generate_series(1, 5) AS n")
    phases: list[str] = []
    with closing(database.connect()) as connection, closing(database.connect()) as onlooker:
        pid = connection.info.backend_pid
        step = OnlineStep(connection, onlooker, pid, "step", lambda seen: phases.append(seen.phase))

        def said(work: Callable[[], None]) -> set[str]:
            phases.clear()
            work()
            return set(phases)

        change = KeptChange("items", {"label": "'z'"}, "n = 2", "003")
        delete = KeptChange("items", None, "n = 3", "004")
        for rows in (change, delete):
            run(connection, rows.make())
        assert said(lambda: backfill.backfill(step, "items", "label = 'y'", "label = 'x'")) == {"backfilling"}
        assert said(lambda: kept_rows.change(step, change)) == {"changing"}
        assert said(lambda: kept_rows.change(step, delete)) == {"deleting"}
        assert said(lambda: kept_rows.bring_back(step, KeptReturn("items", "004"))) == {"bringing back"}
        for what, phase in (("validate constraint c of items", "validating"), ("drop index i", "dropping")):
            assert progress.step(onlooker, what, pid) == progress.Progress(what, phase)
        assert progress.step(onlooker, "backfill items", pid) is None  # it tells by itself
