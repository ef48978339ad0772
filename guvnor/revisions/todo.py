"""Finds each TODO in the comments of a revision file, in Python and in SQL.

The template and autogenerate leave one where a person has to decide. Pre-flight and lint refuse it.
"""

from __future__ import annotations

import re

_TODO = re.compile(r"\bTODO\b")
# A comment within a DO block counts, too, so quotes are ignored.
_COMMENT = re.compile(r"(?:#|--)[^\n]*|/\*.*?\*/", re.DOTALL)


def lines(text: str) -> tuple[int, ...]:
    """Return the lines of a revision file on which a TODO is left."""
    found = (
        comment.start() + todo.start()
        for comment in _COMMENT.finditer(text)
        for todo in _TODO.finditer(comment[0])
    )
    return tuple(dict.fromkeys(text.count("\n", 0, position) + 1 for position in found))
