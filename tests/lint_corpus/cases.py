"""The revisions in ``good.yaml`` and ``bad.yaml``, and what lint says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

import yaml

from guvnor.lint import files, second_rendering
from guvnor.lint.engine import lint_files
from guvnor.lint.files import NewRevisions
from guvnor.lint.revision import RevisionSource
from tests.support.command import CHECKOUT
from tests.support.project import REVISION

_FOLDER = Path(__file__).parent
_NOTHING = 'op.execute("SELECT 1")'


@dataclass(frozen=True)
class Case:
    """One revision.

    :ivar before: the SQL of a revision that comes first; empty for none.
    :ivar up: the body of ``upgrade()`` in Python.
    :ivar rules: what lint must find; empty for a good revision.
    :ivar newest: whether it needs a server that is newer than lint's parser.
    """

    name: str
    before: str
    up: str
    down: str
    rules: frozenset[str]
    newest: bool


def read(kind: str) -> list[Case]:
    """Read the ``good`` or the ``bad`` revisions."""
    found: dict[str, dict[str, object]] = yaml.safe_load((_FOLDER / f"{kind}.yaml").read_text("utf-8"))
    return [_case(name, each) for name, each in found.items()]


def _case(name: str, each: dict[str, object]) -> Case:
    known = {"before", "sql", "back", "up", "down", "rules", "newest"}
    assert each.keys() <= known, f"{name}: {each.keys() - known}"
    up, down = each.get("up"), each.get("down")
    return Case(
        name,
        str(each.get("before", "")),
        str(up) if up else _execute(each["sql"]),
        str(down) if down else _execute(each["back"]) if "back" in each else _NOTHING,
        frozenset(each.get("rules", ())),  # type: ignore[call-overload]
        bool(each.get("newest")),
    )


def _execute(sql: object) -> str:
    return f"op.execute({str(sql).strip()!r})"


def source(case: Case) -> RevisionSource:
    """Return the revision of a case as a file."""
    text = REVISION.format(
        title=f"{case.name.capitalize()}.",
        number="004",
        before="003",
        down_revision='"003"',
        upgrade=indent(case.up.strip(), "    "),
        downgrade=indent(case.down.strip(), "    "),
    )
    return RevisionSource("004_case.py", "alembic/versions/004_case.py", text)


def found(cases: list[Case], dsn: str = "") -> Iterator[tuple[Case, set[str]]]:
    """Lint each case, and yield the rules that found something.

    :param dsn: of a server that reads the newest SQL; without one, cases that need it are left out.
    """
    chosen = [case for case in cases if dsn or not case.newest]
    sources = [source(case) for case in chosen]
    # One other process for all of them.
    named = [replace(each, name=f"{number}.py") for number, each in enumerate(sources)]
    renderings = second_rendering.again(named)
    there = files.after(CHECKOUT / "alembic.ini", "base").new[:2]
    for number, (case, new) in enumerate(zip(chosen, sources, strict=True)):
        before = source(replace(case, up=_execute(case.before or "SELECT 1")))
        first = replace(before, name="003_before.py")
        revisions = NewRevisions("003_before.py", (new,), (*there, first))
        report = lint_files(revisions, {new.name: renderings.get(f"{number}.py", {})}, dsn)
        yield case, {problem.rule for problem in report.problems}
