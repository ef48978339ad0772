r"""Where a revision file has an escaped colon, ``\:`` before a word, and what to write instead.

A revision that is still to be applied must not have one; see :mod:`guvnor.postgres.escaped_colons`.
``sqlalchemy.text()`` still takes them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guvnor.postgres.escaped_colons import is_in
from guvnor.postgres.excerpt import excerpt, redacted
from guvnor.revisions import files
from guvnor.revisions.files import RevisionFilesError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

MEANING = "op.execute runs SQL as it is written, so the backslash would reach the server"


@dataclass(frozen=True)
class EscapedColon:
    """A line of a revision file that has one.

    :ivar instead: the line without the backslash.
    """

    line: int
    instead: str


def lines(source: str) -> Iterator[EscapedColon]:
    """Find the lines whose strings have an escaped colon; those that are passed to ``text()`` may have one.

    :param source: the text of a revision file, which is valid Python.
    """
    written = source.split("\n")
    for constant in _strings(ast.parse(source)):
        first, last = constant.lineno, constant.end_lineno or constant.lineno
        raw = re.match(r"[bBfFuU]?[rR]", written[first - 1][constant.col_offset :]) is not None
        escape = re.compile(r"\\(?=:\w)" if raw else r"\\{1,2}(?=:\w)")
        for number in range(first, last + 1):
            if escape.search(line := written[number - 1]):
                yield EscapedColon(number, escape.sub("", line).strip())


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Return the strings that have one, but docstrings and what is passed to ``text()``."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Call(func=ast.Name(id="text") | ast.Attribute(attr="text")):
                continue
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Constant(value=str(value)) if is_in(value):
                yield node
        yield from _strings(node)


def check(script: ScriptDirectory, identifiers: Iterable[str]) -> None:
    """Check that no revision that is to be applied has an escaped colon, in either direction.

    :param identifiers: the revisions.
    :raises RevisionFilesError: when one does, with the lines and what to write instead.
    """
    from guvnor.revisions.statements import render

    for identifier in identifiers:
        module = script.get_revision(identifier).module
        path = Path(str(module.__file__))
        functions: tuple[Callable[[], object], ...] = (module.upgrade, module.downgrade)
        sql = [text for function in functions for text in render(function).escaped_colons]
        if not sql:
            continue
        found = tuple(dict.fromkeys(lines(files.text(path))))
        where = f", line {found[0].line}," if found else ""
        edits = [f"line {each.line} becomes: {redacted(each.instead)}" for each in found]
        raise RevisionFilesError(
            f"{path.name}{where} has a backslash before a colon: {MEANING}.\n{excerpt(sql[0])}",
            next_step="\n".join((f"$EDITOR {path}", *(edits or ["Write each \\: as : there."]))),
        )
