"""Which revision files are checked: those that a branch adds, or those after a revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guvnor.lint.revision import RevisionSource
from guvnor.revisions import branch, files as revision_files


@dataclass(frozen=True)
class NewRevisions:
    """The new revision files, and the earlier ones.

    :ivar base: what the new files are compared with: the main branch, or a revision.
    :ivar new: the files to check.
    :ivar earlier: the files that they follow.
    :ivar edited: the files of the main branch that the branch edits, each before and after; None when it is
        deleted.
    """

    base: str
    new: tuple[RevisionSource, ...]
    earlier: tuple[RevisionSource, ...]
    edited: tuple[tuple[RevisionSource, RevisionSource | None], ...] = ()


def of_branch(configuration: Path) -> NewRevisions:
    """Compare the work tree with the main branch.

    :raises guvnor.revisions.branch.BranchError: when Git cannot tell which files are new.
    :raises guvnor.revisions.files.RevisionFilesError: when a file cannot be read.
    """
    versions = revision_files.directory(configuration)
    folder = _folder(configuration, versions)
    found = branch.read(versions)
    merged = _sources(folder, found.merged)
    # The main branch's file of the same name keeps its number, and so does a file that this branch deletes.
    theirs = {name: found.there[name] for name in found.new if name in found.there}
    theirs |= {name: found.before[name] for name in found.deleted}
    after = {source.name: source for source in _sources(folder, found.here)}
    before = _sources(folder, {name: found.before[name] for name in found.changed})
    return NewRevisions(
        found.main,
        new=tuple(source for source in merged if source.name in found.new),
        earlier=(*(s for s in merged if s.name not in found.new), *_sources(folder, theirs)),
        edited=tuple((source, after.get(source.name)) for source in before),
    )


def after(configuration: Path, since: str) -> NewRevisions:
    """Take the files after a revision.

    :param since: a revision as a user names it: ``2``, ``002``, ``base``.
    :raises guvnor.errors.UsageError: when there is no such revision.
    :raises guvnor.revisions.files.RevisionFilesError: when a file cannot be read.
    """
    versions = revision_files.directory(configuration)
    folder = _folder(configuration, versions)
    last = revision_files.find(revision_files.listed(versions), since)
    sources = _sources(folder, revision_files.texts(versions))
    earlier = tuple(s for s in sources if last and s.number is not None and s.number <= last.number)
    new = tuple(source for source in sources if source not in earlier)
    return NewRevisions(last.path.name if last else "base", new, earlier)


def _sources(folder: str, texts: Mapping[str, str]) -> tuple[RevisionSource, ...]:
    return tuple(RevisionSource(name, f"{folder}/{name}", text) for name, text in sorted(texts.items()))


def _folder(configuration: Path, versions: Path) -> str:
    """Return the path of the revision files' folder in reports."""
    root = configuration.resolve().parent
    return (versions.relative_to(root) if versions.is_relative_to(root) else versions).as_posix()
