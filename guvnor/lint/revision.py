"""A revision file as the rules read it: its Python, and the parsed SQL of both directions."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

from guvnor.lint.parsing import ParsedStatement, SyntaxProblem, parse_statements
from guvnor.lint.problem import Violation
from guvnor.lint.rendering import RenderedCall, RenderedDirection, render
from guvnor.lint.server_parser import ServerParser
from guvnor.revisions import acceptances, files as revision_files
from guvnor.revisions.acceptances import Acceptance
from guvnor.revisions.check import todo_lines

FUNCTIONS = {"up": "upgrade", "down": "downgrade"}


@dataclass(frozen=True)
class RevisionSource:
    """A revision file: its name, its path as reports show it, and its content.

    :ivar earlier: the files that come before it.
    :ivar server: reads SQL that the parser does not know yet; None where there is no server.
    :ivar again: for each direction, the statements of another rendering and whether it failed; empty where
        there was none.
    """

    name: str
    shown: str
    text: str
    earlier: tuple[RevisionSource, ...] = field(default=(), compare=False, repr=False)
    server: ServerParser | None = field(default=None, compare=False, repr=False)
    again: Mapping[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def number(self) -> int | None:
        """The number in the file's name; None when it has none."""
        return revision_files.number_of(self.name)

    @cached_property
    def tree(self) -> ast.Module:
        """The parse tree of the file.

        :raises SyntaxError: when it is not valid Python.
        """
        return ast.parse(self.text, self.shown)

    @cached_property
    def module(self) -> ModuleType:
        """The imported file; tracebacks and frames of its functions name ``shown`` as their file."""
        module = ModuleType(self.name.removesuffix(".py"))
        # A revision is this project's code, which every Alembic command runs, too.
        exec(compile(self.tree, self.shown, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        return module

    def line_of(self, name: str) -> int | None:
        """Return the line on which a function or a variable of the file is defined."""
        match = re.search(rf"^(def {name}\b|{name}\b[^=\n]*=)", self.text, re.MULTILINE)
        return self.text.count("\n", 0, match.start()) + 1 if match else None

    def assigned_string(self, name: str) -> str | None:
        """Return the string that the file assigns to a variable; None when it assigns none."""
        match = re.search(rf"^{name}\b[^=\n]*=\s*([\"'])(.*?)\1", self.text, re.MULTILINE)
        return match[2] if match else None

    @cached_property
    def acceptances(self) -> tuple[Acceptance, ...]:
        """The changes of data that the file accepts."""
        return acceptances.read(self.text)

    @cached_property
    def directions(self) -> tuple[RenderedDirection, ...]:
        """``upgrade()`` and ``downgrade()`` as SQL."""
        functions = {direction: getattr(self.module, name, None) for direction, name in FUNCTIONS.items()}
        return tuple(render(*each, self.tree, self.shown) for each in functions.items())

    @property
    def statements(self) -> list[ParsedStatement]:
        """Every statement of both directions that PostgreSQL's parser understands."""
        return [item for item in self._parsed if isinstance(item, ParsedStatement)]

    @property
    def refused(self) -> list[Violation]:
        """What PostgreSQL's parser says of the SQL that it does not understand."""
        return [item for item in self._parsed if isinstance(item, Violation)]

    @cached_property
    def _parsed(self) -> list[ParsedStatement | Violation]:
        return [item for rendered in self.directions for call in rendered.calls for item in self._parse(call)]

    def _parse(self, call: RenderedCall) -> Sequence[ParsedStatement | Violation]:
        try:
            if found := parse_statements(call, self.server):
                return found
        except SyntaxProblem as problem:
            return [Violation(call.line, call.direction, str(problem))]
        if todo_lines(call.sql):  # `no-todo` finds it
            return []
        return [Violation(call.line, call.direction, "There is no statement in the SQL.")]
