"""What is shown of a revision's SQL, and of what the server says about it: an excerpt, without passwords.

It goes into logs and into the history, where others read it and where nothing is ever deleted.
"""

from __future__ import annotations

import re

from guvnor.config import MASK
from guvnor.postgres.quoting import QUOTED_OR_BLANK

_LINES = 12
_CHARACTERS = 2000

_HINTS_AT_A_SECRET = re.compile(r"passw|secret|://", re.IGNORECASE)

# A body in dollar quotes is no secret unless it is one word or follows the word PASSWORD. A string without an
# end is one up to the end of the text.
_LEXEMES = re.compile(
    rf"(?P<keyword>\bpassword\s+)?(?:{QUOTED_OR_BLANK}) | '.*", re.VERBOSE | re.DOTALL | re.IGNORECASE
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
    quoted, tag = found["quoted"], found["tag"]
    if found["blank"]:
        return found[0]
    if quoted and quoted[0] == '"':
        # A name in SQL, but in the source of a revision it may be a string of Python that holds a statement.
        name = quoted[1:-1]
        holds_a_string = _HINTS_AT_A_SECRET.search(name) or name.count("'") > 1
        return f'{found["keyword"] or ""}"{_LEXEMES.sub(_mask, name)}"' if holds_a_string else found[0]
    keyword = found["keyword"] or ""
    if tag is None:
        return f"{keyword}'{MASK}'"
    quote = f"${tag}$"
    body = quoted[len(quote) : -len(quote)]
    hidden = MASK if keyword or not re.search(r"\s", body) else redacted(body)
    return f"{keyword}{quote}{hidden}{quote}"
