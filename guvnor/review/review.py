"""The review of a branch: a few checks, each guarded, and what its revisions do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.config import Settings
from guvnor.database import Database, local_server
from guvnor.errors import ExitCode, GuvnorError
from guvnor.lint import LintReport, lint_revisions
from guvnor.review import effects, files, roundtrip
from guvnor.review.effects import Range, RevisionEffects
from guvnor.review.files import Move, Tree
from guvnor.review.roundtrip import RoundTrip
from guvnor.revisions import branch, files as revision_files
from guvnor.revisions.branch import Branch
from guvnor.revisions.files import RevisionFilesError
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport

Verdict = Literal["passed", "warning", "failed", "skipped"]

# What a finding means where the models are what is expected, and the revisions what is there.
_WHERE = {
    "missing": "is only in the models",
    "unexpected": "is only in the revisions",
    "different": "differs",
}


@dataclass(frozen=True)
class Check:
    """One check of a review.

    :ivar name: such as ``Lint``.
    :ivar summary: the result in one line.
    :ivar next_step: what to do about it, a line for each command; None where there is nothing to do.
    :ivar exit_code: DONE unless it failed.
    """

    name: str
    verdict: Verdict
    summary: str
    next_step: str | None = None
    exit_code: ExitCode = ExitCode.DONE


@dataclass(frozen=True)
class Review:
    """What a pull request should know.

    :ivar main: the main branch, as Git calls it.
    :ivar new: the revision files that the branch brings.
    :ivar checks: the weightiest first.
    :ivar folder: of the revision files, seen from the current directory.
    :ivar moves: how to renumber files that collide after the merge.
    :ivar renumbered: whether the checks looked at the files as they are after that.
    :ivar parts: the new revisions, in order; none where they cannot be told.
    :ivar drift: how revisions and models differ; None where that could not be told.
    :ivar lint: what lint found; None where it could not run.
    :ivar trip: what the round trip has shown; None where there was none.
    """

    main: str
    new: tuple[str, ...]
    checks: tuple[Check, ...]
    folder: str
    moves: tuple[Move, ...] = ()
    renumbered: bool = False
    parts: tuple[RevisionEffects, ...] = ()
    drift: DriftReport | None = None
    lint: LintReport | None = None
    trip: RoundTrip | None = None

    @property
    def exit_code(self) -> ExitCode:
        """0 when no check failed, else the code of the first that did."""
        return next((check.exit_code for check in self.checks if check.verdict == "failed"), ExitCode.DONE)


def review(settings: Settings) -> Review:
    """Look at the revisions that the branch of the current directory brings.

    The work is done in databases of its own on the server of ``shadow.dsn``, else on the local one.

    :raises BranchError: when Git does not tell what is new.
    :raises LocalServerError: when the local server does not start.
    """
    configuration = revision_files.configuration_file()
    found = branch.read(revision_files.directory(configuration))
    dsn = settings.shadow_dsn or local_server()
    postgres.connect(dsn, purpose="review").close()  # once, instead of a failure in every check
    with tempfile.TemporaryDirectory(prefix="guvnor-review-") as folder:
        return _Reviewer(dsn, configuration, found, Path(folder)).review()


class _Reviewer:
    """Runs the checks one after the other, and keeps what they find."""

    def __init__(self, dsn: str, configuration: Path, found: Branch, folder: Path) -> None:
        self._dsn, self._configuration, self._branch, self._folder = dsn, configuration, found, folder
        self._location = revision_files.directory(configuration).parent
        self._shown_folder = os.path.relpath(revision_files.directory(configuration))
        self._checks: list[Check] = []
        self._moves: tuple[Move, ...] = ()
        self._renumbered = False
        self._parts: tuple[RevisionEffects, ...] = ()
        self._drift: DriftReport | None = None
        self._lint: LintReport | None = None
        self._trip: RoundTrip | None = None

    def review(self) -> Review:
        """Run all checks, each whatever became of the others."""
        self._guarded("One line", self._check_line)
        tree, new = self._own_tree()
        if tree is not None:
            self._guarded("Models", lambda: self._check_models(tree))
        way = self._find_way(tree, new) if tree is not None and new else None
        if way is not None:
            self._guarded("Round trip", lambda: self._check_round_trip(way))
        self._guarded("Lint", self._check_lint)
        if way is not None:
            self._guarded("Data", lambda: self._check_data(way))
            self._guarded("Locks", lambda: self._check_locks(way))
        return Review(
            self._branch.main,
            self._branch.new,
            tuple(self._checks),
            self._shown_folder,
            self._moves,
            self._renumbered,
            self._parts,
            self._drift,
            self._lint,
            self._trip,
        )

    def _guarded(self, name: str, check: Callable[[], Check]) -> None:
        """Run a check; one that breaks off has failed, and the others go on."""
        try:
            self._checks.append(check())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may do anything
            self._checks.append(self._broken(name, error))

    def _broken(self, name: str, error: BaseException) -> Check:
        if isinstance(error, GuvnorError):
            next_step = self._shown(error.next_step) if error.next_step else None
            return Check(name, "failed", self._shown(error.message), next_step, error.exit_code)
        cause = getattr(error, "orig", None) or error
        said = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause).strip()
        return Check(name, "failed", self._shown(f"{type(cause).__name__}: {said}"), None, ExitCode.FAILED)

    def _shown(self, text: str) -> str:
        """Name files as they are named in the checkout, not in the folder of this run."""
        for folder in self._folder.glob("*"):
            text = text.replace(f"{folder}/", "")
        return text

    def _check_line(self) -> Check:
        """Look at the files that there will be after the merge."""
        merged = self._branch.merged
        tree = files.plant(self._folder / "merged", self._location, merged)
        try:
            tree.validate()
        except RevisionFilesError as error:
            if self._branch.deleted:
                gone = [f"{self._shown_folder}/{name}" for name in self._branch.deleted]
                error.next_step = f"git checkout {self._branch.main} -- {' '.join(gone)}"
            elif self._branch.new:
                self._moves = files.renumber(merged, self._branch.new)
            return self._broken("One line", error)
        head = revision_files.read(revision_files.directory(tree.configuration))[-1].identifier
        return Check(
            "One line",
            "passed",
            f"After the merge with {self._branch.main}: {len(merged)} revisions in one line, head {head}.",
        )

    def _own_tree(self) -> tuple[Tree | None, tuple[str, ...]]:
        """Return the branch's own files, renumbered where need be, and the names of the new ones.

        No tree where they cannot be read; the check of the line has said why.
        """
        here, new = self._branch.here, self._branch.new
        try:
            tree = files.plant(self._folder / "branch", self._location, here)
            try:
                tree.validate()
            except RevisionFilesError:
                moves = files.renumber(here, new)
                tree = files.plant(self._folder / "renumbered", self._location, files.moved(here, moves))
                tree.validate()
                self._renumbered = True
                names = {move.old: move.new for move in moves}
                new = tuple(names.get(name, name) for name in new)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a file may fail in any way
            if self._checks[-1].verdict == "passed":
                self._checks.append(self._broken("Files", error))
            return None, ()
        return tree, new

    def _find_way(self, tree: Tree, new: tuple[str, ...]) -> Range:
        way = effects.range_of(tree, new)
        self._parts = effects.written(way)
        return way

    def _check_models(self, tree: Tree) -> Check:
        self._drift = found = drift.check_files(Database(self._dsn), tree.script, GUVNOR.load_metadata())
        if found.clean:
            return Check("Models", "passed", f"guvnor/models.py says what {found.actual} makes.")
        titles = ", ".join(f"{f.kind} {f.object} {_WHERE[f.change]}" for f in found.findings[:3])
        more = f" and {len(found.findings) - 3} more" if len(found.findings) > 3 else ""
        return Check(
            "Models",
            "failed",
            f"The revisions and guvnor/models.py disagree: {titles}{more}.",
            "$EDITOR guvnor/models.py   # or the new revision, until both say the same:\nscripts/check_drift",
            ExitCode.DRIFT,
        )

    def _check_lint(self) -> Check:
        self._lint = found = lint_revisions(self._configuration)
        if found.clean:
            names = ", ".join(found.revisions)
            return Check("Lint", "passed", f"No problem in {names}." if names else "No new revision.")
        rules = ", ".join(dict.fromkeys(problem.rule for problem in found.problems))
        return Check(
            "Lint",
            "failed",
            f"Problems: {len(found.problems)} ({rules}).",
            "guvnor schema lint",
            ExitCode.PREFLIGHT,
        )

    def _check_round_trip(self, way: Range) -> Check:
        self._trip = trip = roundtrip.run(self._dsn, way.tree, way.base, way.head)
        if trip.problems:
            first = trip.problems[0]
            return Check(
                "Round trip",
                "failed",
                self._shown(
                    f"After {first.after}: {first.lines[0]}"
                    if first.exit_code == ExitCode.DRIFT
                    else f"{first.after} failed: {first.lines[0]}"
                ),
                "export GUVNOR_STORAGE_TYPE=embedded   # step by step on the local server\n"
                "guvnor migrate up\nguvnor migrate down",
                first.exit_code,
            )
        count = len(trip.filled.rows)
        text = f"Up, down and up again with rows in {count} {'table' if count == 1 else 'tables'}: "
        text += "schema and rows came back"
        text += f", but for what was stored in {', '.join(trip.dropped)}." if trip.dropped else "."
        notes = [f"Table {name} stayed empty." for name in trip.filled.empty] + trip.notes
        return Check("Round trip", "warning" if notes else "passed", " ".join((text, *notes)))

    def _check_data(self, way: Range) -> Check:
        if (skipped := self._skipped("Data")) is not None:
            return skipped
        self._parts = effects.with_changes(self._dsn, way, self._parts)
        lost = [str(item) for part in self._parts for item in part.up.lost]
        back = [str(item) for part in self._parts for item in part.down.lost]
        ways_back = f"The downgrade drops {', '.join(back)}." if back else "Nor does the downgrade."
        if lost:
            return Check("Data", "warning", f"The upgrade drops stored data: {', '.join(lost)}.")
        return Check("Data", "passed", f"The upgrade drops nothing that is stored. {ways_back}")

    def _check_locks(self, way: Range) -> Check:
        if (skipped := self._skipped("Locks")) is not None:
            return skipped
        self._parts = effects.with_locks(self._dsn, way, self._parts)
        ups = [stop for part in self._parts for stop in effects.stops(part.up.seen or ())]
        downs = [stop for part in self._parts for stop in effects.stops(part.down.seen or ())]
        said = [f"{table} {why}" for table, why in ups]
        said += [f"on the way back, {table} {why}" for table, why in downs]
        if said:
            return Check("Locks", "warning", f"The application waits: {'; '.join(said)}.")
        return Check("Locks", "passed", "No table in use is rewritten or read as a whole while others wait.")

    def _skipped(self, name: str) -> Check | None:
        """Say that a check was left out: a revision that does not run would only fail again."""
        if self._trip is not None and any(
            problem.exit_code == ExitCode.FAILED for problem in self._trip.problems
        ):
            return Check(name, "skipped", "Not looked at: a revision failed.")
        return None
