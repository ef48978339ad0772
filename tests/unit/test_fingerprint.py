"""What counts as a change of a revision file whose SQL is not known without a database?"""

from __future__ import annotations

import pytest

from guvnor.bookkeeping.applied import _applied
from guvnor.revisions.fingerprint import fingerprint
from guvnor.revisions.renumbering import as_numbered

FILE = '''"""Add teams."""
from alembic import op

revision: str = "003"


def upgrade() -> None:
    rows = op.get_bind().exec_driver_sql("SELECT 1").scalar()
    op.execute(f"CREATE TABLE {rows} (a  text)", "x")


def downgrade() -> None:
    op.execute("DROP TABLE teams")
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Add teams.", "Add some teams."),
        ("    rows =", "    # Why?\n    rows ="),
        ('    op.execute(f"CREATE', '    "Said in passing."\n    op.execute(f"CREATE'),
        ("scalar()\n    op", "scalar(\n    )\n    op"),
        ('"SELECT 1"', "'''\n    -- one\n    SELECT   1'''"),
        ("(a  text)", "(a\\n    text)"),
        ("DROP TABLE teams", "DROP TABLE IF EXISTS teams"),
        ("\n", "\r\n"),
    ],
)
def test_what_is_no_change(old: str, new: str) -> None:
    assert FILE.replace(old, new) != FILE
    assert fingerprint(FILE.replace(old, new)) == fingerprint(FILE)


@pytest.mark.parametrize(
    ("old", "new"), [("SELECT 1", "SELECT 2"), ("{rows}", "{rows + 1}"), ('"003"', '"004"'), (', "x")', ")")]
)
def test_what_is_a_change(old: str, new: str) -> None:
    assert FILE.replace(old, new) != FILE
    assert fingerprint(FILE.replace(old, new)) != fingerprint(FILE)


def test_it_is_the_same_in_every_python() -> None:
    """It is kept in the history, so it must not be another one after an upgrade of Python."""
    assert fingerprint(FILE) == EXPECTED
    assert fingerprint("def upgrade(:") is None


EXPECTED = "aed7cd056b8473f95938d2a25b0b9601af9c54403d82254932e8707b63f22f92"


def event(
    kind: str, direction: str, revision: str | None, start: str | None, end: str | None
) -> tuple[str | None, ...]:
    return (kind, direction, revision, start, end, f"sum of {revision}", "2", "source", None, "then")


def test_what_is_known_of_applied_revisions() -> None:
    up = [event("succeeded", "up", f"00{n}", f"00{n - 1}" if n > 1 else None, f"00{n}") for n in (1, 2, 3)]
    assert sorted(_applied(up)) == [1, 2, 3]
    assert sorted(_applied([*up, event("succeeded", "down", "003", "003", "002")])) == [1, 2]
    for mover in ("force", "adopt", "stamp"):
        assert sorted(_applied([*up, event("succeeded", mover, "002", "003", "002")])) == [1, 2]
        back = [event("succeeded", mover, None, "003", None), event("succeeded", mover, "003", None, "003")]
        assert sorted(_applied([*up, *back])) == []
        assert sorted(_applied([*up[:1], event("succeeded", mover, "003", "001", "003")])) == [1]
        assert sorted(_applied([*up, event("succeeded", mover, "003", "003", "003")])) == [1, 2, 3]
    accepted = (
        *event("accepted", "accept", "003", "003", "003")[:5],
        "other",
        "2",
        "new source",
        None,
        "later",
    )
    known = _applied([*up, accepted])[3]
    assert (known.checksums, known.sources) == (
        (("sum of 003", "2"), ("other", "2")),
        {"source", "new source"},
    )
    assert known.when == "then"
    assert _applied([accepted]) == {}


@pytest.mark.parametrize(
    ("said", "afterwards"),
    [
        ("Needs 003 and revision 002.", "Needs 004 and revision 002."),
        ("See 003_teams, not 003_rooms.", "See 004_teams, not 003_rooms."),
        ("At 12:003, 1.003 and x003.", "At 12:003, 1.003 and x003."),
    ],
)
def test_a_docstring_follows_a_new_number(said: str, afterwards: str) -> None:
    text = f'"""Add teams.\n\n{said}\n\nRevision ID: 003\nRevises: 002\n"""\n\nrevision = "003"\nn = "003"\n'
    (move,) = as_numbered({"003_teams.py": text}, {"003_teams.py": 4})
    assert f"\n{afterwards}\n\nRevision ID: 004\nRevises: 003\n" in move.text
    assert move.text.endswith('revision = "004"\nn = "003"\n')


def test_a_number_that_may_be_of_anything_needs_a_word_before_it() -> None:
    constants = 'revision = "100"\ndown_revision = ("098", "099")\n'
    text = f'"""Up to 100 rows; see revision 100.\n\nRevises: 099\n"""\n{constants}'
    (move,) = as_numbered({"100_teams.py": text}, {"100_teams.py": 101})
    assert move.text.splitlines()[0] == '"""Up to 100 rows; see revision 101.'
    assert move.text.endswith('revision = "101"\ndown_revision = "100"\n')
