"""Giving new revision files the next numbers, after another branch has taken theirs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from guvnor import postgres
from guvnor.bookkeeping import applied, history, state
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database, local_server, local_server_home
from guvnor.errors import ExitCode, GuvnorError, UsageError, reason
from guvnor.postgres import Connection
from guvnor.revisions import branch, files, git, renumbering
from guvnor.revisions.branch import Branch
from guvnor.revisions.fingerprint import fingerprint
from guvnor.revisions.identifiers import number
from guvnor.revisions.renumbering import Renumbering

_PATIENCE = 10.0  # seconds to wait for a locked version table


class AppliedFileError(GuvnorError):
    """The revision is applied, so its number cannot change."""

    exit_code = ExitCode.DECISION
    state = "No file was changed, and the database was not either."


@dataclass(frozen=True)
class Renumbered:
    """What was done.

    :ivar moved: the files that were changed, in order.
    :ivar merge: the main branch, where a predecessor of the first one is only there; else None.
    :ivar unasked: why a database could not be asked whether it has one of them, a line each.
    """

    moved: tuple[Renumbering, ...]
    merge: str | None
    unasked: tuple[str, ...]


@dataclass(frozen=True)
class _Numbering:
    """Which number each new file gets.

    :ivar here: the texts of all files of the work tree, by name.
    :ivar kept: the texts of the files that keep their numbers, those of the main branch included.
    :ivar main: the main branch; None without Git.
    """

    numbers: Mapping[str, int]
    here: Mapping[str, str]
    kept: Mapping[str, str]
    main: str | None


def renumber(settings: Settings, given: str) -> Renumbered:
    """Give a new revision file the number that it must have after the merge with the main branch.

    The other new files follow: they are one line again. Without Git, the named file is the new one.

    :param given: the file, by its path or its name.
    :raises UsageError: when it is no revision file, or the main branch has it (exit code 2).
    :raises AppliedFileError: when one that would change is applied (exit code 5).
    """
    versions = files.directory(files.configuration_file())
    name = _name(versions, given)
    plan = _numbering(versions, name)
    moves = renumbering.as_numbered({each: plan.here[each] for each in plan.numbers}, plan.numbers)
    moved = tuple(move for move in moves if move.old != move.new or move.edits)
    unasked = _check_unapplied(settings, versions, plan, [move.old for move in moved if move.old != move.new])
    names = {path.name for path in versions.glob("*.py")} - {move.old for move in moved}
    if taken := names & {move.new for move in moved}:
        raise UsageError(
            f"{min(taken)} exists already.",
            state="No file was changed.",
            next_step=f"ls {shlex.quote(str(versions))}",
        )
    for move in renumbering.move_order(moved):
        _move(versions, move)
    here = {files.number_of(each) for each in (*names, *(move.new for move in moves))}
    lowest = min(plan.numbers.values())
    return Renumbered(moved, plan.main if set(range(1, lowest)) - here else None, unasked)


def _name(versions: Path, given: str) -> str:
    """Return the name of the revision file that a user means."""
    path = Path(given)
    for candidate in (path, versions / path.name, versions / f"{path.name}.py"):
        if candidate.is_file() and candidate.resolve().parent == versions and candidate.suffix == ".py":
            return candidate.name
    raise UsageError(
        f"{given} is not a migration file of {versions}.",
        state="No file was changed.",
        next_step=f"ls {shlex.quote(str(versions))}",
    )


def _numbering(versions: Path, name: str) -> _Numbering:
    try:
        found = branch.read(versions)
    except git.BranchError:
        texts = files.texts(versions)
        kept = {each: text for each, text in texts.items() if each != name}
        used = {files.number_of(each) for each in kept}
        free = next(place for place in range(1, len(texts) + 1) if place not in used)
        return _Numbering({name: free}, texts, kept, None)
    if name not in found.new:
        raise UsageError(
            f"{name} is on {found.main} already, so it keeps its number.",
            state="No file was changed.",
            next_step=_newcomers(found, name),
        )
    kept = {each: text for each, text in found.merged.items() if each not in found.new}
    kept |= {each: found.there[each] for each in found.new if each in found.there}
    kept |= {each: found.before[each] for each in found.deleted}
    last = max((files.number_of(each) or 0 for each in kept), default=0)
    in_order = sorted(found.new, key=lambda each: (*_place(each), each == name, each))
    numbers = {each: place for place, each in enumerate(in_order, last + 1)}
    return _Numbering(numbers, found.here, kept, found.main)


def _place(name: str) -> tuple[bool, int]:
    return files.number_of(name) is None, files.number_of(name) or 0


def _newcomers(found: Branch, name: str) -> str:
    same = [each for each in found.new if files.number_of(each) == files.number_of(name)]
    if not same:
        return "guvnor schema lint   # says which files are new, and what is wrong with them"
    return "\n".join(f"guvnor migrate renumber {each}   # which is new" for each in same)


def _move(versions: Path, move: Renumbering) -> None:
    """Rename and rewrite one file; Git's index follows where it knows the file."""
    old, new = versions / move.old, versions / move.new
    raw = old.read_bytes()
    text = move.text.replace("\n", "\r\n") if b"\r\n" in raw else move.text
    mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
    moved = False
    if old != new:
        try:
            known = git.run(versions, "ls-files", "--error-unmatch", "--", move.old).returncode == 0
            moved = known and git.run(versions, "mv", "--", move.old, move.new).returncode == 0
        except git.BranchError:
            moved = False
        if not moved:
            old.rename(new)
    unfinished = new.with_name(f".{new.name}.unfinished")
    unfinished.write_bytes(mark + text.encode())
    unfinished.chmod(new.stat().st_mode & 0o777)
    unfinished.replace(new)
    if moved:  # a plain commit takes the new name and the new content
        git.run(versions, "add", "--", move.new)


