"""Comments that let a problem pass: ``# lint: ignore RULE: reason``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from guvnor.lint.problem import Problem
from guvnor.lint.source import Comment, Source

RULE = "unused-ignore"
_COMMENT = re.compile(r"#\s*lint:\s*ignore\b\s*(?P<rule>[\w-]*)\s*:?\s*(?P<reason>.*)")


@dataclass(frozen=True)
class Ignore:
    """One such comment, and the lines that it is for."""

    line: int
    rule: str
    reason: str
    first: int
    last: int

    def covers(self, problem: Problem) -> bool:
        """Tell whether a problem is one that the comment lets pass."""
        line = problem.line or 0
        return bool(self.reason) and problem.rule == self.rule and self.first <= line <= self.last


def read(source: Source) -> tuple[Ignore, ...]:
    """Return the ignores of a revision file."""
    return tuple(
        Ignore(comment.line, match["rule"], match["reason"].strip(), *_lines(source, comment))
        for comment in source.comments
        if (match := _COMMENT.match(comment.text))
    )


def _lines(source: Source, comment: Comment) -> tuple[int, int]:
    """Return the first and the last line of the statement that a comment stands at, above, or in.

    At or above a function it is the whole function.
    """
    statements = [node for node in ast.walk(source.tree) if isinstance(node, ast.stmt)]
    spans = [(node.lineno, node.end_lineno or node.lineno) for node in statements]
    around = [span for span in spans if span[0] <= comment.line <= span[1]]
    within = min(around, key=lambda span: span[1] - span[0], default=None)
    if not comment.alone and within:
        return within
    below = min((span for span in spans if span[0] > comment.line), default=None)
    # Above a statement, unless it stands within one, such as among the arguments of a call.
    if below and (within is None or below[1] <= within[1]):
        return max(span for span in spans if span[0] == below[0])
    return within or (comment.line, comment.line)


def apply(problems: Iterable[Problem], source: Source, known: Iterable[str]) -> Iterator[Problem]:
    """Leave out the problems that an ignore lets pass, and add those of the ignores themselves.

    :param known: the names of all rules.
    """
    found, ignores, names = list(problems), read(source), set(known)
    for problem in found:
        if not any(ignore.covers(problem) for ignore in ignores):
            yield problem
    for ignore in ignores:
        if ignore.rule not in names | {p.rule for p in found}:
            message = f"The ignore names no known rule: {ignore.rule or 'none at all'}."
            help_ = "Name a rule of docs/lint.md: # lint: ignore RULE: reason"
        elif not ignore.reason:
            message = f"The ignore of {ignore.rule} gives no reason."
            help_ = f"Say why it does no harm here: # lint: ignore {ignore.rule}: reason"
        elif not any(ignore.covers(problem) for problem in found):
            message = f"The ignore of {ignore.rule} lets nothing pass: there is no such problem here."
            help_ = "Take the comment out."
        else:
            continue
        yield Problem(RULE, source.shown, ignore.line, None, message, help_)
