"""Finds each TODO in the comments of a revision file, in Python and in SQL.

The template and autogenerate leave one where a person has to decide. Pre-flight and lint refuse it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

_TODO = re.compile(r"\bTODO\b")
_SQL_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def lines(text: str) -> tuple[int, ...]:
    """Return the lines of a revision file on which a TODO is left.

    :param text: of the file, which Python can parse.
    """
    if not _TODO.search(text):
        return ()
    return tuple(sorted({*_in_python(text), *_in_sql(text)}))


def _in_python(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and _TODO.search(token.string):
            yield token.start[0]


def _in_sql(text: str) -> Iterator[int]:
    """Search every literal. A comment within a DO block counts, too, so quotes in the SQL are ignored."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for comment in _SQL_COMMENT.finditer(node.value):
                if found := _TODO.search(comment[0]):
                    yield node.lineno + node.value.count("\n", 0, comment.start() + found.start())
