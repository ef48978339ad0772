"""The revision files of a branch as they will be: after its merge, and renumbered where they collide."""

from __future__ import annotations

import ast
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory

from guvnor.revisions import check, files as revision_files
from guvnor.revisions.files import RevisionFilesError
from guvnor.revisions.script import script_directory

_INI = "[alembic]\nscript_location = %(here)s/alembic\npath_separator = os\n"


@dataclass(frozen=True)
class Move:
    """How a file gets another number.

    :ivar old: its name.
    :ivar new: its name afterwards.
    :ivar text: its text afterwards.
    :ivar edits: the lines to change, each as it is and as it is to be.
    """

    old: str
    new: str
    text: str
    edits: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tree:
    """Revision files in a folder of their own, with what Alembic needs beside them."""

    configuration: Path
    script: ScriptDirectory

    def validate(self) -> None:
        """Prove that the files are one line of revisions, numbered without gaps and doubles.

        :raises RevisionFilesError: when they are not.
        """
        found = revision_files.read(revision_files.directory(self.configuration))
        with warnings.catch_warnings():
            # Alembic only warns about two files of one revision; the numbers have told that before.
            warnings.simplefilter("ignore")
            check.validate(found, self.script)


def plant(folder: Path, location: Path, texts: Mapping[str, str]) -> Tree:
    """Write revision files into a folder.

    :param folder: that does not exist yet.
    :param location: the script location whose ``env.py`` goes with them.
    :param texts: the files by name.
    """
    shutil.copytree(location, folder / "alembic", ignore=shutil.ignore_patterns("versions", "__pycache__"))
    versions = folder / "alembic" / "versions"
    versions.mkdir()
    for name, text in texts.items():
        (versions / name).write_text(text, "utf-8")
    configuration = folder / "alembic.ini"
    configuration.write_text(_INI, "utf-8")
    return Tree(configuration, script_directory(configuration))


def renumber(texts: Mapping[str, str], new: Sequence[str]) -> tuple[Move, ...]:
    """Put the new revisions, in their own order, behind all others.

    :param texts: all files, by name.
    :param new: the names of those that may be renumbered.
    :returns: what has to change; nothing where a file keeps its number and its predecessor.
    :raises RevisionFilesError: when a file does not say which revision it is.
    """
    settled = [_identifiers(name, texts[name]) for name in texts if name not in new]
    number = max((int(found.revision) for found in settled if found.revision.isdigit()), default=0)
    moves = []
    for found in _in_order([_identifiers(name, texts[name]) for name in new]):
        before, number = f"{number:03d}" if number else None, number + 1
        moves.append(found.renumbered(f"{number:03d}", before, texts[found.name]))
    return tuple(move for move in moves if move.old != move.new or move.edits)


def moved(texts: Mapping[str, str], moves: Sequence[Move]) -> dict[str, str]:
    """Return the files after they were renumbered."""
    olds = {move.old for move in moves}
    kept = {name: text for name, text in texts.items() if name not in olds}
    return dict(sorted((kept | {move.new: move.text for move in moves}).items()))


@dataclass(frozen=True)
class _Identifiers:
    """Which revision a file says it is, and which one comes before it."""

    name: str
    revision: str
    down_revision: str | None
    places: Mapping[str, ast.expr]

    def renumbered(self, revision: str, before: str | None, text: str) -> Move:
        """Give the file another number and another predecessor."""
        lines = text.splitlines(keepends=True)
        edits = []

        def edit(number: int, line: str) -> None:
            if line != lines[number]:
                edits.append((lines[number].rstrip("\n"), line.rstrip("\n")))
                lines[number] = line

        for number, line in enumerate(lines):
            # What the house template writes into the docstring.
            if re.match(r"Revision ID: \S+\s*$", line):
                edit(number, f"Revision ID: {revision}\n")
            elif re.match(r"Revises: \S+\s*$", line):
                edit(number, f"Revises: {before or ''}".rstrip() + "\n")
        for key, value in (("revision", revision), ("down_revision", before)):
            place = self.places[key]
            if getattr(place, "value", None) != value:
                # Columns are counted in bytes of UTF-8 (documentation of ``ast``).
                whole = lines[place.lineno - 1].encode()
                written = f'"{value}"' if value else "None"
                changed = whole[: place.col_offset] + written.encode() + whole[place.end_col_offset :]
                edit(place.lineno - 1, changed.decode())
        words = self.name.partition("_")[2]
        return Move(self.name, f"{revision}_{words}", "".join(lines), tuple(edits))


def _identifiers(name: str, text: str) -> _Identifiers:
    """Read what a file says it is, without running it."""
    places: dict[str, ast.expr] = {}
    try:
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    places[target.id] = node.value
        values = {key: ast.literal_eval(places[key]) for key in ("revision", "down_revision")}
    except SyntaxError as error:
        raise RevisionFilesError(f"{name} is no Python: {error.msg}, line {error.lineno}.") from None
    except (KeyError, ValueError):
        raise RevisionFilesError(
            f"{name} does not say in plain strings which revision it is and which one comes before it."
        ) from None
    if not isinstance(values["revision"], str):
        raise RevisionFilesError(f"{name} does not say which revision it is.")
    before = values["down_revision"]
    return _Identifiers(name, values["revision"], before if isinstance(before, str) else None, places)


def _in_order(files: Sequence[_Identifiers]) -> list[_Identifiers]:
    """Sort files so that each comes after its predecessor; otherwise by name."""
    waiting, ordered = sorted(files, key=lambda found: found.name), []
    while waiting:
        first = next(
            (f for f in waiting if all(f.down_revision != o.revision for o in waiting if o is not f)),
            waiting[0],
        )
        waiting.remove(first)
        ordered.append(first)
    return ordered
