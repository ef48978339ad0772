"""What Git says of a folder: its main branch, the commit at work, and the files of its commits."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from guvnor.errors import ExitCode, GuvnorError

# Git sets these for a hook; in another folder or a linked work tree, they name the wrong repository.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


class BranchError(GuvnorError):
    """Git cannot tell which revisions are new."""

    exit_code = ExitCode.USAGE
    state = "Nothing was changed."
    next_step = "Name the last revision that is not new: guvnor schema lint --since REV"


def run(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, which decides the repository.

    :param given: its standard input.
    :raises BranchError: when Git is not installed.
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


def output(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder and return what it prints; None when it fails."""
    done = run(folder, *arguments)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def main_branch(folder: Path) -> str:
    """Return the main branch, as Git calls it: ``origin/main``.

    It is the target of the pull request where a workflow names it (``GITHUB_BASE_REF``), else the remote's
    default branch, or the local branch of that name where that is ahead, else ``main`` or ``master``. The
    branch that is checked out is compared with the remote's.

    :raises BranchError: when this is not a Git checkout, or it has no such branch.
    """
    found = run(folder, "rev-parse", "--verify", "HEAD")
    if found.returncode != 0:
        # For example, that another user owns the folder.
        complaint = next(iter(found.stderr.decode("utf-8", "replace").splitlines()), "nothing")
        raise BranchError(
            f"{folder} is not in a Git checkout with a commit that can be read. Git says: {complaint}",
            next_step=f"git -C {folder} status\n"
            "guvnor schema lint --since REV   # REV: the last one that is not new",
        )
    base = os.environ.get("GITHUB_BASE_REF")
    default = output(folder, "symbolic-ref", "--short", "--quiet", "refs/remotes/origin/HEAD") or ""
    usual = [*default.split(), "origin/main", "main", "origin/master", "master"]
    wanted = [f"origin/{base}"] if base else usual
    for name in wanted:
        if output(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None:
            return name if base else _or_local(folder, name)
    raise BranchError(
        f"There is no main branch to compare with: looked for {', '.join(wanted)}.",
        next_step="git fetch origin && git remote set-head origin --auto",
    )


def _or_local(folder: Path, remote: str) -> str:
    """Return a remote branch, or the local one of its name where that is ahead and not checked out."""
    local = remote.partition("/")[2]
    if not local or current_branch(folder) == local:
        return remote
    names = (f"refs/heads/{local}", f"refs/remotes/{remote}")
    commits = [output(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") for name in names]
    if None in commits or commits[0] == commits[1]:
        return remote
    ahead = run(folder, "merge-base", "--is-ancestor", names[1], names[0]).returncode == 0
    return local if ahead else remote


def current_branch(folder: Path) -> str:
    """Return the branch that is checked out; empty for none."""
    return (output(folder, "symbolic-ref", "--short", "--quiet", "HEAD") or "").strip()


def merge_base(folder: Path, main: str) -> str:
    """Return the commit that the one at work and the main branch have in common.

    :raises BranchError: when there is none.
    """
    found = output(folder, "merge-base", "HEAD", main)
    if found is None:
        raise BranchError(
            f"Git finds no commit that this branch and {main} have in common; a shallow clone lacks it.",
            next_step="git fetch --unshallow",
        )
    return found.strip()


def branches_with(folder: Path, commit: str) -> list[str]:
    """Return the branches that have a commit, the local ones first."""
    listed = output(
        folder,
        "for-each-ref",
        f"--contains={commit}",
        "--format=%(refname:short)",
        "refs/heads",
        "refs/remotes",
    )
    return (listed or "").split()


def names(folder: Path, commit: str) -> set[str]:
    """Return the names of the files that a folder has in a commit."""
    return set((output(folder, "ls-tree", "-z", "--name-only", commit, "--", "./") or "").split("\0")) - {""}


def added(folder: Path) -> set[str] | None:
    """Return the files of a folder that neither the main branch nor the merge base with it has.

    None where Git cannot tell.
    """
    try:
        main = main_branch(folder)
        known = names(folder, merge_base(folder, main)) | names(folder, main)
    except BranchError:
        return None
    return {path.name for path in folder.iterdir()} - known


def has(folder: Path, commit: str | None, number: int) -> str | None:
    """Return the revision file of a number that a folder has in a commit; None for none.

    :param commit: None for the main branch.
    """
    try:
        listed = names(folder, commit or main_branch(folder))
    except BranchError:
        return None
    return next((name for name in sorted(listed) if name.startswith(f"{number:03d}_")), None)


@cache
def checkout(folder: Path) -> str | None:
    """Say which branch and commit a folder is at: ``add-teams, commit 1a2b3c4d5e``; None without Git."""
    try:
        commit = (output(folder, "rev-parse", "--verify", "--quiet", "--short=10", "HEAD") or "").strip()
        branch = current_branch(folder)
    except (BranchError, OSError):
        return None
    if not commit:
        return None
    return f"branch {branch}, commit {commit}" if branch else f"commit {commit}"
