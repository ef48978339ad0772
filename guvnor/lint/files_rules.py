"""The rules about the revision files together: the main branch's are left alone, and the numbers fit."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.lint.files import Files
from guvnor.lint.problem import Problem
from guvnor.lint.rendering import render
from guvnor.lint.revision import FUNCTIONS
from guvnor.lint.rule import FilesRule
from guvnor.lint.source import Source
from guvnor.revisions.statements import checksum


def _rewritten(files: Files) -> Iterator[Problem]:
    for before, after in files.changed:
        if after is None or _place(before) != _place(after) or _sums(before) != _sums(after):
            what = "deleted" if after is None else "changed in what it does"
            yield Problem(
                APPLIED.name,
                before.shown,
                None,
                None,
                f"The revision is on {files.base} already, and was {what} here.",
                f"git checkout {files.base} -- {before.shown}\nThen write the change as a new revision.",
            )


def _place(source: Source) -> list[object]:
    """Return what a file says of its place among the others."""
    return [source.value(name) for name in ("revision", "down_revision", "branch_labels", "depends_on")]


def _sums(source: Source) -> list[object]:
    """Return a checksum of each direction, in which comments and white space do not count."""
    try:
        ways = [render(source, function) for function in FUNCTIONS.values()]
    except Exception:  # noqa: BLE001 - a file may fail in any way when it is run
        return [source.text]
    return [(checksum([statement.sql for statement in way.statements]), way.failure) for way in ways]


def _out_of_line(files: Files) -> Iterator[Problem]:
    """Count on from the last settled revision, and say of each new one what it has to be."""
    last = max((source.number or 0 for source in files.settled), default=0)
    names = {source.number: source.name for source in files.settled}
    in_order = sorted(files.new, key=lambda source: (source.number is None, source.number or 0, source.name))
    for source in in_order:
        before, last = last, last + 1
        problem = _misplaced(source, last, before, names.get(source.number))
        names.setdefault(source.number, source.name)
        if problem:
            line, message = problem
            steps = _renumbered(files.folder, source, last, before)
            yield Problem(NUMBERS.name, source.shown, line, None, message, steps)


def _misplaced(source: Source, number: int, before: int, same: str | None) -> tuple[int | None, str] | None:
    """Return line and message of what is wrong with the number of a file; None when nothing is."""
    if source.number is None:
        return None, f"{source.name} is not named NNN_words.py."
    if same:
        return None, f"{same} has the number {source.number:03} already."
    if source.number != number:
        return None, f"The number after {before:03} is {number:03}, not {source.number:03}."
    wanted = {"revision": f"{number:03}", "down_revision": f"{before:03}" if before else None}
    for name, value in wanted.items():
        if source.value(name) != value:
            return source.line_of(name), f"{name} is {source.value(name)!r}, not {value!r}."
    return None


def _renumbered(folder: str, source: Source, number: int, before: int) -> str:
    """Return what to type and to edit so that a file gets its number."""
    words = source.name.lstrip("0123456789_").removesuffix(".py")
    name = f"{number:03}_{words}.py"
    down = f'"{before:03}"' if before else "None"
    steps = [] if name == source.name else [f"git mv {source.shown} {folder}/{name}"]
    steps.append(
        f"In {name}: Revision ID: {number:03}, Revises: {f'{before:03}' if before else 'nothing'}, "
        f'revision = "{number:03}", down_revision = {down}'
    )
    return "\n".join(steps)


APPLIED = FilesRule(
    "applied-revision-changed",
    "A revision of the main branch is not changed any more; comments and white space do not count.",
    "It has been applied somewhere. A database that has it will not run it again, and a new one gets "
    "something else.",
    "Take the change back, and write it as a new revision.",
    "002_add_schedules.py   its upgrade() has a column more than on the main branch",
    """\
002_add_schedules.py   as on the main branch
003_add_region.py      adds the column""",
    _rewritten,
)

NUMBERS = FilesRule(
    "numbers",
    "After the merge with the main branch, the numbers of the revisions have no gap and no double, and each "
    "revision follows the one before it.",
    "Two revisions after the same one are two heads: neither can be applied, and the deploy stops at its "
    "pre-flight checks.",
    "The one that is merged later takes the next free number. The report says the exact commands.",
    """\
main branch   002_add_schedules.py  003_add_teams.py
this branch   003_add_region.py""",
    """\
main branch   002_add_schedules.py  003_add_teams.py
this branch   004_add_region.py""",
    _out_of_line,
)

RULES = (APPLIED, NUMBERS)
