"""What lint will say of a revision that is about to be written."""

from __future__ import annotations

from pathlib import Path

from guvnor.errors import GuvnorError
from guvnor.lint.engine import lint_files
from guvnor.lint.files import NewRevisions, after
from guvnor.lint.revision import RevisionSource

_HEAD = "from alembic import op\nfrom sqlalchemy import text\n\n\ndef upgrade():\n"
_BETWEEN = "\n\n\ndef downgrade():\n"


def problems(configuration: Path, dsn: str, upgrade: str, downgrade: str) -> list[tuple[str, int, str]]:
    """Lint the bodies of both functions of a revision that comes after all others.

    :param configuration: the path of ``alembic.ini``.
    :param dsn: the connection string of a server that reads SQL which lint's own parser does not know yet.
    :returns: for each problem the direction, the line within that body from 0, and the rule; none where the
        tools of lint are not installed.
    """
    text = f"{_HEAD}{upgrade}{_BETWEEN}{downgrade}\n"
    first = _HEAD.count("\n")
    second = first + upgrade.count("\n") + _BETWEEN.count("\n")
    try:
        earlier = after(configuration, "base").new
        source = RevisionSource("next.py", "next.py", text)
        found = lint_files(NewRevisions("head", (source,), earlier), {}, dsn).problems
    except GuvnorError:
        return []
    places = [(problem.line - 1, problem.rule) for problem in found if problem.line]
    return [
        ("down", line - second, rule) if line >= second else ("up", line - first, rule)
        for line, rule in places
    ]
