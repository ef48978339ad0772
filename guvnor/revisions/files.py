"""The revision files, read without Alembic: the number in a file's name is the revision.

Scripts poll ``status``, and importing Alembic would take longer than the rest of that command. The pre-flight
checks make sure that the files and Alembic's graph agree.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from guvnor import folder
from guvnor.config import presentable
from guvnor.errors import PreflightError, UsageError
from guvnor.revisions import git

_NAME = re.compile(r"(?P<number>\d{3,})_[a-z0-9_]+\.py")
_PACKAGED = Path(__file__).resolve().parent.parent / "_environment" / "alembic.ini"
_REPOSITORY = Path(__file__).resolve().parent.parent.parent / "alembic.ini"


class RevisionFilesError(PreflightError):
    """The revision files are not usable."""

    next_step = "guvnor migrate preflight"


@dataclass(frozen=True)
class Revision:
    """A revision file: its identifier as Alembic knows it (``002``), its number (2) and its path."""

    identifier: str
    number: int
    path: Path

    @property
    def name(self) -> str:
        """The file's name without its ending: ``002_add_schedules``."""
        return self.path.stem


def configuration_file() -> Path:
    """Find the ``alembic.ini`` to use.

    It is the file that ``ALEMBIC_CONFIG`` names, as for plain ``alembic``, else that of the project: the
    nearest one from the current directory upwards. Without one, it is that of this package, inside a wheel or
    in the repository of an editable install.

    :raises RevisionFilesError: when there is no such file.
    """
    named = os.environ.get("ALEMBIC_CONFIG")
    if named and not Path(named).is_file():
        raise RevisionFilesError(f"ALEMBIC_CONFIG names {named}, which is not a file.")
    found = None if named else folder.find(folder.MARK)
    for path in (Path(named) if named else None, found, _PACKAGED, _REPOSITORY):
        if path is not None and path.is_file():
            return path.resolve()
    raise RevisionFilesError(
        "no migration files found: there is no alembic.ini in this directory or in the package."
    )


def check_not_installed(path: Path) -> None:
    """Check that the revision files are not those of an installed package, which the next install replaces.

    :param path: of ``alembic.ini`` or of the folder beside it.
    :raises UsageError: when they are (exit code 2).
    """
    if path.resolve().is_relative_to(_PACKAGED.parent.parent):
        raise UsageError(
            "There is no project here, so the file would go into the installed package "
            f"({_PACKAGED.parent}), and be lost with its next installation.",
            next_step="cd PROJECT   # the folder that holds alembic.ini, or one below it",
        )


def directory(configuration: Path) -> Path:
    """Return the folder of revision files that an ``alembic.ini`` names.

    :raises RevisionFilesError: when the file cannot be read or has no such key, or the folder does not exist.
    """
    configuration = configuration.absolute()
    parser = configparser.ConfigParser(defaults={"here": str(configuration.parent)})
    try:
        parser.read_string(configuration.read_text("utf-8"))
        location = parser.get("alembic", "script_location")
    except (configparser.Error, UnicodeDecodeError) as error:
        what = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "script_location is missing"
        raise RevisionFilesError(f"{configuration} is not a usable alembic.ini: {what}.") from None
    except OSError as error:
        raise RevisionFilesError(
            f"{configuration} cannot be read: {error.strerror}.", next_step=f"ls -l {configuration}"
        ) from None
    versions = (configuration.parent / location / "versions").resolve()
    if not versions.is_dir():
        raise RevisionFilesError(
            f"no migration files found: the folder {versions} does not exist.",
            next_step=(
                f"ls {configuration.parent}   # script_location in {configuration.name} names the folder"
            ),
        )
    return versions


