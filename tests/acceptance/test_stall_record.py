"""The longest wait that a revision caused: in the history, its report, the log and the result file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.expect import succeeds
from tests.support.load import Load
from tests.support.shop import Shop

STALLS = "op.execute('LOCK TABLE items')\nop.execute('SELECT pg_sleep(0.3)')"
AT_LEAST, AT_MOST = 250, 1000  # milliseconds; the statement sleeps for 300


def is_told(milliseconds: float, sessions: int, statement: str) -> None:
    assert AT_LEAST <= milliseconds <= AT_MOST
    assert sessions == 1
    assert "pg_sleep(0.3)" in statement


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_revision_that_was_good_says_how_long_the_application_waited(shop: Shop, tool: str) -> None:
    shop.revise(STALLS)
    with Load(shop.database, sessions=1):
        result = succeeds(shop.run(tool=tool, max_stall="10s"))
    is_told(*shop.stalled())
    (line,) = [line for line in result.err.splitlines() if "revision 003 applied" in line]
    record = json.loads(line)
    is_told(record["stalled_ms"], record["stalled_sessions"], record["stalled_statement"])
    entries = json.loads(succeeds(shop.guvnor("migrate", "history", "--json", database=shop.dsn)).out)
    (entry,) = [entry for entry in entries if entry["revision"] == "003"]
    is_told(entry["stalled_ms"], entry["stalled_sessions"], entry["stalled_statement"])
    shown = succeeds(shop.guvnor("migrate", "history", database=shop.dsn)).out
    assert "stall" in shown.splitlines()[0]


def test_a_revision_that_nobody_waited_for_says_so(shop: Shop) -> None:
    shop.revise("op.execute('CREATE TABLE quiet ()')")
    with Load(shop.database, sessions=1):
        succeeds(shop.run())
    milliseconds, sessions, statement = shop.stalled()
    assert (milliseconds, sessions, statement) == (0, 0, None)


def test_a_revision_that_was_stopped_says_how_long_it_took(shop: Shop) -> None:
    shop.revise("op.execute('LOCK TABLE items')\nop.execute('SELECT pg_sleep(2)')")
    with Load(shop.database, sessions=3):
        assert shop.run(max_stall="300ms").code == 9
    milliseconds, sessions, statement = shop.stalled()
    assert 250 <= milliseconds <= 800
    assert sessions == 3
    assert "pg_sleep(2)" in statement


def test_the_result_file_of_a_deployment_has_it(shop: Shop, tmp_path: Path) -> None:
    shop.revise(STALLS)
    path = tmp_path / "result.json"
    with Load(shop.database, sessions=1):
        succeeds(shop.run("--result", str(path), direction="deploy", max_stall="10s"))
    (stage,) = [stage for stage in json.loads(path.read_text())["stages"] if stage["name"] == "up"]
    (applied,) = stage["detail"]["applied"]
    is_told(applied["stalled_seconds"] * 1000, applied["stalled_sessions"], applied["stalled_statement"])


def test_a_revision_may_say_that_it_needs_more(shop: Shop) -> None:
    shop.revise(
        "op.execute('LOCK TABLE items')\nop.execute('SELECT pg_sleep(0.6)')",
        extra='max_stall = "5s"  # the report needs it by tonight',
    )
    with Load(shop.database, sessions=1):
        succeeds(shop.run(max_stall="200ms"))
    milliseconds, _, _ = shop.stalled()
    assert milliseconds >= 500
