"""The SQL of a revision, call by call, with the line of each call in the revision file."""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from guvnor.lint.problem import Violation
from guvnor.online import operations
from guvnor.online.kept_statement import Kept
from guvnor.revisions.statements import Recorder


@dataclass(frozen=True)
class RenderedCall:
    """The SQL that one call of an Alembic operation writes.

    :ivar line: the first line of the call in the revision file.
    :ivar last: the last line of the call.
    :ivar text_line: the line on which the SQL starts; None where the SQL is not a literal in the call.
    :ivar in_transaction: whether it runs in the revision's transaction.
    :ivar operation: the online operation that wrote it; None for the revision's own SQL.
    :ivar kept: the statement, where it keeps rows or brings them back.
    """

    sql: str
    direction: str
    line: int
    last: int
    text_line: int | None
    in_transaction: bool
    operation: str | None
    kept: Kept | None = None

    def line_of(self, number: int) -> int:
        """Return the line of the revision file that a line of the SQL comes from, else the call's line.

        :param number: the number of the line within the SQL, from 0.
        """
        return self.line if self.text_line is None else min(self.text_line + number, self.last)

    @property
    def is_written_out(self) -> bool:
        """Whether the revision's author wrote the SQL; an online operation generates the rest from names."""
        return self.operation in (None, "create_index_concurrently")


@dataclass(frozen=True)
class RenderedDirection:
    """The SQL of ``upgrade()`` or ``downgrade()``.

    :ivar failure: the error that stopped the function; None when there was none.
    :ivar escaped_colons: the texts that have an escaped colon.
    """

    direction: str
    calls: tuple[RenderedCall, ...]
    failure: Violation | None = None
    escaped_colons: tuple[str, ...] = ()


def render(direction: str, function: object, tree: ast.Module, shown: str) -> RenderedDirection:
    """Render one direction of a revision as SQL, without a database, as ``guvnor migrate plan`` does.

    :param direction: ``up`` or ``down``.
    :param function: the revision's ``upgrade`` or ``downgrade``; anything but a function writes nothing.
    :param tree: the parse tree of the revision file.
    :param shown: the file name with which the tree was compiled.
    """
    recorder = _CallRecorder(direction, tree, shown)
    failure = None
    try:
        if isinstance(function, FunctionType):
            recorder.run(function)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_code.co_filename == shown]
        message = f"The SQL cannot be rendered without a database. {type(error).__name__}: {error}"
        failure = Violation(lines[-1] if lines else None, direction, message)
    return RenderedDirection(direction, tuple(recorder.calls), failure, tuple(recorder.escaped_colons))


class _CallRecorder(Recorder):
    """Records each statement together with the call that it comes from."""

    def __init__(self, direction: str, tree: ast.Module, shown: str) -> None:
        super().__init__()
        self.direction, self.tree, self.shown = direction, tree, shown
        self.calls: list[RenderedCall] = []
        self._kept: Kept | None = None

    def execute_text(self, sql: str, execution_options: Mapping[str, Any] | None = None) -> None:
        self._kept = sql if isinstance(sql, Kept) else None
        super().execute_text(sql, execution_options)

    def static_output(self, text: str) -> None:
        if sql := text.strip():
            line, operation = self._caller()
            last, text_line = self._literal(line, sql)
            place = (self.direction, line, last, text_line)
            self.calls.append(RenderedCall(sql, *place, self.in_transaction, operation, self._kept))

    def _caller(self) -> tuple[int, str | None]:
        """Return the current line of the revision file, and the online operation that it has called."""
        operation = None
        for frame, line in traceback.walk_stack(sys._getframe(1)):
            if frame.f_code.co_filename == self.shown:
                return line, operation
            if frame.f_code.co_filename in operations.FILES:
                operation = frame.f_code.co_name.strip("_")
        raise AssertionError("only the functions of a revision write SQL")

    def _literal(self, line: int, sql: str) -> tuple[int, int | None]:
        """Return the last line of the call on a line, and the line on which the SQL starts in its literal."""
        last = line
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and node.lineno == line:
                last = max(last, node.end_lineno or line)
                for text in ast.walk(node):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        start = text.value.lstrip()
                        if start and sql.startswith(start.splitlines()[0].rstrip()):
                            return last, text.lineno + text.value[: -len(start)].count("\n")
        return last, None
