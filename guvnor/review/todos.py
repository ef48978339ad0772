"""Revisions with a TODO in them, made such that the rest of them can be tried."""

from __future__ import annotations

import ast
import re

from guvnor.revisions.check import TODO_COMMENT, todo_lines

_QUOTES = re.compile(rb"\w{0,2}(\"\"\"|'''|\"|')")
_INSTEAD = b"SELECT 1 /* still to do */ "


def runnable(text: str) -> str:
    """Return the text of a revision file without its TODOs; every line keeps its number.

    The pre-flight checks refuse a file with a TODO. A statement that consists of comments alone would fail.
    """
    if not todo_lines(text):
        return text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    lines = text.encode().split(b"\n")
    places = [
        (node.lineno - 1, node.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _says_nothing(node.value)
    ]
    for line, column in sorted(places, reverse=True):
        if quotes := _QUOTES.match(lines[line], column):
            lines[line] = lines[line][: quotes.end()] + _INSTEAD + lines[line][quotes.end() :]
    whole = b"\n".join(lines).decode()
    return TODO_COMMENT.sub(lambda comment: comment[0].replace("TODO", "todo"), whole)


def _says_nothing(sql: str) -> bool:
    """Return whether a text is SQL of which nothing is left without its comments, a TODO among them."""
    return bool(todo_lines(sql)) and not TODO_COMMENT.sub("", sql).strip(" \n\t;")
