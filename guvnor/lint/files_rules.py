"""The rules about the revision files as a whole: old ones are not edited, new ones are numbered in order."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.lint.files import NewRevisions
from guvnor.lint.problem import LintProblem
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import FilesRule
from guvnor.revisions import renumbering
from guvnor.revisions.statements import checksum


def _edited(files: NewRevisions) -> Iterator[LintProblem]:
    for before, after in files.edited:
        if after is None or _identity(before) != _identity(after):
            what = "deleted it" if after is None else "changed what it does"
            yield LintProblem(
                APPLIED.name,
                before.shown,
                None,
                None,
                f"The revision is on {files.base} already, and this branch has {what}.",
                f"git checkout {files.base} -- {before.shown}\nThen write the change as a new revision.",
            )


def _identity(source: RevisionSource) -> list[object]:
    """Return a file's place among the others and its SQL, without comments and white space."""
    names = ("revision", "down_revision", "branch_labels", "depends_on")
    place = [source.assigned_string(name) for name in names]
    try:
        directions = source.directions
    except Exception:  # noqa: BLE001 - running a file can raise anything
        return [*place, source.text]
    return [*place, *((checksum([call.sql for call in each.calls]), each.failure) for each in directions)]


def _misnumbered(files: NewRevisions) -> Iterator[LintProblem]:
    """Compare the number of each new revision with the one that it must have."""
    taken = {source.number: source.name for source in files.earlier}
    sources = {source.name: source for source in files.new}
    numbers = renumbering.numbered((source.name for source in files.earlier), sources)
    for name, number in numbers.items():
        source = sources[name]
        if wrong := _wrong_number(source, number, taken.get(source.number)):
            line, message = wrong
            command = f"guvnor migrate renumber {name}"
            yield LintProblem(NUMBERS.name, source.shown, line, None, message, command)
        taken.setdefault(source.number, name)


def _wrong_number(source: RevisionSource, number: int, taken: str | None) -> tuple[int | None, str] | None:
    """Return line and message of a problem with the number of a file; None when there is no problem.

    :param number: the number that it must have.
    :param taken: another file with the same number.
    """
    if source.number is None:
        return None, f"{source.name} is not named NNN_words.py."
    if taken:
        return None, f"{taken} has the number {source.number:03} already."
    if source.number != number:
        return None, f"The number after {number - 1:03} is {number:03}, not {source.number:03}."
    for name, value in renumbering.identifiers(number).items():
        found = source.assigned_string(name)
        if found != value:
            return source.line_of(name), f"{name} is {found!r}, not {value!r}."
    return None


APPLIED = FilesRule(
    "applied-revision-changed",
    "A revision of the main branch is not changed; comments and white space do not count.",
    "It has been applied somewhere. A database that has it will not run it again, and a new database would "
    "get a different schema.",
    "Undo the change, and write it as a new revision.",
    "002_add_schedules.py   its upgrade() adds one column more than on the main branch",
    """\
002_add_schedules.py   as on the main branch
003_add_region.py      adds the column""",
    _edited,
)

NUMBERS = FilesRule(
    "numbers",
    "After the merge with the main branch, the revisions are numbered without gaps and duplicates, and each "
    "one follows the one before it.",
    "Two revisions that follow the same one are two heads: neither can be applied, and the deploy stops at "
    "its pre-flight checks.",
    "The one that is merged later takes the next free number, and `guvnor migrate renumber FILE` gives it "
    "that.",
    """\
main branch   002_add_schedules.py  003_add_teams.py
this branch   003_add_region.py""",
    """\
main branch   002_add_schedules.py  003_add_teams.py
this branch   004_add_region.py""",
    _misnumbered,
)

RULES = (APPLIED, NUMBERS)
