"""Do the pure functions keep their word: checksums, pauses, names of revisions, signs?"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from guvnor.cli.streams import plain
from guvnor.errors import PreflightError, UsageError
from guvnor.migrate import preflight
from guvnor.migrate.locks import golang_keys
from guvnor.online import backoff
from guvnor.postgres import Identity
from guvnor.revisions import files as revision_files
from guvnor.revisions.files import Revision, RevisionFilesError
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import checksum

TWO = tuple(Revision(f"00{n}", n, Path(f"00{n}_x.py")) for n in (1, 2))


@pytest.mark.parametrize(
    "other",
    [
        "SELECT 1,\n       'a  b -- c'",
        "SELECT 1, 'a  b -- c'  ",
        "SELECT\r\n1, 'a  b -- c'",
        "SELECT /* one\n or two */ 1, 'a  b -- c'",
        "SELECT 1, -- it's one\n'a  b -- c'",
        "\n\t-- first\n\tSELECT 1, 'a  b -- c' -- last",
    ],
)
def test_comments_and_white_space_do_not_count(other):
    assert checksum([other]) == checksum(["SELECT 1, 'a  b -- c'"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 'a  b'", "SELECT 'a b'"),
        ("SELECT '-- a'", "SELECT '-- b'"),
        ("SELECT 'it''s  a'", "SELECT 'it''s a'"),
        (r"SELECT E'it\'s  a'", r"SELECT E'it\'s a'"),
        ('SELECT "a  b"', 'SELECT "a b"'),
        ("DO $$ BEGIN  END $$", "DO $$ BEGIN END $$"),
        ("DO $x$ -- a\n $x$", "DO $x$ -- b\n $x$"),
        ("DO $x$ $$  $$ $x$", "DO $x$ $$ $$ $x$"),
        ("SELECT 1", "SELECT 2"),
        ("SELECT 1", "SELECT1"),
    ],
)
def test_what_stands_in_quotes_does_count(one, other):
    assert checksum([one]) != checksum([other])


def test_line_ends_in_quotes_do_not_count_either():
    assert checksum(["SELECT 'a\r\nb'"]) == checksum(["SELECT 'a\nb'"])


def test_a_backslash_ends_no_plain_string():
    """Outside of E'' a backslash is a letter: the comment after the string is a comment."""
    assert checksum([r"SELECT '\' -- one"]) == checksum([r"SELECT '\' -- two"])


def test_comments_nest():
    assert checksum(["SELECT /* a /* b */ c */ 1"]) == checksum(["SELECT 1"])


def test_the_number_and_the_order_of_statements_count():
    assert checksum(["a", "b"]) != checksum(["b", "a"])
    assert checksum(["a", "b"]) != checksum(["a b"])


def test_a_try_waits_shortly_and_the_pause_lets_the_queue_drain():
    tries = list(itertools.islice(backoff.tries(), 60))
    assert [round(t.wait, 3) for t in tries[:8]] == [0.04] * 3 + [0.08] * 3 + [0.16] * 2
    assert max(t.wait for t in tries) == 0.2
    assert all(t.pause >= 4 * t.wait for t in tries)
    assert max(t.pause for t in tries) <= 8
    assert tries[-1].pause > tries[0].pause
    assert len({t.pause for t in tries}) > 50, "no jitter"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, TWO[1]) for text in ("2", "002", "02", "head", "heads")),
        *((text, TWO[0]) for text in ("1", "001")),
        *((text, None) for text in ("base", "0", "000")),
    ],
)
def test_a_revision_is_named_by_number_or_identifier(text, found):
    assert revision_files.find(TWO, text) is found


@pytest.mark.parametrize(
    "text", ["3", "003", "-1", "+1", "1.0", "", " ", "one", "²", "002_x", pytest.param("9" * 5000, id="long")]
)
def test_an_unknown_revision_is_wrong_usage(text):
    with pytest.raises(UsageError, match="Unknown revision") as raised:
        revision_files.find(TWO, text)
    assert raised.value.exit_code == 2
    assert "001 to 002" in raised.value.message


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "no migration files found"),
        (["001_a.py", "003_c.py"], "Migration file 002 is missing: the next one found is 003_c.py"),
        (["002_b.py"], "Migration file 001 is missing"),
        (["001_a.py", "002_b.py", "002_c.py"], "Two migration files have the number 2: 002_b.py, 002_c.py"),
        (["001_a.py", "0001_b.py"], "Two migration files have the number 1"),
        (["000_a.py"], "number 0"),
        (["001_a.py", "1_b.py"], "1_b.py is not named NNN_words.py"),
        (["001_a.py", "002_B.py"], "002_B.py is not named"),
        (["001_a.py", "002-b.py"], "002-b.py is not named"),
        (["001_.py"], "001_.py is not named"),
        (["001_a.py", "notes.py"], "notes.py is not named"),
    ],
)
def test_file_names_that_do_not_fit(tmp_path, names, problem):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(RevisionFilesError) as raised:
        revision_files.read(tmp_path)
    assert problem in raised.value.message
    assert raised.value.exit_code == 3


def test_other_files_in_the_folder_are_nobodys_business(tmp_path):
    for name in ("001_a.py", "002_b.py", "README.md", "001_a.py.orig"):
        (tmp_path / name).touch()
    (tmp_path / "__pycache__").mkdir()
    assert [revision.name for revision in revision_files.read(tmp_path)] == ["001_a", "002_b"]


def test_a_thousand_revisions_and_more_keep_their_order(tmp_path):
    for n in range(1, 1002):
        (tmp_path / f"{n:03}_x.py").touch()
    assert [revision.number for revision in revision_files.read(tmp_path)] == list(range(1, 1002))


def test_an_alembic_ini_without_a_folder(tmp_path):
    ini = tmp_path / "alembic.ini"
    for content in ("[alembic]\n", "script_location = x\n", "[alembic]\nscript_location = %(nobody)s\n", ""):
        ini.write_text(content)
        with pytest.raises(RevisionFilesError, match="script_location"):
            revision_files.directory(ini)
    ini.write_text("[alembic]\nscript_location = %(here)s/nowhere\n")
    with pytest.raises(RevisionFilesError, match=r"no migration files found: the folder .*nowhere"):
        revision_files.directory(ini)


@pytest.mark.parametrize(("text", "value"), [(None, 0), ("", 0), ("002", 2), ("1000", 1000), ("ab12", 0)])
def test_the_number_of_an_identifier(text, value):
    assert number(text) == value


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None])
def test_signs_become_words_where_a_terminal_cannot_show_them(encoding):
    assert plain("✅ done", encoding) == "[ok] done"
    assert plain("❌ no", encoding) == "[failed] no"
    assert plain("⚠️  WARNING: a → b", encoding) == "[warning]  WARNING: a -> b"


def test_what_can_be_shown_is_left_as_it_is():
    assert plain("✅ Größe → 日本", "utf-8") == "✅ Größe → 日本"
    assert plain("Größe", "latin-1") == "Größe"
    assert plain("Größe", "ascii") == "Gr??e"


def test_the_locks_of_golang_migrate_are_those_of_its_two_ways_to_open_a_database():
    application, command = golang_keys("guvnor")
    assert application != command
    assert {0 <= key < 2**32 for key in (application, command)} == {True}
    assert golang_keys("guvnor") == (application, command)


def test_a_server_older_than_14_is_refused():
    identity = Identity("db1", 5432, "guvnor", "deploy", 130012, "13.12", 5, None, False, False)
    with pytest.raises(PreflightError, match=r"runs PostgreSQL 13\.12; version 14 or newer is needed"):
        preflight._server("", None, identity)


def test_an_alembic_ini_that_cannot_be_read(tmp_path):
    with pytest.raises(RevisionFilesError, match="cannot be read: Is a directory"):
        revision_files.directory(tmp_path)
