"""The review of a branch: independent checks, and what its revisions do."""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.backup import losses
from guvnor.config import Settings
from guvnor.database import Database, local_server
from guvnor.errors import ExitCode, GuvnorError
from guvnor.lint import LintReport, lint_revisions
from guvnor.review import effects, expected, files, roundtrip, todos
from guvnor.review.effects import Range, RevisionEffects, stops
from guvnor.review.expected import Expected
from guvnor.review.files import Tree
from guvnor.review.roundtrip import RoundTrip
from guvnor.revisions import branch, files as revision_files, renumbering
from guvnor.revisions.branch import Branch
from guvnor.revisions.files import RevisionFilesError
from guvnor.revisions.renumbering import Renumbering
from guvnor.revisions.script import Direction
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport

log = logging.getLogger(__name__)

# The models are the expected schema, the revisions the actual one.
_WHERE = {
    "missing": "is only in the models",
    "unexpected": "is only in the revisions",
    "different": "differs",
}
_TRACEBACK = "guvnor schema review -v   # with the traceback, for a report of the fault"
Verdict = Literal["passed", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class ReviewCheck:
    """One check of a review.

    :ivar name: the name in the report, such as ``Lint``.
    :ivar summary: the result in one line.
    :ivar next_step: what to do about it, a line for each command; None where there is nothing to do.
    :ivar exit_code: DONE unless it failed.
    :ivar count: the result as a number of things: ``2 differences``.
    """

    name: str
    verdict: Verdict
    summary: str
    next_step: str | None = None
    exit_code: ExitCode = ExitCode.DONE
    count: str = "1 error"


@dataclass
class Review:
    """The result of a review.

    :ivar main: the main branch, as Git calls it.
    :ivar new: the revision files that the branch adds.
    :ivar folder: the folder of the revision files, relative to the current directory.
    :ivar checks: the checks in the order of the report; the first that failed decides the exit code.
    :ivar renumberings: what to renumber after the merge.
    :ivar renumbered: whether the other checks used renumbered files.
    :ivar parts: the new revisions, in order; none where the files are not one line.
    :ivar drift: how revisions and models differ; None where the comparison failed.
    :ivar lint: what lint found; None where it failed.
    :ivar trip: what the round trip found; None where there was none.
    :ivar faults: the comments that accept what the revisions do not do.
    """

    main: str
    new: tuple[str, ...]
    folder: str
    checks: list[ReviewCheck] = field(default_factory=list)
    renumberings: tuple[Renumbering, ...] = ()
    renumbered: bool = False
    parts: tuple[RevisionEffects, ...] = ()
    drift: DriftReport | None = None
    lint: LintReport | None = None
    trip: RoundTrip | None = None
    faults: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """DONE when no check failed, else the code of the first that did."""
        return next((check.exit_code for check in self.checks if check.verdict == "failed"), ExitCode.DONE)


def counted(count: int, thing: str) -> str:
    """Return a number with its noun: ``1 loss``, ``2 tables``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}{'es' if thing.endswith('s') else 's'}"


def review_branch(settings: Settings) -> Review:
    """Review the revisions that the branch of the current directory adds.

    The checks use scratch databases on the server of ``shadow.dsn``, else on the local server.

    :raises BranchError: when Git cannot tell which revisions are new.
    :raises LocalServerError: when the local server does not start.
    """
    configuration = revision_files.configuration_file()
    found = branch.read(revision_files.directory(configuration))
    dsn = settings.shadow_dsn or local_server()
    postgres.connect(dsn, purpose="review").close()  # fail once here, instead of in every check
    with tempfile.TemporaryDirectory(prefix="guvnor-review-") as folder:
        return _Reviewer(dsn, configuration, found, Path(folder)).run()


class _Reviewer:
    """Runs the checks one after the other, and collects their results."""

    def __init__(self, dsn: str, configuration: Path, found: Branch, folder: Path) -> None:
        self._dsn, self._configuration, self._branch, self._folder = dsn, configuration, found, folder
        self._versions = revision_files.directory(configuration)
        self._review = Review(found.main, found.new, os.path.relpath(self._versions))
        self._expected = Expected()
        self._only_empty: str | None = None  # why nothing was seen with rows
        self._unseen: BaseException | None = None  # what broke the look at the data off

    def run(self) -> Review:
        """Run all checks; one that fails does not stop the others."""
        review = self._review
        self._guarded("One line", self._check_line)
        found = None
        if own := self._own_tree():
            tree, names = own
            self._guarded("Models", lambda: self._check_models(tree))
            found = self._range(tree, names) if names else None
        if found:
            review.parts = found.parts
            self._observe(found)
            self._guarded("Round trip", lambda: self._check_round_trip(found))
        self._guarded("Lint", self._check_lint)
        if found:
            # What has failed in the round trip would only fail again.
            failed = review.trip and any(p.exit_code == ExitCode.FAILED for p in review.trip.problems)
            skipped = "Not checked: a revision failed."
            if failed and self._unseen is not None:
                review.checks.append(ReviewCheck("Data", "skipped", skipped, count="not checked"))
            else:
                self._guarded("Data", lambda: self._check_data(found))
            if failed:
                review.checks.append(ReviewCheck("Locks", "skipped", skipped, count="not checked"))
            else:
                self._guarded("Locks", lambda: self._check_locks(found))
        return review

    def _observe(self, found: Range) -> None:
        """See what the revisions do; where that fails, the check of the data says so."""
        try:
            seen, self._only_empty = effects.observe(self._dsn, found)
            self._expected = expected.of_effects(seen)
            effects.add_changes(found, seen)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
            self._unseen = error

    def _range(self, tree: Tree, names: tuple[str, ...]) -> Range | None:
        """Return the steps of the new revisions; None where they cannot be told, and a check says why."""
        try:
            return effects.range_of(tree, names)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
            self._review.checks.append(self._broken("Files", error))
            return None

    def _guarded(self, name: str, check: Callable[[], ReviewCheck]) -> None:
        """Run a check; when it raises, it has failed."""
        try:
            self._review.checks.append(check())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
            self._review.checks.append(self._broken(name, error))

    def _broken(self, name: str, error: BaseException) -> ReviewCheck:
        if isinstance(error, GuvnorError):
            next_step = self._shown(error.next_step) if error.next_step else None
            return ReviewCheck(name, "failed", self._shown(error.message), next_step, error.exit_code)
        log.debug(f"The check {name} broke off.", exc_info=error)
        cause = getattr(error, "orig", None) or error
        summary = self._shown(f"{type(cause).__name__}: {postgres.primary_message(cause)}")
        frames = traceback.walk_tb(error.__traceback__)
        if any(frame.f_code.co_filename.startswith(f"{self._folder}/") for frame, _ in frames):
            return ReviewCheck(name, "failed", summary, None, ExitCode.FAILED)
        blame = f"The check broke off. That is a fault of guvnor, not of the revisions: {summary}"
        return ReviewCheck(name, "failed", blame, _TRACEBACK, ExitCode.FAILED)

    def _shown(self, text: str) -> str:
        """Name files by their path in the checkout, not in the temporary folder."""
        for folder in self._folder.glob("*"):
            text = text.replace(f"{folder}/", "")
        return text

    def _plant(self, name: str, texts: Mapping[str, str]) -> Tree:
        """Write the files to a folder; a TODO, which lint finds, does not stop the other checks."""
        runnable = {file: todos.runnable(text) for file, text in texts.items()}
        return files.plant(self._folder / name, self._versions.parent, runnable)

    def _check_line(self) -> ReviewCheck:
        """Check the files as they will be after the merge."""
        found = self._branch
        tree = self._plant("merged", found.merged)
        try:
            tree.validate()
        except RevisionFilesError as error:
            if found.deleted:
                deleted = " ".join(f"{self._review.folder}/{name}" for name in found.deleted)
                error.next_step = f"git checkout {found.main} -- {deleted}"
            else:
                moved = renumbering.renumberings(found.merged, found.new)
                self._review.renumberings = tuple(m for m in moved if m.old != m.new or m.edits)
            raise
        head = revision_files.read(revision_files.directory(tree.configuration))[-1].identifier
        summary = f"{len(found.merged)} revisions in one line, head {head}."
        count = f"{counted(len(found.merged), 'revision')}, head {head}"
        return ReviewCheck("One line", "passed", f"After the merge with {found.main}: {summary}", count=count)

    def _own_tree(self) -> tuple[Tree, tuple[str, ...]] | None:
        """Return the branch's own files, renumbered where necessary, and the names of the new ones.

        None where they cannot be used; a check says why.
        """
        here, new = self._branch.here, self._branch.new
        try:
            tree = self._plant("branch", here)
            try:
                tree.validate()
            except RevisionFilesError:
                moved = renumbering.renumberings(here, new)
                kept = {name: text for name, text in here.items() if name not in new}
                tree = self._plant("renumbered", kept | {item.new: item.text for item in moved})
                tree.validate()
                self._review.renumbered = True
                new = tuple(item.new for item in moved)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
            if self._review.checks[-1].verdict == "passed":
                self._review.checks.append(self._broken("Files", error))
            return None
        return tree, new

    def _check_models(self, tree: Tree) -> ReviewCheck:
        found = drift.check_files(Database(self._dsn), tree.script, GUVNOR.load_metadata())
        self._review.drift = found
        if found.clean:
            matches = f"guvnor/models.py matches {found.actual}."
            return ReviewCheck("Models", "passed", matches, count="no difference")
        titles = [f"{f.kind} {f.object} {_WHERE[f.change]}" for f in found.findings[:3]]
        more = f" and {len(found.findings) - 3} more" if len(found.findings) > 3 else ""
        return ReviewCheck(
            "Models",
            "failed",
            f"The revisions and guvnor/models.py disagree: {', '.join(titles)}{more}.",
            "$EDITOR guvnor/models.py   # or the new revision, until both agree:\nscripts/check_drift",
            ExitCode.DRIFT,
            counted(len(found.findings), "difference"),
        )

    def _check_lint(self) -> ReviewCheck:
        self._review.lint = found = lint_revisions(self._configuration, dsn=self._dsn)
        if found.clean:
            names = ", ".join(found.revisions)
            summary = f"No problem in {names}." if names else "No new revision."
            return ReviewCheck("Lint", "passed", summary, count="no problem")
        rules = ", ".join(dict.fromkeys(problem.rule for problem in found.problems))
        summary = f"Problems: {len(found.problems)} ({rules})."
        count = counted(len(found.problems), "problem")
        return ReviewCheck("Lint", "failed", summary, "guvnor schema lint", ExitCode.PREFLIGHT, count)

    def _check_round_trip(self, found: Range) -> ReviewCheck:
        self._review.trip = trip = roundtrip.run(
            self._dsn, found.tree, found.base, found.head, self._expected
        )
        if trip.problems:
            first = trip.problems[0]
            differs = first.exit_code == ExitCode.DRIFT
            where = f"After {first.after}" if differs else f"{first.after} failed"
            summary = self._shown(f"{where}: {first.lines[0]}")
            count = counted(len(trip.problems), "problem")
            return ReviewCheck(
                "Round trip", "failed", summary, trip.step_by_step(found.base), first.exit_code, count
            )
        count = counted(len(trip.filled.rows), "table")
        text = f"Up, down and up again with rows in {count}: "
        text += "schema and rows came back"
        text += f", except for what was stored in {', '.join(trip.dropped)}." if trip.dropped else "."
        reasons = {
            f"{'.'.join(filter(None, place))} ({self._expected.accepted[place]})" for place in trip.excused
        }
        notes = [f"Not compared, as the revisions accept: {', '.join(sorted(reasons))}."] if reasons else []
        notes += [f"Table {name} stayed empty." for name in trip.filled.empty] + trip.notes
        count += f", {counted(len(notes), 'remark')}" if notes else ""
        verdict: Verdict = "warning" if notes else "passed"
        return ReviewCheck("Round trip", verdict, " ".join((text, *notes)), count=count)

    def _check_data(self, found: Range) -> ReviewCheck:
        if self._unseen is not None:
            raise self._unseen
        if faults := list(self._faults(found)):
            self._review.faults = tuple(faults)
            edit = f"$EDITOR {faults[0].partition(':')[0]}   # correct or delete the comment"
            others = f" And {len(faults) - 1} more: see below." if len(faults) > 1 else ""
            count = counted(len(faults), "wrong comment")
            return ReviewCheck("Data", "failed", f"{faults[0]}.{others}", edit, ExitCode.PREFLIGHT, count)
        check = self._check_losses(found)
        more = []
        if new := [str(item.constraint) for part in found.parts for item in part.up.constraints]:
            more.append(f"Rows of production may break {', '.join(new)}: see the queries.")
        if self._only_empty:
            more.append(f"What only happens where rows are was not seen: {self._only_empty}")
        if more:
            count = check.count + (f", {counted(len(new), 'constraint')}" if new else "")
            return replace(check, verdict="warning", summary=" ".join((check.summary, *more)), count=count)
        return check

    def _faults(self, found: Range) -> Iterator[str]:
        """Say which comments accept what the revisions do not do."""
        excused = self._review.trip.excused if self._review.trip else ()
        for part in found.parts:
            done = {Direction.UP: part.up.touched, Direction.DOWN: part.down.touched}
            for line, fault in expected.faults(part.accepts, done, excused):
                yield f"{self._review.folder}/{part.file}:{line}: {fault}"

    def _check_losses(self, found: Range) -> ReviewCheck:
        lost = [loss for part in found.parts for loss in part.up.lost]
        if lost:
            count = counted(len(lost), "loss")
            if all(loss.how == "drop" for loss in lost):
                named = ", ".join(f"{loss.kind} {loss.name}" for loss in lost)
                summary = f"The upgrade drops stored data: {named}."
            else:
                summary = f"The upgrade loses stored data: it {losses.in_words(lost)}."
            return ReviewCheck("Data", "warning", summary, count=count)
        back = losses.in_words(loss for part in found.parts for loss in part.down.lost)
        ways_back = f"The downgrade {back}." if back else "Neither does the downgrade."
        summary = f"The upgrade drops no stored data. {ways_back}"
        return ReviewCheck("Data", "passed", summary, count="no loss")

    def _check_locks(self, found: Range) -> ReviewCheck:
        effects.add_locks(self._dsn, found)
        waits = [f"{table} {why}" for part in found.parts for table, why in stops(part.up)]
        back = [stop for part in found.parts for stop in stops(part.down)]
        waits += [f"on the way back, {table} {why}" for table, why in back]
        locked = dict.fromkeys(table for part in found.parts for table in part.up.rows_locked)
        waits += [f"the rows of {table} that change stay locked until the commit" for table in locked]
        said = [(part.revision, part.max_stall) for part in found.parts if part.max_stall]
        waits += [
            f"revision {revision} allows itself {stall.text}: {stall.reason}" for revision, stall in said
        ]
        if waits:
            summary = f"The application waits: {'; '.join(waits)}."
            return ReviewCheck("Locks", "warning", summary, count=counted(len(waits), "wait"))
        summary = "No table in use is rewritten or read as a whole while others wait."
        return ReviewCheck("Locks", "passed", summary, count="no wait")
