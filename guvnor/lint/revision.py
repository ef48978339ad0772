"""A revision file as the rules see it: its Python, and the parsed SQL of both directions."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

from guvnor.lint.parsing import ParsedStatement, SyntaxProblem, parse_statements
from guvnor.lint.problem import Violation
from guvnor.lint.rendering import RenderedDirection, render
from guvnor.revisions import files as revision_files

FUNCTIONS = {"up": "upgrade", "down": "downgrade"}


@dataclass(frozen=True)
class RevisionSource:
    """A revision file.

    :ivar name: the file's name.
    :ivar shown: its path, as a report shows it.
    :ivar text: its content.
    """

    name: str
    shown: str
    text: str

    @property
    def number(self) -> int | None:
        """The number in the file's name; None when it has none."""
        return revision_files.number(self.name)

    @cached_property
    def tree(self) -> ast.Module:
        """The file as Python parses it.

        :raises SyntaxError: when it is not valid Python.
        """
        return ast.parse(self.text, self.shown)

    @cached_property
    def module(self) -> ModuleType:
        """The file, imported; tracebacks and frames of its functions name ``shown`` as their file."""
        module = ModuleType(self.name.removesuffix(".py"))
        # A revision is code of this project, and every command of Alembic runs it too.
        exec(compile(self.tree, self.shown, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        return module

    def line_of(self, name: str) -> int | None:
        """Return the line on which a function or a variable of the file is defined."""
        return getattr(self._definition(name), "lineno", None)

    def assigned_constant(self, name: str) -> Any:
        """Return the constant that the file assigns to a variable; None when it assigns none."""
        value = getattr(self._definition(name), "value", None)
        return value.value if isinstance(value, ast.Constant) else None

    def _definition(self, name: str) -> ast.stmt | None:
        """Return the statement that defines a name; None where there is none, or the file is not Python."""
        try:
            body = self.tree.body
        except SyntaxError:
            return None
        return next((node for node in body if name in _defined(node)), None)

    @cached_property
    def directions(self) -> tuple[RenderedDirection, ...]:
        """``upgrade()`` and ``downgrade()`` as SQL."""
        rendered = []
        for direction, name in FUNCTIONS.items():
            function = getattr(self.module, name, None)
            body = function if isinstance(function, FunctionType) else None
            rendered.append(render(direction, body, self.tree, self.shown))
        return tuple(rendered)

    @property
    def statements(self) -> tuple[ParsedStatement, ...]:
        """Every statement of both directions that PostgreSQL's parser understands."""
        return self._parsed[0]

    @property
    def refused(self) -> tuple[Violation, ...]:
        """What PostgreSQL's parser says of the SQL that it does not understand."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[tuple[ParsedStatement, ...], tuple[Violation, ...]]:
        statements: list[ParsedStatement] = []
        refused: list[Violation] = []
        for call in (call for rendered in self.directions for call in rendered.calls):
            try:
                found = parse_statements(call)
                complaint = None if found else "there is no statement in it"
            except SyntaxProblem as problem:
                found, complaint = [], str(problem)
            statements += found
            if complaint:
                message = f"PostgreSQL does not understand the SQL: {complaint}."
                refused.append(Violation(call.line, call.direction, message))
        return tuple(statements), tuple(refused)


def _defined(node: ast.stmt) -> list[str]:
    """Return the function that a statement defines, or the variables that it assigns to."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]
