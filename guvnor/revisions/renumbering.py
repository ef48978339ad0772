"""Gives new revision files the next numbers after those of the main branch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from guvnor.revisions.files import number_of


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
    numbers = numbered(texts.keys() - set(new), new)
    return tuple(renumber(name, texts[name], number) for name, number in numbers.items())


def move_order(moves: Iterable[Renumbering]) -> list[Renumbering]:
    """Put renumberings in an order in which no file takes the place of one that has not moved yet.

    Files that move up go from the last to the first, then those that move down from the first to the last.
    """
    known = [(number_of(move.old) or 0, number_of(move.new) or 0, move) for move in moves]
    up = [each for each in known if each[0] < each[1]]
    down = [each for each in known if each[0] >= each[1]]
    return [move for *_, move in (*reversed(up), *down)]


def renumber(name: str, text: str, number: int) -> Renumbering:
    """Give a file another number and the predecessor that goes with it.

    :param text: the text of the file, with the lines that the template of this project writes.
    """
    revision, down_revision = identifiers(number).values()
    after = re.sub(r"(?m)^Revision ID:.*", f"Revision ID: {revision}", text)
    after = re.sub(r"(?m)^Revises:.*", f"Revises: {down_revision or ''}".rstrip(), after)
    for constant, value in identifiers(number).items():
        written = f'"{value}"' if value else "None"
        after = re.sub(rf"(?m)^({constant}\b[^=\n]*= *)('.*?'|\".*?\"|None)", rf"\g<1>{written}", after)
    lines = zip(text.splitlines(), after.splitlines(), strict=True)
    edits = tuple((old, new) for old, new in lines if old != new)
    return Renumbering(name, re.sub(r"^[\d_]*", f"{revision}_", name), after, edits)
