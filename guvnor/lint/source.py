"""A revision file as text: its Python, its comments, and the SQL that stands in it."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

from guvnor.revisions import files as revision_files


@dataclass(frozen=True)
class Comment:
    """A comment of Python: its line, its text from the sign on, and whether it has the line to itself."""

    line: int
    text: str
    alone: bool


@dataclass(frozen=True)
class Source:
    """A revision file.

    :ivar name: the file's name.
    :ivar shown: where it is, as a report names it.
    :ivar text: what stands in it.
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

        :raises SyntaxError: when it is none.
        """
        return ast.parse(self.text, self.shown)

    @property
    def body(self) -> list[ast.stmt]:
        """The statements of the file; none when it is no Python."""
        try:
            return self.tree.body
        except SyntaxError:
            return []

    @cached_property
    def comments(self) -> tuple[Comment, ...]:
        """The comments of Python; those within SQL are text."""
        lines = self.text.splitlines()
        return tuple(
            Comment(token.start[0], token.string, not lines[token.start[0] - 1][: token.start[1]].strip())
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline)
            if token.type == tokenize.COMMENT
        )

    @cached_property
    def module(self) -> ModuleType:
        """The file as a module, run once more than Alembic does; its functions know it by ``shown``."""
        module = ModuleType(self.name.removesuffix(".py"))
        # A revision is code of this project, and every command of Alembic runs it too.
        exec(compile(self.tree, self.shown, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        return module

    def function(self, name: str) -> FunctionType | None:
        """Return a function of the file, such as ``upgrade``; None when there is none."""
        found = getattr(self.module, name, None)
        return found if isinstance(found, FunctionType) else None

    def line_of(self, name: str) -> int | None:
        """Return the line on which a function or a variable of the file is defined."""
        for node in self.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node.lineno
            if name in _assigned(node):
                return node.lineno
        return None

    def value(self, name: str) -> Any:
        """Return the constant that the file assigns to a variable; None where it is no constant."""
        for node in self.body:
            if name in _assigned(node):
                value = getattr(node, "value", None)
                return value.value if isinstance(value, ast.Constant) else None
        return None


def _assigned(node: ast.stmt) -> list[str]:
    """Return the variables that a statement assigns to."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]
