"""The revision files that a branch adds, and those that exist after its merge."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guvnor.errors import ExitCode, GuvnorError
from guvnor.revisions import files as revision_files

# Git sets these for a hook; in another folder or a linked work tree, they name the wrong repository.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


class BranchError(GuvnorError):
    """Git cannot tell which revisions are new."""

    exit_code = ExitCode.USAGE
    state = "Nothing was changed."
    next_step = "Name the last revision that is not new: guvnor schema lint --since REV"


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

    The main branch is the target of the pull request where a workflow names it (``GITHUB_BASE_REF``), else
    the remote's default branch, else ``main`` or ``master``.

    :param versions: the folder of the revision files.
    :raises BranchError: when this is not a Git checkout, or it lacks the main branch or its history.
    :raises RevisionFilesError: when a file of the work tree cannot be read.
    """
    main = _main_branch(versions)
    fork = _git(versions, "merge-base", "HEAD", main)
    if fork is None:
        raise BranchError(
            f"Git finds no commit that this branch and {main} have in common; a shallow clone lacks it.",
            next_step="git fetch --unshallow",
        )
    before, here = _texts(versions, fork.strip()), revision_files.texts(versions)
    return Branch(main, before, here, there=_texts(versions, main))


def _main_branch(folder: Path) -> str:
    found = _run(folder, "rev-parse", "--verify", "HEAD")
    if found.returncode != 0:
        # For example, that another user owns the folder.
        complaint = next(iter(found.stderr.decode("utf-8", "replace").splitlines()), "nothing")
        raise BranchError(
            f"{folder} is not in a Git checkout with a commit that can be read. Git says: {complaint}",
            next_step=f"git -C {folder} status\n"
            "guvnor schema lint --since REV   # REV: the last one that is not new",
        )
    base = os.environ.get("GITHUB_BASE_REF")
    default = _git(folder, "symbolic-ref", "--short", "--quiet", "refs/remotes/origin/HEAD") or ""
    usual = [*default.split(), "origin/main", "main", "origin/master", "master"]
    wanted = [f"origin/{base}"] if base else usual
    for name in wanted:
        if _git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None:
            return name
    raise BranchError(
        f"There is no main branch to compare with: looked for {', '.join(wanted)}.",
        next_step="git fetch origin && git remote set-head origin --auto",
    )


def _texts(versions: Path, commit: str) -> dict[str, str]:
    """Return the revision files of a commit; however many there are, one process reads them all."""
    listed = _git(versions, "ls-tree", "-z", commit, "--", "./") or ""
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry.endswith(".py")]
    # Mode, type and object precede each name.
    blobs = {name: about.split()[2] for about, name in entries if about.split()[1] == "blob"}
    done = _run(versions, "cat-file", "--batch", given="\n".join(blobs.values()).encode())
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


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder and return what it prints; None when it fails."""
    done = _run(folder, *arguments)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _run(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, which decides the repository.

    :param given: its standard input.
    """
    try:
        return subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's own git, wherever it is
            cwd=folder,
            input=given,
            capture_output=True,
            env={name: value for name, value in os.environ.items() if name not in _OF_A_HOOK},
            check=False,
        )
    except FileNotFoundError:
        raise BranchError("Git is not installed.") from None
