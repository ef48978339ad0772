"""A rule: the text that explains it, and a function that finds violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guvnor.lint.files import NewRevisions
from guvnor.lint.problem import LintProblem, Violation
from guvnor.lint.revision import RevisionSource


@dataclass(frozen=True)
class LintRule:
    """A rule, as ``docs/lint.md`` explains it.

    :ivar meaning: what it requires, in one sentence.
    :ivar why: what goes wrong otherwise.
    :ivar bad: an example that breaks this rule and no other: the body of ``upgrade()``, a whole file where it
        defines functions, or a listing of files.
    :ivar good: the same thing done well.
    """

    name: str
    meaning: str
    why: str
    instead: str
    bad: str
    good: str


@dataclass(frozen=True)
class RevisionRule(LintRule):
    """A rule about a single revision."""

    violations: Callable[[RevisionSource], Iterator[Violation]]


@dataclass(frozen=True)
class FilesRule(LintRule):
    """A rule about the revision files as a whole."""

    problems: Callable[[NewRevisions], Iterator[LintProblem]]
