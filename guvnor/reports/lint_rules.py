"""``docs/lint.md``: the rules of this project with their examples, and a table of squawk's rules."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from guvnor.lint import ignores
from guvnor.lint.engine import FILES_RULES, REVISION_RULES
from guvnor.lint.rule import FilesRule, LintRule
from guvnor.lint.squawk_rules import ENFORCED, OFF, OFF_IN_DOWNGRADE

INTRODUCTION = """\
# Lint

`guvnor schema lint` checks the new revisions for what a reviewer should not let pass. Do not edit this page:
change the rules in `guvnor/lint/`, then run `guvnor schema rules > docs/lint.md`.

```console
$ guvnor schema lint               # the revisions that are not on the main branch
$ guvnor schema lint --since 002   # the revisions after 002
```

A revision is rendered twice, the second time in another process with another clock and environment, so that
SQL which is not the same twice is found.

It needs no database, but two packages: `pip install 'guvnor-migrations[lint]'`. It exits with 0 when there is
no problem, and with 3 when there is one. `--json` is for programs, `--markdown` for pull requests, and
`--github` for annotations of GitHub Actions.

The main branch is the target of the pull request in a workflow, else the remote's default branch, else `main`
or `master`.

Lint applies the rules of this project and those of [squawk](https://squawkhq.com/docs/rules), which knows
what a statement does to a busy table. Both check the SQL of `upgrade()` and `downgrade()` as `guvnor migrate
plan` shows it. PostgreSQL's own parser reads the statements in `DO` blocks, too; only SQL that a block builds
at run time (`EXECUTE`) is not checked. A table that the same transaction has created is not busy.

The parser is that of PostgreSQL 17. What it does not understand, such as `VIRTUAL` and `NOT ENFORCED` of
PostgreSQL 18, is read by the server of `--shadow-dsn`, or the server of a review, which runs nothing of it.

Where the server touches no row, squawk's alarm is left out: a new column whose default is computed once
(`CURRENT_DATE`), a `varchar`, `numeric` or time that becomes wider, as far as earlier revisions say what it
was and no check or index makes the server read the rows. `python -m tests.lint_corpus` counts false alarms
and misses over the revisions in `tests/lint_corpus/`.

## Ignore a problem

```python
# lint: ignore ban-drop-column: no version since 4.2 reads or writes it
op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")
```

Write the comment beside the statement, above it or inside it; beside or above a function, it applies to the
whole function. It names one rule and gives the reason. The ignore of a drop shows the reviewer where data is
lost. The rules about the files as a whole, `numbers` and `applied-revision-changed`, cannot be ignored.
"""

SQUAWK = """\
## The rules of squawk

[squawkhq.com](https://squawkhq.com/docs/rules) explains each rule; [migrations.md](migrations.md) explains
how to change a busy table with online operations. A downgrade may drop what the upgrade has created; in
production, the guard asks first.
"""


def page() -> str:
    """Return the text of ``docs/lint.md``."""
    rules = (*REVISION_RULES, *FILES_RULES, ignores.UNUSED)
    own = ["## The rules of this project\n", *(_explained(rule) for rule in rules)]
    return "\n".join((INTRODUCTION, *own, SQUAWK, *_squawk_table())) + "\n"


def _explained(rule: LintRule) -> str:
    paragraphs = [
        textwrap.fill(paragraph, 110, break_long_words=False, break_on_hyphens=False)
        for paragraph in (f"{rule.meaning} {rule.why}", f"**Instead:** {rule.instead}")
    ]
    language = "text" if isinstance(rule, FilesRule) else "python"
    examples = [
        f"{title}:\n\n```{language}\n{text}\n```" for title, text in (("Bad", rule.bad), ("Good", rule.good))
    ]
    return "\n\n".join((f"### `{rule.name}`", *paragraphs, *examples)) + "\n"


def _squawk_table() -> Iterator[str]:
    yield "| rule | verdict | what to write instead, or why it is off |"
    yield "| --- | --- | --- |"
    rows = []
    for name, instead in ENFORCED.items():
        verdict = "error; off in `downgrade()`" if name in OFF_IN_DOWNGRADE else "error"
        rows.append((verdict, instead or "see squawk's own help", name))
    rows += [("off", reason, name) for name, reason in OFF.items()]
    for (verdict, text), group in groupby(rows, key=lambda row: row[:2]):
        yield f"| {', '.join(f'`{name}`' for *_, name in group)} | {verdict} | {text} |"