def text(path: Path) -> str:
    """Return the text of a revision file, which is UTF-8 with or without a byte order mark.

    :raises RevisionFilesError: when the file is not UTF-8, or cannot be read.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise RevisionFilesError(
            f"The migration file {path.name} is not in UTF-8.",
            next_step=f"file {path}   # then save it as UTF-8",
        ) from None
    except OSError as error:
        raise RevisionFilesError(
            f"The migration file {path.name} cannot be read: {error.strerror}.", next_step=f"ls -l {path}"
        ) from None


def texts(versions: Path) -> dict[str, str]:
    """Return the texts of the revision files of a folder, by file name.

    :raises RevisionFilesError: when a file is not UTF-8, or cannot be read.
    """
    return {path.name: text(path) for path in sorted(versions.glob("*.py"))}


def number_of(name: str) -> int | None:
    """Return the number in the name of a revision file; None when it is not named ``NNN_words.py``."""
    match = _NAME.fullmatch(name)
    return int(match["number"]) if match else None


def listed(versions: Path) -> tuple[Revision, ...]:
    """List the revision files of a folder in the order of their numbers, which may have gaps and duplicates.

    :raises RevisionFilesError: when there is no file, or one is not named ``NNN_words.py``.
    """
    found = []
    for path in sorted(versions.glob("*.py")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise RevisionFilesError(
                f"The migration file {path.name} is not named NNN_words.py "
                "(a number of at least three digits, then lower-case letters, digits and underscores).",
                next_step=f"ls {versions}",
            )
        found.append(Revision(match["number"], int(match["number"]), path))
    if not found:
        raise RevisionFilesError(f"no migration files found in {versions}.", next_step=f"ls {versions}")
    return tuple(sorted(found, key=lambda revision: revision.number))


def read(versions: Path) -> tuple[Revision, ...]:
    """List the revision files of a folder in the order of their numbers.

    :raises RevisionFilesError: when there is no file, one is not named ``NNN_words.py``, or the numbers have
        gaps or duplicates.
    """
    found = listed(versions)
    for expected, revision in enumerate(found, start=1):
        if revision.number != expected:
            if revision.number < expected:
                duplicates = [r.path.name for r in found if r.number == revision.number]
                raise RevisionFilesError(
                    f"Two migration files have the number {revision.number}: {', '.join(duplicates)}.",
                    next_step=renumbered(versions, duplicates),
                )
            following = revision.path.name
            raise RevisionFilesError(
                f"Migration file {expected:03d} is missing: the next one found is {following}.",
                next_step=f"ls {versions}\n{_without_gap(versions, expected, following)}",
            )
    return found


def _without_gap(versions: Path, missing: int, following: str) -> str:
    """Return the command that closes a gap: the missing file comes from Git, or the next one moves up."""
    if (name := git.has(versions, "HEAD", missing)) is not None:
        return f"git checkout HEAD -- {shlex.quote(str(versions / name))}"
    if git.has(versions, None, missing) is not None:
        return f"git merge {git.main_branch(versions)}   # which has revision {missing:03d}"
    return renumbered(versions, [following], when=f"if it is to be {missing:03d}")


def renumbered(versions: Path, names: Iterable[str], *, when: str = "") -> str:
    """Return the command that gives one of several files its place in the line of revisions.

    It is the one that is new, where Git can tell.

    :param versions: the folder of the files.
    :param when: when to run it, in words.
    """
    new = git.added(versions)
    newcomers = [name for name in names if new is not None and name in new]
    if len(newcomers) == 1:
        return f"guvnor migrate renumber {newcomers[0]}" + (f"   # {when}" if when else "")
    which = "the one that is new" if not newcomers else "the one that is to come last"
    return f"guvnor migrate renumber FILE   # FILE: {which}"


def find(revisions: tuple[Revision, ...], text: str) -> Revision | None:
    """Find the revision that a user names by its number or identifier; None for ``base`` and ``0``.

    :raises UsageError: when there is no such revision (exit code 2).
    """
    if text in ("head", "heads"):
        return revisions[-1]
    if text == "base" or re.fullmatch(r"0+", text):
        return None
    for revision in revisions:
        if text == revision.identifier or (text.lstrip("0") == str(revision.number)):
            return revision
    known = f"{revisions[0].identifier} to {revisions[-1].identifier}" if len(revisions) > 1 else "001"
    raise UsageError(
        f"Unknown revision {presentable(text)}: the migration files know {known}, base and head.",
        next_step="guvnor migrate status",
    )


def check_title(title: str) -> None:
    """Check that a title can name a revision file and be written into its docstring.

    :raises UsageError: when it cannot (exit code 2).
    """
    if not re.fullmatch(r"[ !#-\[\]-~]*[A-Za-z0-9][ !#-\[\]-~]*", title):
        raise UsageError(
            f"{title!r} cannot name a migration file: it must have an ASCII letter or digit, and no other "
            "characters than printable ASCII without double quotes and backslashes.",
            next_step="guvnor migrate create 'add teams'",
        )
