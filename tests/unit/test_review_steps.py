"""What a review makes of what it has seen: who waits for what, which file moves first, what a TODO leaves."""

from __future__ import annotations

from guvnor.review.effects import DirectionEffects, stops
from guvnor.review.todos import runnable
from guvnor.revisions.renumbering import Renumbering, move_order
from guvnor.schema.rehearsal import Lock, StatementEffect

EXCLUSIVE = "ACCESS EXCLUSIVE"


def test_a_table_that_stays_locked_while_another_is_read() -> None:
    locks = StatementEffect("ALTER TABLE a ...", (Lock("a", EXCLUSIVE),))
    reads = StatementEffect("INSERT INTO c SELECT FROM b", (Lock("c", "ROW EXCLUSIVE"),), scans=("b",))
    commits = StatementEffect("an online operation", online=True)
    waits = [("a", "stays locked under ACCESS EXCLUSIVE while b is read or written as a whole")]
    assert stops(DirectionEffects((), seen=(locks, reads))) == waits
    assert stops(DirectionEffects((), seen=(reads, locks))) == []
    assert stops(DirectionEffects((), seen=(locks, commits, reads))) == []


def test_files_move_so_that_none_takes_the_place_of_another() -> None:
    def moves(*numbers: tuple[int, int]) -> list[str]:
        found = [Renumbering(f"{old:03}_a.py", f"{new:03}_a.py", "", ()) for old, new in numbers]
        return [f"{move.old[:3]}-{move.new[:3]}" for move in move_order(found)]

    assert moves((3, 4), (4, 5), (5, 6)) == ["005-006", "004-005", "003-004"]
    assert moves((5, 4), (6, 5)) == ["005-004", "006-005"]


def test_a_todo_that_is_all_of_a_statement_is_replaced() -> None:
    text = 'op.execute("""\n    -- TODO: ä\n    -- ALTER TABLE a\n""")\nop.execute("SELECT 1 -- TODO")\n'
    assert runnable(text) == (
        'op.execute("""SELECT 1 /* still to do */ \n    -- todo: ä\n    -- ALTER TABLE a\n""")\n'
        'op.execute("SELECT 1 -- todo")\n'
    )
    assert runnable("op.execute('SELECT \\'TODO\\'')\n") == "op.execute('SELECT \\'TODO\\'')\n"
