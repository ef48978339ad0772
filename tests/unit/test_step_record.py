"""What is recorded of a step at its end: its figures, and no password."""

from __future__ import annotations

import logging

from guvnor.bookkeeping.history import Attempt
from guvnor.logs import TextFormatter
from guvnor.migrate.retries import Retries
from guvnor.migrate.step_record import StepRecord
from guvnor.revisions.plan import Step
from guvnor.revisions.script import Direction


def record() -> StepRecord:
    step = Step(None, Direction.UP, "003", "test", "002", "003")  # type: ignore[arg-type]
    return StepRecord(step, Attempt("up", "003", "002", "003"), golang_migrate=True, retries=Retries(600))


def stalled(found: StepRecord) -> tuple[object, ...]:
    figures = found.figures()
    return figures["stalled_ms"], figures["stalled_sessions"], figures["stalled_statement"]


def test_where_nobody_waited() -> None:
    assert stalled(record()) == (0, 0, None)


def test_the_statement_that_the_application_waited_for_is_an_excerpt_without_passwords() -> None:
    found = record()
    found.stalled_ms, found.stalled_sessions = 310, 12
    found.stalled_statement = "\n  ALTER ROLE app PASSWORD 'hunter2';" + "\n  SELECT 1;" * 100
    milliseconds, sessions, statement = stalled(found)
    assert (milliseconds, sessions) == (310, 12)
    assert str(statement).startswith("ALTER ROLE app PASSWORD '***';\n")
    assert "cut here" in str(statement)
    assert "hunter2" not in str(statement)


def test_its_log_record_is_one_line() -> None:
    found = record()
    found.stalled_statement = "CREATE INDEX i\n    ON t (x)"
    log = logging.makeLogRecord({"msg": "revision 003 applied", **found.figures()})
    assert (
        TextFormatter()
        .format(log)
        .endswith(" stalled_ms=0 stalled_sessions=0 stalled_statement=CREATE INDEX i ON t (x)")
    )
