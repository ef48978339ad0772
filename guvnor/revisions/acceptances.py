"""Changes of data that a revision accepts, each with the reason: ``# changes data: TABLE[.COLUMN]: REASON``.

``TABLE`` accepts that rows go: the table is dropped or truncated, or rows are deleted. ``TABLE.COLUMN``
accepts that values go: the column is dropped, overwritten, or changed by a cast. A comment within
``upgrade()`` or ``downgrade()`` is about that direction, one outside of both about either. One that is
indented below the last statement of a function is within it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guvnor.postgres.quoting import unquoted
from guvnor.revisions.script import Direction

_NAME = r'"(?:[^"]|"")+"|[^\s.:"]+'
_COMMENT = re.compile(r"#\s*changes data:\s*(?P<rest>.*)")
_SAID = re.compile(rf"(?P<table>{_NAME})(?:\.(?P<column>{_NAME}))?\s*(?::\s*(?P<reason>.*))?$")
_FUNCTIONS = {"upgrade": Direction.UP, "downgrade": Direction.DOWN}


@dataclass(frozen=True)
class Acceptance:
    """One such comment.

    :ivar line: of the revision file.
    :ivar table: the table, without quotes; empty where the comment cannot be read.
    :ivar column: the column, without quotes; None for the rows of the table.
    :ivar reason: why; empty where the comment does not say, and it accepts nothing then.
    :ivar direction: None for both.
    """

    line: int
    table: str
    column: str | None
    reason: str
    direction: Direction | None

    @property
    def name(self) -> str:
        """What it accepts, without quotes."""
        return self.table if self.column is None else f"{self.table}.{self.column}"

    def __str__(self) -> str:
        """Return the comment's words."""
        return f"changes data: {self.name}: {self.reason}"

    def covers(self, table: str, column: str | None) -> bool:
        """Tell whether it accepts that the rows of a table, or the values of a column, are changed.

        :param table: as SQL writes it.
        :param column: as SQL writes it; None for rows.
        """
        same = self.column is None if column is None else self.column == unquoted(column)
        return bool(self.reason) and self.table == unquoted(table) and same


def read(text: str) -> tuple[Acceptance, ...]:
    """Read the acceptances of a revision file; a text that is not Python has none.

    :param text: of the file.
    """
    try:
        return tuple(_read(text))
    except (SyntaxError, tokenize.TokenError):
        return ()


def of_file(file: Path | None, direction: Direction) -> tuple[Acceptance, ...]:
    """Read what a revision file accepts for one direction.

    :param file: None for a step that runs no revision.
    """
    if file is None:
        return ()
    with tokenize.open(file) as opened:
        found = read(opened.read())
    return tuple(item for item in found if item.direction in (None, direction))


def covering(acceptances: Sequence[Acceptance], table: str, column: str | None) -> Acceptance | None:
    """Return the first that accepts a change; None when there is none. See :meth:`Acceptance.covers`."""
    return next((item for item in acceptances if item.covers(table, column)), None)


def _read(text: str) -> Iterator[Acceptance]:
    body = ast.parse(text).body
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or (match := _COMMENT.match(token.string)) is None:
            continue
        line, indentation = token.start
        node = next((node for node in reversed(body) if node.lineno <= line), None)
        within = node is not None and (indentation > 0 or line <= (node.end_lineno or node.lineno))
        function = node.name if within and isinstance(node, ast.FunctionDef) else ""
        direction = _FUNCTIONS.get(function)
        said = _SAID.match(match["rest"].strip())
        if said is None:
            yield Acceptance(line, "", None, "", direction)
            continue
        column = unquoted(said["column"]) if said["column"] else None
        reason = (said["reason"] or "").strip()
        yield Acceptance(line, unquoted(said["table"]), column, reason, direction)
