"""Which revision files are looked at: those that a branch brings, or those after a revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guvnor.lint.source import Source
from guvnor.revisions import branch
from guvnor.revisions import files as revision_files


@dataclass(frozen=True)
class Files:
    """The revision files, sorted by what is new.

    :ivar folder: theirs, relative to that of ``alembic.ini``.
    :ivar base: what they are new to: the main branch, or a revision.
    :ivar new: the files to look at.
    :ivar settled: the files that they come on top of.
    :ivar changed: the files that the branch has written anew, as they were and as they are; None: deleted.
    """

    folder: str
    base: str
    new: tuple[Source, ...]
    settled: tuple[Source, ...]
    changed: tuple[tuple[Source, Source | None], ...] = ()


def of_branch(configuration: Path) -> Files:
    """Compare the work tree with the main branch.

    :param configuration: the ``alembic.ini``.
    :raises guvnor.revisions.branch.BranchError: when Git does not tell.
    :raises guvnor.revisions.files.RevisionFilesError: when a file cannot be read.
    """
    versions = revision_files.directory(configuration)
    folder = _folder(configuration, versions)
    found = branch.read(versions)
    merged = _sources(folder, found.merged)
    # Another file of the same name may have come to the main branch meanwhile; what was deleted comes back.
    theirs = {name: found.there[name] for name in found.new if name in found.there}
    theirs |= {name: found.before[name] for name in found.deleted}
    changed = tuple(
        (
            Source(name, f"{folder}/{name}", found.before[name]),
            Source(name, f"{folder}/{name}", found.here[name]) if name in found.here else None,
        )
        for name in found.changed
    )
    return Files(
        folder,
        found.main,
        new=tuple(source for source in merged if source.name in found.new),
        settled=(*(s for s in merged if s.name not in found.new), *_sources(folder, theirs)),
        changed=changed,
    )


def after(configuration: Path, since: str) -> Files:
    """Take the files after a revision.

    :param since: a revision as a user names it: ``2``, ``002``, ``base``.
    :raises guvnor.errors.UsageError: when there is no such revision.
    :raises guvnor.revisions.files.RevisionFilesError: when a file cannot be read.
    """
    versions = revision_files.directory(configuration)
    last = revision_files.find(revision_files.listed(versions), since)
    sources = _sources(_folder(configuration, versions), revision_files.texts(versions))
    settled = tuple(s for s in sources if last and s.number is not None and s.number <= last.number)
    return Files(
        _folder(configuration, versions),
        last.path.name if last else "base",
        new=tuple(source for source in sources if source not in settled),
        settled=settled,
    )


def _sources(folder: str, texts: Mapping[str, str]) -> tuple[Source, ...]:
    return tuple(Source(name, f"{folder}/{name}", text) for name, text in sorted(texts.items()))


def _folder(configuration: Path, versions: Path) -> str:
    """Return the folder of the revision files as a report names it."""
    root = configuration.resolve().parent
    return (versions.relative_to(root) if versions.is_relative_to(root) else versions).as_posix()
