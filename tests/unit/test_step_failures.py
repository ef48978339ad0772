"""What ends a step: which error is raised, what state it names, and what the history says."""

from __future__ import annotations

import signal

import psycopg2
import pytest

from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate import failures
from guvnor.migrate.signals import RunInterrupted
from guvnor.migrate.stage import Stage
from guvnor.postgres.transient import may_pass
from guvnor.revisions.plan import Step
from guvnor.revisions.script import Direction

STEP = Step(None, Direction.UP, "002", "test", "001", "002")  # type: ignore[arg-type]


def describe(
    error: BaseException, *, committed: bool = False, received: int | None = None, lost: bool = False
) -> tuple[GuvnorError, str]:
    return failures.describe(
        STEP,
        error,
        None,
        stage=Stage(committed=committed),
        signal_received=received,
        connection_lost=lost,
    )


def test_a_signal_outweighs_the_error_that_it_caused() -> None:
    error, outcome = describe(psycopg2.OperationalError("gone"), received=signal.SIGTERM, lost=True)
    assert isinstance(error, RunInterrupted)
    assert error.exit_code is ExitCode.TERMINATED
    assert outcome == "interrupted"


def test_an_error_of_ours_keeps_the_state_that_it_names() -> None:
    refused = GuvnorError("No.", state="Untouched.", next_step="wait")
    assert describe(refused) == (refused, "failed")
    assert (refused.state, refused.next_step) == ("Untouched.", "wait")


def test_once_a_part_is_committed_the_state_is_read_from_the_database() -> None:
    error, _ = describe(GuvnorError("No.", state="Untouched."), committed=True)
    assert error.state == failures.where(None, STEP)
    assert error.next_step == "guvnor migrate up"


def test_what_the_server_has_not_ended_is_not_called_rolled_back() -> None:
    lost = psycopg2.OperationalError("server closed the connection")
    stage = Stage(still_open=True)
    error, _ = failures.describe(STEP, lost, None, stage=stage, signal_received=None, connection_lost=True)
    assert "has not ended the revision's transaction" in (error.state or "")
    assert error.next_step == "guvnor migrate status"


def test_a_lost_connection_is_no_failure_of_the_revision() -> None:
    error, _ = describe(psycopg2.OperationalError("server closed the connection"), lost=True)
    assert error.message == "The connection to the database was lost while revision 002 was going up."


def test_a_failed_revision_says_where_and_why() -> None:
    error, outcome = describe(ValueError("no such thing"))
    assert error.message == "Revision 002 (test) failed going up: ValueError: no such thing"
    assert (error.state, error.next_step, outcome) == (
        failures.where(None, STEP),
        "guvnor migrate up",
        "failed",
    )


@pytest.mark.parametrize(
    ("sqlstate", "passes"),
    [
        (None, True),  # the connection was lost
        ("40P01", True),
        ("53300", True),
        ("55P03", True),
        ("57014", True),
        ("58030", True),
        ("XX000", True),  # such as "tuple concurrently updated"
        ("53100", False),  # until somebody makes room
        ("0A000", False),
        ("22012", False),
        ("23505", False),
        ("42501", False),
        ("55000", False),
    ],
)
def test_which_errors_may_pass_by_themselves(sqlstate: str | None, passes: bool) -> None:
    assert may_pass(sqlstate) is passes
