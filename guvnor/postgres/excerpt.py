"""What is shown of a revision's SQL, and of what the server says about it: an excerpt, without passwords.

It goes into logs and into the history, where others read it and where nothing is ever deleted.
"""

from __future__ import annotations

import re

from guvnor.config import MASK

_LINES = 12
_CHARACTERS = 2000

_HINTS_AT_A_SECRET = re.compile(r"passw|secret|://", re.IGNORECASE)

# Comments, which may hold a single quote, and the forms of a string (PostgreSQL documentation, "Lexical
# Structure"). A body in dollar quotes is no secret unless it is one word or follows the word PASSWORD.
_LEXEMES = re.compile(
    r"""
    (?P<comment>--[^\n]*|/\*.*?\*/)
    | \b[eE]'(?:[^'\\]|\\.|'')*(?:'|$)
    | '(?:[^']|'')*(?:'|$)
    | (?P<keyword>\bpassword\s+)?\$(?P<tag>\w*)\$(?P<body>.*?)\$(?P=tag)\$
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_USERINFO = re.compile(r"://[^\s/@]*@")
_ASSIGNED = re.compile(r"(passw\w*\s*=\s*)[^\s'\"$]+", re.IGNORECASE)


def excerpt(text: str) -> str:
    """Return the beginning of a text, without passwords; the end says how long the whole is."""
    shown = redacted(text.strip())
    lines = shown.splitlines()
    cut = "\n".join(lines[:_LINES])[:_CHARACTERS]
    if cut == "\n".join(lines):
        return cut
    return f"{cut}\n... (cut here: {len(lines):,} lines, {len(shown):,} characters in all)"


def redacted(sql: str) -> str:
    """Mask the strings of a statement that seems to hold a password, whatever they are."""
    if not _HINTS_AT_A_SECRET.search(sql):
        return sql
    return _ASSIGNED.sub(rf"\g<1>{MASK}", _USERINFO.sub(f"://{MASK}@", _LEXEMES.sub(_mask, sql)))


def _mask(found: re.Match[str]) -> str:
    if found["comment"]:
        return found[0]
    body = found["body"]
    if body is None:
        return f"'{MASK}'"
    quote = f"${found['tag']}$"
    hidden = MASK if found["keyword"] or not re.search(r"\s", body) else redacted(body)
    return f"{found['keyword'] or ''}{quote}{hidden}{quote}"