def _check_unapplied(
    settings: Settings, versions: Path, plan: _Numbering, names: Sequence[str]
) -> tuple[str, ...]:
    """Check that no database at hand has a revision whose number would change.

    :returns: why one could not be asked, a line each.
    """
    unasked = list[str]()
    for local, database in _databases(settings, unasked) if names else ():
        try:
            with postgres.closing(database.connect("renumber")) as connection:
                current = state.read(connection, max_wait=_PATIENCE)
                has = [name for name in names if _is_applied(connection, current, plan, name)]
                identity = postgres.identify(connection)
        except (GuvnorError, psycopg2.Error) as error:
            unasked.append(reason(error).splitlines()[0])
            continue
        if has:
            where = f"database {identity.database} on {identity.host or 'the local socket'}"
            raise AppliedFileError(
                f"{' and '.join(has)} cannot get another number: {where} is at version {current.furthest}, "
                f"and {'has it' if len(has) == 1 else 'has them'}.",
                next_step=_roll_back(settings, versions, has, local=local),
            )
    return tuple(unasked)


def _databases(settings: Settings, unasked: list[str]) -> Iterator[tuple[bool, Database]]:
    """Yield the configured database, then that of the local server if it has data; is it local?"""
    local = (local_server_home() / "data" / "PG_VERSION").exists()
    try:
        if settings.storage_type != "embedded" and settings.storage_dsn:
            yield False, Database.of(settings)
        if local:
            yield True, Database(local_server())
    except GuvnorError as error:
        unasked.append(reason(error).splitlines()[0])


def _is_applied(connection: Connection, current: State, plan: _Numbering, name: str) -> bool:
    """Tell whether a database has what a file does, as far as its history knows.

    Where it does not know which file of a number was applied, that of the main branch was.
    """
    place = files.number_of(name)
    if place is None or place > current.furthest:
        return False
    known = applied.files(connection).get(place) if history.exists(connection) else None
    half_done = current.unfinished is not None and number(current.unfinished.revision) == place
    theirs = [text for each, text in plan.kept.items() if files.number_of(each) == place]
    if known is None or not known.sources:
        return half_done or not theirs
    if fingerprint(plan.here[name]) in known.sources:
        return True
    others = [text for each, text in plan.here.items() if files.number_of(each) == place and each != name]
    return not any(fingerprint(text) in known.sources for text in (*theirs, *others))


def _roll_back(settings: Settings, versions: Path, has: Sequence[str], *, local: bool) -> str:
    """Return the commands that take the files back, after which they can get other numbers.

    Files that have the same numbers are put aside for that.
    """
    lowest = min(files.number_of(name) or 1 for name in has)
    taken = {files.number_of(name) for name in has}
    aside = [
        shlex.quote(str(path))
        for path in sorted(versions.glob("*.py"))
        if path.name not in has and files.number_of(path.name) in taken
    ]
    variable = "GUVNOR_STORAGE_TYPE=embedded " if local and settings.storage_type != "embedded" else ""
    lines = [f"mv {path} {path}.aside" for path in aside]
    lines.append(f"{variable}guvnor migrate down --to {f'{lowest - 1:03d}' if lowest > 1 else 'base'}")
    lines += [f"mv {path}.aside {path}" for path in aside]
    lines.append(f"guvnor migrate renumber {has[0]}")
    if local:
        lines.append(
            "guvnor db reset   # or this first, and only then renumber: it empties the local database"
        )
    return "\n".join(lines)
