"""Whether the file of an applied revision was changed afterwards: other databases then get another schema.

The file may be another branch's revision of the same number, so that a rollback would run statements that
have nothing to do with what the database has.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guvnor import typed
from guvnor.bookkeeping import applied, history
from guvnor.bookkeeping.applied import AppliedFile
from guvnor.bookkeeping.consistency import StateError
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.postgres import Connection
from guvnor.revisions import files, git
from guvnor.revisions.identifiers import number

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_COMMITS = 50  # the newest ones that are searched for a file
_ACCEPTED_WHEN = "if the schema is what the file makes now, too"


class EditedFileError(StateError):
    """The file of an applied revision was changed."""

    state = "Nothing was changed; the database has what the file said when it was applied."


@dataclass(frozen=True)
class EditedFile:
    """The file of an applied revision that is no longer what was applied.

    :ivar known: what was applied.
    :ivar checksum: of its SQL now.
    :ivar source: its fingerprint now.
    :ivar certain: whether somebody has changed it; otherwise its SQL may be another each time.
    """

    path: Path
    known: AppliedFile
    checksum: str
    source: str | None
    certain: bool

    def __str__(self) -> str:
        """Say so, without an end."""
        revision, when = self.known.revision, self.known.when
        if self.source in self.known.sources:
            return f"the SQL of revision {revision} is another one than when it was applied ({when})"
        return f"the file of revision {revision} was changed after it was applied ({when})"


def warnings(connection: Connection, current: State, script: ScriptDirectory) -> tuple[str, ...]:
    """Name each applied revision whose file holds other statements now than when it was applied.

    Comments, white space and line ends do not count; see :func:`guvnor.revisions.statements.checksum`. Nor
    does it count that an older release rendered the same statements in another way.

    :param script: the revision files, which have been checked already.
    """
    return tuple(map(str, _edited(connection, current, script)))


def check(
    connection: Connection, current: State, script: ScriptDirectory, settings: Settings
) -> tuple[EditedFile, ...]:
    """Check that no file of an applied revision was changed, but for those that the settings accept.

    :returns: those, which :func:`accept` records.
    :raises EditedFileError: when there is another one (exit code 5).
    :raises UsageError: when the settings name a revision that the files do not know (exit code 2).
    """
    listed = files.read(Path(script.versions)) if settings.accept_edited else ()
    wanted = {found.number for text in settings.accept_edited if (found := files.find(listed, text))}
    edited = wait_for_tables(
        connection, settings.max_wait, lambda: tuple(_edited(connection, current, script))
    )
    accepted = tuple(each for each in edited if number(each.known.revision) in wanted)
    refused = [each for each in edited if each.certain and each not in accepted]
    if refused:
        raise _error(refused, accepted, settings)
    return accepted


def accept(connection: Connection, current: State, edited: Iterable[EditedFile]) -> None:
    """Record that the files are accepted as they are: later runs let them pass."""
    from guvnor.revisions.statements import RENDERING

    for each in edited:
        applied.accept(connection, each.known, current.version, each.checksum, RENDERING, each.source)


def _edited(connection: Connection, current: State, script: ScriptDirectory) -> Iterator[EditedFile]:
    if not current.version or not history.exists(connection):
        return
    known = applied.files(connection)
    for file in reversed(list(script.walk_revisions())):
        at = known.get(number(file.revision))
        if at is not None and number(file.revision) <= current.number:
            found = _compared(file.module.upgrade, Path(file.path), at)
            if found is not None:
                yield found


def _compared(upgrade: Callable[[], object], path: Path, known: AppliedFile) -> EditedFile | None:
    """Compare a file with what was applied; None where it is the same."""
    from guvnor.revisions.fingerprint import fingerprint
    from guvnor.revisions.statements import checksum, needs_database, render, render_again

    now = render(upgrade)
    for recorded, rendering in known.checksums:
        if recorded in map(
            checksum, (now.statements,) if rendering else (now.statements, now.rendered_before)
        ):
            return None
    source = fingerprint(files.text(path))
    asks = any(map(needs_database, now.statements))
    if source in known.sources and asks:  # what stands for the rest differs between versions of Python
        return None
    varies = asks or render_again(upgrade).statements != now.statements
    certain = source not in known.sources if known.sources else not varies
    return EditedFile(path, known, checksum(now.statements), source, certain)


def _error(edited: list[EditedFile], accepted: tuple[EditedFile, ...], settings: Settings) -> EditedFileError:
    lines, ways = [], list[str]()
    for each in edited:
        known = each.known
        said = f"The file of revision {known.revision} ({each.path.name}) was changed after it was applied"
        where = f", from {known.checkout}" if known.checkout else ""
        lines.append(f"{said} ({known.when}{where}).")
        told, way = _in_git(each)
        lines += told
        ways += way
    names = ",".join(each.known.revision for each in (*accepted, *edited))
    ways.append(typed.again_with("accept_edited", names, when=_ACCEPTED_WHEN))
    if settings.storage_type == "embedded":
        ways.append("guvnor db reset   # or start the local database afresh")
    return EditedFileError("\n".join(lines), next_step="\n".join(dict.fromkeys(ways)))


def _in_git(edited: EditedFile) -> tuple[list[str], list[str]]:
    """Say which commit has the file that was applied, and what to type about that."""
    versions, revision = edited.path.parent, edited.known.revision
    place = shlex.quote(f"{versions}/{revision}_*")
    try:
        here = git.output(versions, "rev-parse", "--verify", "--quiet", "HEAD")
        found = here and _commit(versions, edited)
    except git.BranchError:
        return [], []
    if not here:
        return [], []
    if not found:
        return [], [f"git log --all --oneline -- {place}   # the commits that have had a file of this number"]
    commit, name, branches = found
    on = f", on branch {branches[0]}" if branches else ""
    told = [f"Git has what was applied as {name}, in commit {commit}{on}."]
    before = f"{number(revision) - 1:03d}" if number(revision) > 1 else "base"
    back = f"guvnor migrate down --to {before}"
    if branches and git.current_branch(versions) not in branches:
        branch = branches[0].removeprefix("origin/")
        return told, [f"git switch {shlex.quote(branch)}   # there, take it back: {back}"]
    return told, [f"git diff {commit} -- {place}   # what has been changed since"]


def _commit(versions: Path, edited: EditedFile) -> tuple[str, str, list[str]] | None:
    """Find the commit whose file of the revision is the one that was applied: its name, and its branches."""
    from guvnor.revisions.fingerprint import fingerprint

    pattern = f"./{edited.known.revision}_*.py"
    listed = git.output(
        versions,
        *("log", "--all", f"--max-count={_COMMITS}", "--diff-filter=AMR", "--name-only", "--relative"),
        *("--format=%x00%h", "--", pattern),
    )
    for entry in (listed or "").split("\0")[1:]:
        commit, *names = entry.split()
        for name in names:
            text = git.output(versions, "show", f"{commit}:./{name}")
            if text is not None and fingerprint(text.removeprefix("\ufeff")) in edited.known.sources:
                return commit, name, git.branches_with(versions, commit)
    return None
