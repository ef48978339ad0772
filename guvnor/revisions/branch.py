"""The revision files that a branch adds, and those that exist after its merge."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guvnor.revisions import files as revision_files, git
from guvnor.revisions.git import BranchError


@dataclass(frozen=True)
class Branch:
    """The revision files of a work tree beside those of the main branch, by file name.

    :ivar main: the main branch, as Git calls it: ``origin/main``.
    :ivar before: the texts at the commit where the two branches diverged.
    :ivar here: the texts in the work tree, committed or not.
    :ivar there: the texts on the main branch now.
    """

    main: str
    before: Mapping[str, str]
    here: Mapping[str, str]
    there: Mapping[str, str]

    @property
    def new(self) -> tuple[str, ...]:
        """The files that the branch adds, even where the main branch has another file of the same name."""
        added = self.here.keys() - self.before.keys()
        return tuple(sorted(name for name in added if self.here[name] != self.there.get(name)))

    @property
    def changed(self) -> tuple[str, ...]:
        """The files of the main branch that the branch changes or deletes."""
        return tuple(sorted(n for n, text in self.before.items() if self.here.get(n) != text))

    @property
    def deleted(self) -> tuple[str, ...]:
        """The files of the main branch that the branch deletes."""
        return tuple(sorted(self.before.keys() - self.here.keys()))

    @property
    def merged(self) -> Mapping[str, str]:
        """The texts after a merge: the changes of either side; where both changed a file, the branch's."""
        merged = {}
        for name in sorted(self.here.keys() | self.there.keys()):
            side = self.there if self.here.get(name) == self.before.get(name) else self.here
            if name in side:
                merged[name] = side[name]
        return merged


def read(versions: Path) -> Branch:
    """Compare the revision files of a work tree with those of the main branch.

    See :func:`guvnor.revisions.git.main_branch`.

    :param versions: the folder of the revision files.
    :raises BranchError: when this is not a Git checkout, or it lacks the main branch or its history.
    :raises RevisionFilesError: when a file of the work tree cannot be read.
    """
    main = git.main_branch(versions)
    fork = git.merge_base(versions, main)
    before, here = _texts(versions, fork), revision_files.texts(versions)
    return Branch(main, before, here, there=_texts(versions, main))


def _texts(versions: Path, commit: str) -> dict[str, str]:
    """Return the revision files of a commit; however many there are, one process reads them all."""
    listed = git.output(versions, "ls-tree", "-z", commit, "--", "./") or ""
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry.endswith(".py")]
    # Mode, type and object precede each name.
    blobs = {name: about.split()[2] for about, name in entries if about.split()[1] == "blob"}
    done = git.run(versions, "cat-file", "--batch", given="\n".join(blobs.values()).encode())
    answer, found = io.BytesIO(done.stdout), dict[str, str]()
    for name in blobs:
        _, kind, *size = answer.readline().split()  # documentation of git-cat-file, "Batch output"
        if kind != b"blob":
            raise BranchError(f"Git cannot read {name} of {commit}.", next_step="git fetch origin")
        # An old file of the main branch may have any encoding.
        text = answer.read(int(size[0])).decode("utf-8-sig", "replace")
        answer.read(1)
        found[name] = text.replace("\r\n", "\n").replace("\r", "\n")
    return found
