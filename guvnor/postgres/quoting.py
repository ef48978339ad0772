"""Quoting of names and texts in SQL."""

from __future__ import annotations

import hashlib
from typing import Any

LONGEST_NAME = 63  # bytes (PostgreSQL documentation, "Identifiers and Key Words")

# A pattern (re.VERBOSE, re.DOTALL) of quoted text as a whole, and of white space and comments, which may nest
# (PostgreSQL documentation, "Lexical Structure").
QUOTED_OR_BLANK = r"""
    (?P<quoted>
        (?<!\w)[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
        | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    )
    | (?P<blank> (?: \s | --[^\n]* | /\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*.*?\*/)*\*/ )+ )
"""


def identifier(name: Any) -> str:
    """Quote a name where it needs quotes."""
    text = str(name)
    plain = text.isascii() and text.replace("_", "a").isalnum() and text.islower() and not text[0].isdigit()
    return text if plain else quoted(text)


def quoted(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def constant(text: str) -> str:
    """Return text as a constant in SQL."""
    return "'" + text.replace("'", "''") + "'"


def unquoted(name: str) -> str:
    """Return a name as the catalogs hold it.

    :param name: the name as SQL writes it.
    """
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def suffixed(name: str, suffix: str) -> str:
    """Return the name of an object that temporarily exists beside another one, as SQL writes it.

    :param name: the name of the other object, as SQL writes it.
    :param suffix: what is appended to that name.
    """
    whole = unquoted(name).encode()
    if len(whole) + len(suffix) > LONGEST_NAME:  # other names may begin in the same way
        suffix = f"_{hashlib.sha256(whole).hexdigest()[:6]}{suffix}"
    bare = whole[: LONGEST_NAME - len(suffix)].decode(errors="ignore") + suffix
    return quoted(bare) if name.startswith('"') else bare
