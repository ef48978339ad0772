"""Is the report Markdown that GitHub shows as it is meant, and short enough for a comment?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from guvnor.errors import ExitCode
from guvnor.reports import review as review_report
from guvnor.reports.formats import code
from guvnor.review.effects import DirectionEffects, RevisionEffects
from guvnor.review.review import Review, ReviewCheck
from guvnor.schema.compare import Finding
from guvnor.schema.drift import DriftReport
from guvnor.schema.rehearsal import Lock, StatementEffect


def made(*parts: RevisionEffects, summary: str = "All is well.", next_step: str | None = None) -> Review:
    verdict = "failed" if next_step else "passed"
    code = ExitCode.PREFLIGHT if next_step else ExitCode.DONE
    check = ReviewCheck(
        "Lint", verdict, summary, next_step, code, "2 problems" if next_step else "no problem"
    )
    return Review("origin/main", tuple(part.file for part in parts), "alembic/versions", [check], parts=parts)


def part(number: int, statements: int = 1) -> RevisionEffects:
    sql = tuple(f"CREATE TABLE t{number}_{n} (id integer)" for n in range(statements))
    return RevisionEffects(
        f"{number:03}",
        f"add {number}",
        f"{number:03}_add.py",
        DirectionEffects(sql),
        DirectionEffects(("SELECT 1",)),
    )


def test_the_whole_report_is_not_cut() -> None:
    text = review_report.as_markdown(made(part(3, 5000)))
    assert len(text) > review_report.COMMENT_LIMIT
    assert text.count("CREATE TABLE") == 5000
    assert "guvnor schema review" not in text


@pytest.mark.parametrize("parts", [[part(3, 5000)], [part(n, 300) for n in range(3, 40)]])
def test_long_parts_are_cut_and_say_so(parts: list[RevisionEffects]) -> None:
    text = review_report.as_markdown(made(*parts, part(90)), review_report.COMMENT_LIMIT)
    assert 20_000 < len(text) <= review_report.COMMENT_LIMIT < 65_536
    assert text.startswith(f"{review_report.MARKER}\n## ✅ Migrations")
    assert "more lines: the whole report: guvnor schema review" in text
    # Every revision is there, and short parts are whole.
    assert all(f"### {p.revision}" in text for p in parts)
    assert "CREATE TABLE t90_0 (id integer);" in text
    assert_balanced(text)


def test_too_many_parts_are_cut_at_the_end() -> None:
    text = review_report.as_markdown(made(*(part(n) for n in range(3, 900))), review_report.COMMENT_LIMIT)
    assert 60_000 < len(text) <= review_report.COMMENT_LIMIT
    assert text.endswith("*… cut here: the whole report: guvnor schema review*\n")
    assert_balanced(text)


def assert_balanced(text: str) -> None:
    assert text.count("<details>") == text.count("</details>")
    assert text.count("```") % 2 == 0
    # Without a blank line, what follows is HTML.
    assert text.count("</summary>") == text.count("</summary>\n\n")


def test_what_a_branch_says_is_neither_markdown_nor_html() -> None:
    text = review_report.as_markdown(
        made(
            RevisionEffects(
                "003",
                "add *bold* <img src=x> `code`",
                "003_add.py",
                DirectionEffects(
                    ("SELECT '```' || '</details>'",),
                    seen=(StatementEffect("SELECT a | b FROM `t`", (Lock("t", "SHARE"),)),),
                ),
                DirectionEffects(()),
            ),
            summary="one | two\n<b>three</b>",
        )
    )
    assert "- **Lint.** one | two &lt;b&gt;three&lt;/b&gt;\n" in text
    assert "### 003 add \\*bold\\* &lt;img src=x&gt; \\`code\\`" in text
    assert "````sql\nSELECT '```' || '</details>';\n````" in text
    assert "| `` SELECT a \\| b FROM `t` `` | locks t: SHARE |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4}


def test_what_failed_comes_first_with_what_to_do() -> None:
    text = review_report.as_markdown(made(part(3), summary="Problems: 2.", next_step="guvnor schema lint"))
    assert text.splitlines()[1] == "## ❌ Migrations: 1 of 1 check failed (1 new revision)"
    assert text.index("### What to do") < text.index("guvnor schema lint") < text.index("### 003")


def test_the_table_of_checks_holds_counts_and_the_sentences_stand_below() -> None:
    """GitHub shows a comment in a column that a sentence would not fit beside two others."""
    verdicts = ("failed", "warning", "passed", "skipped")
    words = "A sentence that is far too long for the cell of a table, with incidents.idx_incidents_priority."
    checks = [
        ReviewCheck(verdict.title(), verdict, words, "one\ntwo", ExitCode.DONE, "12 differences")
        for verdict in verdicts
    ]
    text = review_report.as_markdown(replace(made(part(3)), checks=checks))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 6
    assert max(map(len, table)) <= 60
    assert words not in "\n".join(table)
    assert text.count(words) == 4
    order = ["| ➖", "### What to do", "**Failed.** A", "one\ntwo", "### What to look at", "**Warning.** A"]
    assert sorted(order, key=text.index) == order
    assert text.index("**Warning.** A") < text.index("**Passed.** A") < text.index("**Skipped.** A")


def test_a_long_list_of_commands_is_folded() -> None:
    text = review_report.as_markdown(made(part(3), next_step="\n".join(f"do {n}" for n in range(20))))
    before, _, after = text.partition("<details>")
    assert ("do 3" in before, "```console\ndo 0\n" in after) == (False, True)


def test_a_cut_within_a_block_closes_it() -> None:
    finding = Finding("table", "t", "different", {"comment": "```"}, {"comment": "x\n" * 40_000}, "Odd.")
    review = replace(made(part(3)), drift=DriftReport("the models", "revision 003", (finding,), 0.1))
    text = review_report.as_markdown(review, review_report.COMMENT_LIMIT)
    cut = text[: text.index("*… ")]
    assert cut.rstrip().endswith("\n````")
    assert "### 003" in text


def test_backticks_in_a_name() -> None:
    assert [code(name) for name in ("a", "a`b", "``a`")] == ["`a`", "`` a`b ``", "``` ``a` ```"]


def test_the_models_are_not_a_database() -> None:
    finding = Finding("table", "t", "unexpected", None, {}, "No revision knows it.")
    review = replace(made(part(3)), drift=DriftReport("the models", "revision 003", (finding,), 0.1))
    text = review_report.as_markdown(review)
    assert "The revisions create it, but the models do not have it." in text
    assert "No revision knows it." not in text


@pytest.mark.parametrize(("sql", "shown"), [(";", ";"), ("SELECT 1 -- one", "SELECT 1 -- one\n;")])
def test_odd_statements(sql: str, shown: str) -> None:
    text = review_report.as_markdown(made(replace(part(3), up=DirectionEffects((sql,)))))
    assert f"```sql\n{shown}\n```" in text
