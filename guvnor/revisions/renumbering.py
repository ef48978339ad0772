"""Gives new revision files the next numbers after those of the main branch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from guvnor.revisions.files import number_of

# What down_revision may be; `alembic merge` writes a tuple.
_VALUE = r"""('.*?'|".*?"|None|\([^()\n]*\))"""
_OF_REVISIONS = re.compile(r"\b(?:revision|migration)s?\s+(?:\d+(?:,|\s+(?:and|or|to))\s+)*$", re.IGNORECASE)


@dataclass(frozen=True)
class Renumbering:
    """How one file gets its number.

    :ivar old: the name of the file before.
    :ivar new: its name afterwards.
    :ivar text: its text afterwards.
    :ivar edits: the lines to change, each before and after.
    """

    old: str
    new: str
    text: str
    edits: tuple[tuple[str, str], ...]


def numbered(earlier: Iterable[str], new: Iterable[str]) -> dict[str, int]:
    """Return the number that each new file must have: they follow the earlier ones, in their own order.

    :param earlier: the names of the files that keep their numbers.
    :param new: the names of the others.
    """
    last = max((number_of(name) or 0 for name in earlier), default=0)
    in_order = sorted(new, key=lambda name: (number_of(name) is None, number_of(name) or 0, name))
    return {name: place for place, name in enumerate(in_order, last + 1)}


def identifiers(number: int) -> dict[str, str | None]:
    """Return the constants in the file of the revision with a number."""
    return {"revision": f"{number:03}", "down_revision": f"{number - 1:03}" if number > 1 else None}


def renumberings(texts: Mapping[str, str], new: Iterable[str]) -> tuple[Renumbering, ...]:
    """Renumber the new files; the result also has those that do not change.

    :param texts: the texts of all files by name.
    :param new: the names of the new ones.
    """
    return as_numbered(texts, numbered(texts.keys() - set(new), new))


def as_numbered(texts: Mapping[str, str], numbers: Mapping[str, int]) -> tuple[Renumbering, ...]:
    """Give files the numbers that are assigned to them; what their docstrings say of each other follows.

    :param texts: the texts of the files by name.
    """
    said = dict[str, str]()
    for name, number in numbers.items():
        if (before := number_of(name)) is not None:
            said[f"{before:03}"] = f"{number:03}"
            said[name.removesuffix(".py")] = _renamed(name, number).removesuffix(".py")
    return tuple(renumber(name, texts[name], number, said) for name, number in numbers.items())


def move_order(moves: Iterable[Renumbering]) -> list[Renumbering]:
    """Put renumberings in an order in which no file takes the place of one that has not moved yet.

    Files that move up go from the last to the first, then those that move down from the first to the last.
    """
    known = [(number_of(move.old) or 0, number_of(move.new) or 0, move) for move in moves]
    up = [each for each in known if each[0] < each[1]]
    down = [each for each in known if each[0] >= each[1]]
    return [move for *_, move in (*reversed(up), *down)]


def renumber(name: str, text: str, number: int, said: Mapping[str, str] | None = None) -> Renumbering:
    """Give a file another number and the predecessor that goes with it.

    :param text: the text of the file, with the lines that the template of this project writes.
    :param said: what its docstring says of revisions, each with what it has to say: numbers and names.
    """
    revision, down_revision = identifiers(number).values()
    after = _with_docstring(text, said or {})
    after = re.sub(r"(?m)^Revision ID:.*", f"Revision ID: {revision}", after)
    after = re.sub(r"(?m)^Revises:.*", f"Revises: {down_revision or ''}".rstrip(), after)
    for constant, value in identifiers(number).items():
        written = f'"{value}"' if value else "None"
        after = re.sub(rf"(?m)^({constant}\b[^=\n]*= *){_VALUE}", rf"\g<1>{written}", after)
    lines = zip(text.splitlines(), after.splitlines(), strict=True)
    edits = tuple((old, new) for old, new in lines if old != new)
    return Renumbering(name, _renamed(name, number), after, edits)


def _renamed(name: str, number: int) -> str:
    return re.sub(r"^[\d_]*", f"{number:03}_", name)


def _with_docstring(text: str, said: Mapping[str, str]) -> str:
    """Let the docstring of a module name revisions by their new numbers and names.

    A number without a zero in front may be of anything else, and counts only after a word such as "revision".
    """
    changed = {old: new for old, new in said.items() if old != new}
    try:
        first = ast.parse(text).body[0]
    except (SyntaxError, ValueError, IndexError):
        return text
    if not changed or not isinstance(first, ast.Expr) or ast.get_docstring(ast.Module([first], [])) is None:
        return text
    lines = text.splitlines(keepends=True)
    start, end = first.lineno - 1, first.end_lineno or first.lineno
    known = "|".join(map(re.escape, sorted(changed, key=len, reverse=True)))
    named = re.compile(rf"(?<![\w.:-])({known})(?![\w:-])")

    def follow(match: re.Match[str]) -> str:
        sure = (
            match[1][0] == "0"
            or not match[1].isdecimal()
            or _OF_REVISIONS.search(match.string[: match.start()])
        )
        return changed[match[1]] if sure else match[1]

    docstring = named.sub(follow, "".join(lines[start:end]))
    return "".join((*lines[:start], docstring, *lines[end:]))
