"""A revision as its rules see it: the file, and both ways as parsed SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from guvnor.lint import parsing
from guvnor.lint.parsing import Parsed, SyntaxProblem
from guvnor.lint.problem import Direction
from guvnor.lint.rendering import Rendered, Statement, render
from guvnor.lint.source import Source

FUNCTIONS: dict[Direction, str] = {"up": "upgrade", "down": "downgrade"}


@dataclass(frozen=True)
class Placed:
    """A parsed statement and the call that writes it."""

    parsed: Parsed
    call: Statement

    @property
    def line(self) -> int:
        """The line of the file on which it starts."""
        return self.line_of(0)

    def line_of(self, number: int) -> int:
        """Return the line of the file on which a line of the statement stands.

        :param number: of the line within the statement, from 0.
        """
        return self.call.line_of(self.parsed.line + number)


@dataclass(frozen=True)
class Way:
    """One direction of a revision.

    :ivar statements: what it runs, statement by statement.
    :ivar refused: the calls whose SQL PostgreSQL's parser refuses, each with what it says.
    """

    direction: Direction
    rendered: Rendered
    statements: tuple[Placed, ...]
    refused: tuple[tuple[Statement, str], ...]


class Revision:
    """A revision file and what it does."""

    def __init__(self, source: Source) -> None:
        """Look at a file; nothing is run before it is asked for."""
        self.source = source

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Both directions."""
        return tuple(_way(self.source, direction) for direction in FUNCTIONS)

    def statements(self) -> Iterator[tuple[Direction, Placed]]:
        """Return every statement of both directions."""
        for way in self.ways:
            for placed in way.statements:
                yield way.direction, placed


def _way(source: Source, direction: Direction) -> Way:
    rendered = render(source, FUNCTIONS[direction])
    statements: list[Placed] = []
    refused: list[tuple[Statement, str]] = []
    for call in rendered.statements:
        try:
            found = parsing.parse(call.sql)
        except SyntaxProblem as problem:
            refused.append((call, str(problem)))
            continue
        if not found:
            refused.append((call, "there is no statement in it"))
        for parsed in found:
            statements.append(Placed(parsed, call))
    return Way(direction, rendered, tuple(statements), tuple(refused))
