"""What a rule is: data that explains it, and a function that looks for what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guvnor.lint.files import Files
from guvnor.lint.problem import Direction, Problem
from guvnor.lint.revision import Revision


@dataclass(frozen=True)
class Finding:
    """Where a rule of a single revision is broken, and how."""

    line: int | None
    direction: Direction | None
    message: str


@dataclass(frozen=True)
class Rule:
    """A rule, as ``docs/lint.md`` explains it.

    :ivar meaning: what it asks for, in one sentence.
    :ivar why: what goes wrong otherwise.
    :ivar instead: what to do.
    :ivar bad: an example that breaks it, and no other rule: the body of ``upgrade()``, a whole file where it
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
class RevisionRule(Rule):
    """A rule that looks at one revision."""

    check: Callable[[Revision], Iterator[Finding]]


@dataclass(frozen=True)
class FilesRule(Rule):
    """A rule that looks at all revision files together."""

    check: Callable[[Files], Iterator[Problem]]
