"""The ignores of lint that autogenerate writes, by what lint says of the operations."""

from __future__ import annotations

from functools import partial

from guvnor.autogenerate import ignores
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, execute
from guvnor.lint import generated
from guvnor.schema.statement import statement
from tests.support.command import FROZEN

ADDED_AGAIN = statement(
    "ALTER TABLE signals DROP CONSTRAINT IF EXISTS signal_source_not_empty,",
    "ADD CONSTRAINT signal_source_not_empty CHECK (length(source) > 0) NOT VALID",
    replaces="constraint",
)


def remarks(up: list[EmittedOperation], down: list[EmittedOperation]) -> list[tuple[str, ...]]:
    """What stands above each operation, in the order in which they run."""
    judge = partial(generated.problems, FROZEN / "alembic.ini", "")
    return [found.remarks for way in ignores.explained(up, down, judge) for found in way]


def test_each_operation_gets_the_ignores_that_it_needs() -> None:
    up = [
        execute(Phase.DROP, "ALTER TABLE signals DROP COLUMN IF EXISTS payload", "DATA LOSS: all."),
        execute(Phase.CHANGE, "ALTER TABLE signals ADD COLUMN IF NOT EXISTS region text"),
    ]
    down = [execute(Phase.CHANGE, "CREATE INDEX IF NOT EXISTS idx_titles ON signals (title)")]
    assert remarks(up, down) == [
        (),
        ("DATA LOSS: all.", f"lint: ignore ban-drop-column: {ignores._GONE}"),
        (f"lint: ignore require-concurrent-index-creation: {ignores._BACK}",),
    ]


def test_an_operation_knows_a_better_reason() -> None:
    view = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute) THEN
        DROP VIEW IF EXISTS open_signals;
        CREATE OR REPLACE VIEW open_signals AS SELECT id FROM signals;
    END IF;
END
$$"""
    again = {"ban-drop-view": "the same statement creates it again.", "ban-drop-table": "it drops none."}
    up = [execute(Phase.REPLACE, view, reasons=again), *emitted(Phase.ATTACH, [ADDED_AGAIN])]
    down = [*emitted(Phase.CHANGE, [ADDED_AGAIN])]
    assert remarks(up, down) == [
        ("lint: ignore ban-drop-view: the same statement creates it again.",),
        ("lint: ignore ban-drop-constraint: the same statement adds it again.",),
        (),  # lint lets a downgrade drop
    ]


def test_an_expression_that_is_set_and_a_text_with_a_backslash() -> None:
    up = [
        execute(Phase.REPLACE, "ALTER TABLE signals ALTER COLUMN length SET EXPRESSION AS (1)"),
        execute(Phase.DROP, r"ALTER TABLE signals DROP COLUMN IF EXISTS a /* \:x */"),
    ]
    assert remarks(up, [execute(Phase.CHANGE, "SELECT 1")]) == [
        (f"lint: ignore no-table-rewrite: {ignores._LOCKED}",),
        (f"lint: ignore ban-drop-column: {ignores._GONE}",),
        (),
    ]


def test_what_no_reason_is_known_for_stays_a_problem() -> None:
    up = [execute(Phase.CHANGE, "LOCK TABLE signals")]
    assert remarks(up, [execute(Phase.CHANGE, "SELECT 1")]) == [(), ()]
