"""Lines made for the terminal that shows them: wrapped between words, and colored where it helps.

A pipe or a file has no width: there, a line stays whole and without color.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import TextIO

_NARROWEST = 40  # columns; below that, nothing can be laid out
_STYLES = {"red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36", "bold": "1", "dim": "2"}
# A sign, or the label of a value: further lines begin below what follows it.
_BEGINNING = re.compile(r" *(?:(?:✅|❌|⚠️ |--|\+|~|-) +)?(?:[A-Z][a-z]+(?: [A-Z]?[a-z]+){0,2}: +)?")
_WORD = re.compile(r" *[^ ]+")
# A word of code, in which quotes hold spaces together.
_CODE_WORD = re.compile(r" *(?:'(?:[^']|'')*'|\"[^\"]*\"|[^ '\"]|['\"])+")
_COMMENT = re.compile(r"^(.*\S)( {2,})(#|--) (.*)$")
_SHELL = re.compile(
    r"(?:\$EDITOR|[A-Z_]+=\S*|\S*/(?:deploy|preflight|check_drift|quickstart|test)|alembic|cat|cd|createdb|df"
    r"|export|file|git|guvnor|ls|mv|pg_isready|pip|psql|squawk|tail|useradd)(?: |$)"
)
_TOLD = re.compile(r"(.*\b(?:[Tt]hen|accept it):) (\S.*)$")
_SQL = re.compile(r"[A-Z]{2,} .*;(?:   -- .*)?$")


@dataclass(frozen=True)
class Line:
    """A line of a report.

    :ivar style: a color, ``bold`` or ``dim``; empty for plain text.
    :ivar code: whether it is SQL, which is broken outside of quotes only.
    """

    text: str
    style: str = ""
    code: bool = False


def columns(stream: TextIO) -> int | None:
    """Return how many columns the terminal behind a stream has; None where it is a pipe or a file.

    ``COLUMNS`` overrides what the terminal says.
    """
    try:
        if not stream.isatty():
            return None
        given = os.environ.get("COLUMNS", "")
        found = int(given) if given.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return max(found or 80, _NARROWEST)


def cells(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if character.isascii():
        return 1
    if character == "\ufe0f":  # makes the sign before it an emoji, which is wide
        return 1
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def laid_out(text: str, width: int | None, *, code: bool = False) -> str:
    """Wrap each line of a text that is wider than a terminal, between words; a longer word stays whole.

    Further lines are indented. A line that is a command of a shell is broken in a way in which it can still
    be pasted.

    :param width: in columns; None for no limit.
    :param code: whether the text is SQL.
    """
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _laid_out(line, width, code))


def hung(beginning: str, text: str, width: int | None) -> str:
    """Wrap a text whose further lines begin below it and not below what stands before it.

    :param width: in columns; None for no limit.
    """
    line = f"{beginning}{text}"
    return line if width is None else "\n".join(_wrapped(line, width, " " * cells(beginning)))


def _laid_out(line: str, width: int, code: bool) -> list[str]:
    if cells(line) <= width:
        return [line]
    if code:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        return _wrapped_sql(line, width, indent)
    beginning = _BEGINNING.match(line)
    assert beginning is not None  # it matches nothing, too
    hang = cells(beginning[0])
    if not 0 < hang <= width // 4:
        hang = 4
    if (told := _TOLD.match(line)) and _SHELL.match(told[2]):  # a command is not broken like words
        return [*_wrapped(told[1], width, " " * hang), *_laid_out(f"{' ' * hang}{told[2]}", width, code)]
    rest = line[beginning.end() :]
    if _SHELL.match(rest) or _SQL.match(rest):
        return _wrapped_command(line, width, " " * hang)
    return _wrapped(line, width, " " * hang)


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Wrap a text between words, whatever spaces stand there."""
    return _filled(_WORD.findall(text), width, indent)


def _wrapped_sql(text: str, width: int, indent: str) -> list[str]:
    """Wrap SQL between words that are not within quotes; a comment goes on as a comment."""
    words = _CODE_WORD.findall(text)
    comment = next((place for place, word in enumerate(words) if word.strip().startswith("--")), None)
    if comment is None:
        return _filled(words, width, indent)
    said = "".join(words[comment:])
    if not comment:
        return _wrapped(said, width, " " * (len(said) - len(said.lstrip())) + "-- ")
    before = _filled(words[:comment], width, indent)
    return [*before, *_wrapped(f"{indent}{said.strip()}", width, f"{indent}-- ")]


def _wrapped_command(line: str, width: int, indent: str) -> list[str]:
    """Wrap a command, and the comment after it."""
    found = _COMMENT.match(line)
    command, comment = (found[1], f"{found[3]} {found[4]}") if found else (line, "")
    shell = not command.endswith(";")
    end = " \\" if shell else ""
    lines = [command]
    if cells(command) > width:
        lines = _filled(_CODE_WORD.findall(command), width - len(end), f"{indent}  ", end)
    if comment:
        sign = comment.partition(" ")[0]
        lines += _wrapped(f"{indent}  {comment}", width, f"{indent}  {sign} ")
    return lines


def _filled(words: list[str], width: int, indent: str, end: str = "") -> list[str]:
    lines, line = [], ""
    for word in words:
        if line.strip() and cells(line + word) > width:
            lines.append(line + end)
            line = indent + word.lstrip()
        else:
            line += word
    return [*lines, line]


def colored(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal on which colors are wanted (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """Return a text in a style, each line of it, where a stream shows styles.

    :param style: a color, ``bold`` or ``dim``; empty for plain text.
    """
    if not style or not colored(stream):
        return text
    return "\n".join(f"\x1b[{_STYLES[style]}m{line}\x1b[0m" if line else line for line in text.split("\n"))
