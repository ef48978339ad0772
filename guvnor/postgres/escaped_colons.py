r"""Escaped colons: ``\:`` before a word, which older releases took out of the text of ``op.execute``.

Their ``op.execute`` passed text through SQLAlchemy's ``text()``, for which a revision had to write
``'{"on_call"\:true}'``. Now text runs as it is written; a revision that is still to be applied must not hold
one, so one that is found was written for an older release, and goes on meaning what it has always meant.
"""

from __future__ import annotations

import re

# As SQLAlchemy's text() reads it (sqlalchemy.sql.compiler, BIND_PARAMS_ESC), where a word follows.
_ESCAPED = re.compile(r"\\(:\w+)(?![:\w])")
# What it took the backslash from in all.
_ESCAPED_BEFORE_ANYTHING = re.compile(r"\\(:\w*)(?![:\w])")


def is_in(sql: str) -> bool:
    """Tell whether text has an escaped colon."""
    return _ESCAPED.search(sql) is not None


def unescaped(sql: str) -> str:
    """Return text without the backslashes of its escaped colons."""
    return _ESCAPED.sub(r"\1", sql)


def as_rendered_before(sql: str) -> str:
    """Return text as older releases rendered it offline."""
    return _ESCAPED_BEFORE_ANYTHING.sub(r"\1", sql).replace("\t", "    ").strip()
