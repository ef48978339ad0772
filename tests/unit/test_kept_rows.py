"""What is known of kept rows without a server: names, texts, checksums."""

from __future__ import annotations

import pytest

from guvnor.errors import GuvnorError
from guvnor.online import kept_statement
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.keeping import KeptChange
from guvnor.online.kept_names import calling_revision, kept_name
from guvnor.revisions.statements import checksum


def test_names_fit_and_differ() -> None:
    assert kept_name("rules", "004") == "guvnor_kept_004_rules"
    long = [kept_name("é" * 30 + end, "004") for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(name.encode()) <= 63 and name.startswith("guvnor_kept_004_é") for name in long)


def test_only_a_revision_keeps_rows() -> None:
    with pytest.raises(GuvnorError, match="only a revision file"):
        calling_revision()
    scope = {"revision": "004", "down_revision": None, "calling_revision": calling_revision}
    exec("def upgrade(): return calling_revision()", scope)
    assert scope["upgrade"]() == "004"  # type: ignore[operator]


@pytest.mark.parametrize(
    "where", ["note = '$guvnor$'", "note = 'a' -- $guvnor_$", "true\nOR false", "a = '{b}'"]
)
def test_a_statement_is_told_apart_by_what_the_revision_says(where: str) -> None:
    def statements(revision: str, **more: str) -> list[str]:
        change = KeptChange("rules", {"active": "false", **more}, where, revision)
        back = KeptReturn("rules", revision)
        return [change.make(), change.whole(), back.whole(), back.drop()]

    made = statements("004")
    summaries = [kept_statement.summary(f"{sql};") for sql in made]
    assert None not in summaries
    assert all("\n" not in str(line) for line in summaries)
    assert checksum(made) != checksum(statements("005")) != checksum(statements("005", note="NULL"))
    # Another release may write the same in other words.
    assert checksum(made) == checksum([sql.replace("SELECT", "SELECT ALL") for sql in made])
    assert kept_statement.summary("DO $guvnor$ BEGIN END $guvnor$") is None
