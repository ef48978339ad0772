"""Comments that suppress a problem: ``# lint: ignore RULE: reason``."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from guvnor.lint.problem import LintProblem
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import LintRule

_COMMENT = re.compile(r"#\s*lint:\s*ignore\b\s*(?P<rule>[\w-]*)\s*:?\s*(?P<reason>.*)")

UNUSED = LintRule(
    "unused-ignore",
    "An ignore names a known rule, gives a reason, and suppresses a problem.",
    "A stale ignore would hide the next problem. This rule cannot be ignored itself.",
    "Delete the comment, or write the reason.",
    """\
# lint: ignore ban-drop-column: no version since 4.2 reads or writes it
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS payload jsonb")""",
    """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS payload jsonb")""",
)


@dataclass(frozen=True)
class _Ignore:
    """One such comment, and the lines that it applies to."""

    line: int
    rule: str
    reason: str
    lines: range

    def covers(self, problem: LintProblem) -> bool:
        """Return whether the comment suppresses a problem."""
        return bool(self.reason) and problem.rule == self.rule and (problem.line or 0) in self.lines


def _read_ignores(source: RevisionSource) -> Iterator[_Ignore]:
    """Return the ignores of a revision file, which are Python comments, not SQL comments."""
    lines = source.text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and (match := _COMMENT.match(token.string)):
            line, column = token.start
            first, last = _lines(source, line, alone=not lines[line - 1][:column].strip())
            yield _Ignore(line, match["rule"], match["reason"].strip(), range(first, last + 1))


def _lines(source: RevisionSource, line: int, *, alone: bool) -> tuple[int, int]:
    """Return the first and the last line of the statement beside, below or around a comment.

    A comment beside or above a function applies to the whole function.

    :param alone: whether the comment has the line to itself.
    """
    statements = [node for node in ast.walk(source.tree) if isinstance(node, ast.stmt)]
    spans = [(node.lineno, node.end_lineno or node.lineno) for node in statements]
    around = [span for span in spans if span[0] <= line <= span[1]]
    within = min(around, key=lambda span: span[1] - span[0], default=None)
    if not alone and within:
        return within
    below = min((span for span in spans if span[0] > line), default=None)
    # The statement below, unless the comment is inside a statement, such as among the arguments of a call.
    if below and (within is None or below[1] <= within[1]):
        return max(span for span in spans if span[0] == below[0])
    return within or (line, line)


def apply(found: list[LintProblem], source: RevisionSource, known: set[str]) -> Iterator[LintProblem]:
    """Return the problems that no ignore suppresses, and those of the ignores themselves.

    :param found: the problems of the file.
    :param known: the names of all rules.
    """
    ignores = list(_read_ignores(source))
    for problem in found:
        if not any(ignore.covers(problem) for ignore in ignores):
            yield problem
    for ignore in ignores:
        if ignore.rule not in known | {problem.rule for problem in found}:
            message = f"The ignore names no known rule: {ignore.rule or '(nothing)'}."
            help_ = "Name a rule of docs/lint.md: # lint: ignore RULE: reason"
        elif not ignore.reason:
            message = f"The ignore of {ignore.rule} gives no reason."
            help_ = f"Say why it does no harm here: # lint: ignore {ignore.rule}: reason"
        elif not any(ignore.covers(problem) for problem in found):
            message = f"The ignore of {ignore.rule} suppresses nothing: there is no such problem here."
            help_ = "Delete the comment."
        else:
            continue
        yield LintProblem(UNUSED.name, source.shown, ignore.line, None, message, help_)
