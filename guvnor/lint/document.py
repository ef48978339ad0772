"""``docs/lint.md``: every rule with what it means, why, what to do instead, and its examples."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby

from guvnor.lint import ignores, squawk_rules
from guvnor.lint.rule import Rule
from guvnor.lint.rules import FILES_RULES, REVISION_RULES

INTRODUCTION = """\
# Lint

`guvnor schema lint` looks at the new revisions, and finds what a reviewer should not let pass. Do not edit
this page: change the rules in `guvnor/lint/`, then run `guvnor schema rules > docs/lint.md`.

```console
$ guvnor schema lint               # the revisions that are not on the main branch
$ guvnor schema lint --since 002   # the revisions after 002
```

It needs no database, and two wheels: `pip install 'guvnor-migrations[lint]'`. It exits with 0 when all is
well and with 3 when it finds something. `--json`, `--markdown` and `--github` are for programs, pull requests
and annotations of GitHub Actions.

The main branch is the target of the pull request in a workflow, else the remote's default branch, else `main`
or `master`.

The rules of this project stand beside those of [squawk](https://squawkhq.com/docs/rules), which knows what a
statement does to a busy table. Both read the SQL of both ways, as `guvnor migrate plan` shows it. What stands
in a `DO` block is read as well, by PostgreSQL's own parser; only SQL that a block puts together at run time
(`EXECUTE`) is not seen. A table that the same transaction has created is not busy.

## Let a problem pass

```python
# lint: ignore ban-drop-column: no version since 4.2 reads or writes it
op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")
```

The comment stands at the statement, above it or in it; at or above a function it is for the whole function.
It names one rule and the reason. What is about the files together cannot be ignored: `numbers` and
`applied-revision-changed`.
"""


def document() -> str:
    """Return the text of ``docs/lint.md``."""
    parts = [INTRODUCTION, "## The rules of this project\n"]
    parts += [_own(rule) for rule in (*REVISION_RULES, *FILES_RULES)]
    parts += [
        _explained(
            ignores.RULE,
            "An ignore names a known rule, gives a reason, and lets a problem pass. One that is left over "
            "would hide the next problem. This rule cannot be ignored.",
            "Take the comment out, or write the reason.",
        )
    ]
    parts += ["## The rules of squawk\n"]
    parts += [_squawk(rule) for rule in squawk_rules.RULES if rule.bad]
    parts += ["### Others that are on\n", "\n".join(_table()) + "\n"]
    parts += ["## The rules of squawk that are off\n", "\n".join(_excluded()) + "\n"]
    return "\n".join(parts)


def _own(rule: Rule) -> str:
    language = "python" if rule in REVISION_RULES else "text"
    return _explained(rule.name, f"{rule.meaning} {rule.why}", rule.instead) + _examples(
        rule.bad, rule.good, language
    )


def _squawk(rule: squawk_rules.SquawkRule) -> str:
    return _explained(rule.name, rule.why, rule.instead) + _examples(rule.bad, rule.good, "python")


def _explained(name: str, text: str, instead: str) -> str:
    paragraphs = [
        textwrap.fill(paragraph, 110, break_long_words=False, break_on_hyphens=False)
        for paragraph in (text, f"**Instead:** {instead}")
    ]
    return "\n\n".join((f"### `{name}`", *paragraphs)) + "\n"


def _examples(bad: str, good: str, language: str) -> str:
    return f"\nBad:\n\n```{language}\n{bad}\n```\n\nGood:\n\n```{language}\n{good}\n```\n"


def _table() -> Iterator[str]:
    yield "| rule | why | instead |"
    yield "| --- | --- | --- |"
    others = (rule for rule in squawk_rules.RULES if not rule.bad)
    for (why, instead), rules in groupby(others, key=lambda rule: (rule.why, rule.instead)):
        yield f"| {_names(rules)} | {why} | {instead} |"


def _excluded() -> Iterator[str]:
    yield "| rule | direction | reason |"
    yield "| --- | --- | --- |"
    for (directions, reason), rules in groupby(
        squawk_rules.EXCLUDED, key=lambda rule: (rule.directions, rule.reason)
    ):
        yield f"| {_names(rules)} | {' and '.join(directions)} | {reason} |"


def _names(rules: Iterable[squawk_rules.SquawkRule | squawk_rules.Exclusion]) -> str:
    return ", ".join(f"`{rule.name}`" for rule in rules)
