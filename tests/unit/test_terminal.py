"""Are lines wrapped between words, and commands in a way in which they can still be pasted?"""

from __future__ import annotations

import shlex

import pytest

from guvnor.terminal import cells, laid_out

LINES = (
    "⚠️  WARNING: extension uuid-ossp is not available: gen_random_uuid() stands in for it, whatever is asked",
    "   State: The revision is half done: what came before its online part is committed, and it ended.",
    "   Next:  Correct the revision or what it ran into, and see the pages about it, then run guvnor again",
    "Pending Migrations: 003_one_that_is_long, 004_another_one_of_these, 005_the_third_of_them, 006_the_last",
    "❌ Kurz: 日本語のテキスト 日本語のテキスト 日本語のテキスト 日本語のテキスト 日本語のテキスト 日本語",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_word_is_torn_and_no_line_too_wide(line, width):
    wrapped = laid_out(line, width).splitlines()
    assert len(wrapped) > 1
    assert all(cells(part) <= width for part in wrapped)
    assert " ".join(wrapped).split() == line.split()
    assert all(part.startswith("   ") for part in wrapped[1:]), "it goes on below its beginning"


def test_a_pipe_gets_the_line_as_it_is():
    assert all(laid_out(line, None) == line for line in LINES)


@pytest.mark.parametrize(
    "command",
    [
        "guvnor migrate down --to 001 --backup '/var/backups/of guvnor/and more' --backup-recipient age1ab",
        "psql -h localhost -p 5432 -c 'CREATE ROLE \"somebody with a name\" LOGIN' --set ON_ERROR_STOP=1",
        "scripts/deploy --wait-for-server 60s --backup /var/backups/of/guvnor --result /tmp/result.json",
    ],
)
def test_a_command_can_be_pasted(command):
    lines = laid_out(f"   Next:  {command}   # once that transaction has ended", 60).splitlines()
    assert all(cells(line) <= 60 for line in lines)
    pasted = "\n".join(lines).removeprefix("   Next:  ")
    assert shlex.split(pasted.replace("\\\n", ""), comments=True) == shlex.split(command)


def test_a_command_after_words_has_lines_of_its_own():
    command = "GUVNOR_ENV=production scripts/deploy --result /var/log/result.json --wait-for-server 20s"
    words = "   Next:  Correct the rows that violate it, then: "
    first, *lines = laid_out(words + command, 60).splitlines()
    assert first == words.rstrip()
    assert all(cells(line) <= 60 for line in lines)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


def test_sql_is_broken_outside_of_quotes_only():
    sql = (
        "    ALTER TABLE t ADD CONSTRAINT c CHECK (status IN ('a text with spaces', 'and another of these'))"
    )
    lines = laid_out(sql, 60, code=True).splitlines()
    assert all(cells(line) <= 60 for line in lines)
    assert "'and another of these'" in "".join(lines)
    noted = laid_out(f"    -- {'a note about the statement ' * 4}", 60, code=True).splitlines()
    assert all(line.startswith("    -- ") for line in noted)
    after = laid_out(f"    SELECT 1; -- it's {'a long comment ' * 5}", 60, code=True).splitlines()
    assert after[0] == "    SELECT 1;"
    assert all(line.startswith("      -- ") for line in after[1:])
