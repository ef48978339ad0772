"""The SQL of a revision, statement by statement, with the line of the revision file that each comes from."""

from __future__ import annotations

import ast
import io
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from alembic.operations import Operations

from guvnor.lint.source import Source
from guvnor.online import operations
from guvnor.revisions.statements import offline_context


@dataclass(frozen=True)
class Statement:
    """What one call of an operation writes.

    :ivar line: of the call in the revision file.
    :ivar last: the last line of the call.
    :ivar text_line: the line on which the SQL starts there; None where it is not written out in the call.
    :ivar in_transaction: whether it runs in the revision's transaction.
    :ivar operation: the online operation that wrote it; None for SQL of the revision's own.
    """

    sql: str
    line: int
    last: int
    text_line: int | None
    in_transaction: bool
    operation: str | None

    def line_of(self, number: int) -> int:
        """Return the line of the revision file on which a line of the SQL stands, as far as that can be told.

        :param number: of the line within the SQL, from 0.
        """
        return self.line if self.text_line is None else min(self.text_line + number, self.last)

    @property
    def is_written_out(self) -> bool:
        """Whether the SQL stands in the revision; the rest is what an online operation makes of its names."""
        return self.operation in (None, "create_index_concurrently")


@dataclass(frozen=True)
class Rendered:
    """One direction of a revision.

    :ivar failure: why the function could not be rendered to its end, and at which line.
    """

    statements: tuple[Statement, ...]
    failure: tuple[int | None, str] | None = None


def render(source: Source, function: str) -> Rendered:
    """Render ``upgrade`` or ``downgrade`` as SQL, without a database.

    It is what ``guvnor migrate plan`` shows, taken down with the lines that it comes from.
    """
    body = source.function(function)
    if body is None:
        return Rendered(())
    recorder = _Recorder(source)
    context = offline_context(recorder)
    # Alembic writes COMMIT and BEGIN around what runs outside the transaction.
    context.impl.emit_commit = recorder.commit  # type: ignore[method-assign]
    context.impl.emit_begin = recorder.begin  # type: ignore[method-assign]
    with Operations.context(context):
        try:
            body()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may do anything
            lines = [
                f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == source.shown
            ]
            failure = (lines[-1] if lines else None, f"{type(error).__name__}: {error}")
            return Rendered(tuple(recorder.statements), failure)
    return Rendered(tuple(recorder.statements))


class _Recorder(io.StringIO):
    """Takes down what Alembic writes in offline mode, a statement at a time."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.statements: list[Statement] = []
        self.in_transaction = True

    def commit(self) -> None:
        self.in_transaction = False

    def begin(self) -> None:
        self.in_transaction = True

    def write(self, text: str) -> int:
        sql = text.strip()
        if sql:
            line, operation = self._caller()
            last, text_line = self._literal(line, sql)
            statement = Statement(sql, line, last, text_line, self.in_transaction, operation)
            self.statements.append(statement)
        return len(text)

    def _caller(self) -> tuple[int, str | None]:
        """Return the line of the revision file that is running, and the online operation it has called."""
        operation = None
        for frame in _frames(sys._getframe(1)):
            if frame.f_code.co_filename == self.source.shown:
                return frame.f_lineno, operation
            if frame.f_code.co_filename == operations.__file__:
                operation = frame.f_code.co_name.strip("_")
        raise AssertionError("only the functions of a revision write")

    def _literal(self, line: int, sql: str) -> tuple[int, int | None]:
        """Find the last line of the call on a line, and the first one of a statement among its literals."""
        last = line
        for node in ast.walk(self.source.tree):
            if isinstance(node, ast.Call) and node.lineno == line:
                last = max(last, node.end_lineno or line)
                for text in ast.walk(node):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        start = text.value.lstrip()
                        if start and sql.startswith(start.splitlines()[0].rstrip()):
                            return last, text.lineno + text.value[: -len(start)].count("\n")
        return last, None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
