"""The SQL of a revision: its statements, rendered without a database, and their checksum."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Executable

from guvnor.online import kept_statement
from guvnor.online.operations import PLAIN_FORM
from guvnor.postgres import escaped_colons
from guvnor.postgres.quoting import QUOTED_OR_BLANK
from guvnor.postgres.raw_sql import RawPostgresqlImpl

RENDERING = 2  # how statements are rendered; 1 had no tabs, and took backslashes from before colons

_NEEDS_DATABASE = "-- from here on the revision needs the database"
_ASKS_ALEMBIC = re.compile(r"\b(get_context|get_bind|context)\b")


class Recorder(RawPostgresqlImpl):
    """Alembic's PostgreSQL in offline mode, which records the statements instead of writing them.

    :ivar statements: the statements as offline SQL shows them, with COMMIT and BEGIN around those that run
        outside of the transaction.
    :ivar plain: the statements that make the same schema in one transaction, as the revision's author wrote
        them; None when the revision leaves its transaction by itself, or needs parameters.
    :ivar transactional: the statements that run in the revision's transaction, as its author wrote them.
    :ivar in_transaction: whether the next statement runs in the revision's transaction.
    :ivar escaped_colons: the texts with an escaped colon, as the revision has them.
    :ivar rendered_before: the statements as rendering 1 had them.
    """

    def __init__(self) -> None:
        """Record nothing yet."""
        # "named" keeps the driver's doubling of percent signs out of the text.
        self.context = MigrationContext.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},
            opts={"as_sql": True, "output_buffer": io.StringIO(), PLAIN_FORM: self.online},
        )
        super().__init__(self.context.dialect, None, True, True, None, {"literal_binds": True})
        self.context.impl = self
        self.statements: list[str] = []
        self.plain: list[str] | None = []
        self.transactional: list[str] = []
        self.in_transaction = True
        self.escaped_colons: list[str] = []
        self.rendered_before: list[str] = []
        self._exact: str | None = None
        self._before: str | None = None
        self._online = False

    def run(self, function: Callable[[], object]) -> None:
        """Record what a revision's function executes; an error of the function is raised."""
        with Operations.context(self.context):
            function()

    def execute(self, sql: Executable | str, execution_options: dict[str, Any] | None = None) -> None:
        """Record a statement verbatim, and note an escaped colon, or a parameter that has no value."""
        if isinstance(sql, str):
            self.escaped_colons += [sql] if escaped_colons.is_in(sql) else []
            self._before = escaped_colons.as_rendered_before(sql)
            super().execute(sql, execution_options)
            return
        construct: Any = sql
        if any(bind.required for bind in construct.compile(dialect=self.dialect).binds.values()):
            self.plain = None
        super().execute(sql, execution_options)

    def execute_text(self, sql: str, execution_options: Mapping[str, Any] | None = None) -> None:
        """Record text as it stands."""
        self._exact = sql
        try:
            super().execute_text(sql, execution_options)
        finally:
            self._exact = self._before = None

    def online(self, plain: str) -> None:
        """Record the plain form of the online operation that comes next."""
        self._online = True
        if self.plain is not None:
            self.plain.append(plain)

    def emit_commit(self) -> None:
        """Leave the transaction."""
        if not self._online:
            self.plain = None
        self._mark("COMMIT")
        self.in_transaction = False

    def emit_begin(self) -> None:
        """Begin the next transaction."""
        self._online = False
        self.in_transaction = True
        self._mark("BEGIN")

    def _mark(self, word: str) -> None:
        for statements in (self.statements, self.rendered_before):
            statements.append(f"{word}{self.command_terminator}")

    def static_output(self, text: str) -> None:
        """Record a statement."""
        if not text.strip():
            return
        self.statements.append(text.strip())
        before = (
            self._before or text.replace("\t", "    ").strip().removesuffix(self.command_terminator).strip()
        )
        self.rendered_before.append(f"{before}{self.command_terminator}")
        if self.in_transaction:
            written = self._exact or text.strip().removesuffix(self.command_terminator)
            self.transactional.append(written)
            if self.plain is not None:
                self.plain.append(written)


@dataclass(frozen=True)
class Rendering:
    """A revision's ``upgrade`` or ``downgrade`` as SQL.

    :ivar statements: the statements as offline SQL shows them; see :class:`Recorder`.
    :ivar plain: the statements for a transaction that must not commit; None where only running the function
        on a database can show them.
    :ivar transactional: the statements that run in the revision's transaction, as far as they are known.
    :ivar escaped_colons: the texts with an escaped colon, as the revision has them.
    :ivar rendered_before: the statements as rendering 1 had them; see :data:`RENDERING`.
    """

    statements: tuple[str, ...]
    plain: tuple[str, ...] | None
    transactional: tuple[str, ...]
    escaped_colons: tuple[str, ...] = ()
    rendered_before: tuple[str, ...] = ()


@cache
def render(function: Callable[[], object]) -> Rendering:
    """Render a revision's ``upgrade`` or ``downgrade`` as SQL, without a database, once per process.

    A function that reads from the database cannot be rendered further than that; a line that says so follows
    the statements up to there.
    """
    return render_again(function)


def render_again(function: Callable[[], object]) -> Rendering:
    """Render a function anew; see :func:`render`. Chance or a clock may give other statements each time."""
    recorder = Recorder()
    try:
        recorder.run(function)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may do anything
        code = getattr(function, "__code__", None)
        digest = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest() if code else ""
        stops = f"{_NEEDS_DATABASE} ({type(error).__name__}); code {digest[:16]}"
        recorder.statements.append(stops)
        recorder.rendered_before.append(stops)
        recorder.plain = None
    plain = None if recorder.plain is None or _asks_alembic(function) else tuple(recorder.plain)
    return Rendering(
        tuple(recorder.statements),
        plain,
        tuple(recorder.transactional),
        tuple(recorder.escaped_colons),
        tuple(recorder.rendered_before),
    )


def needs_database(statement: str) -> bool:
    """Tell whether a statement is the line that stands for the rest of a revision that reads the database."""
    return statement.startswith(_NEEDS_DATABASE)


def _asks_alembic(function: Callable[[], object]) -> bool:
    """Tell whether a revision's file asks Alembic for its context: its SQL may depend on the answer."""
    code = getattr(function, "__code__", None)
    try:
        source = Path(code.co_filename).read_text("utf-8") if code else ""
    except (OSError, UnicodeDecodeError):
        source = ""
    return not source or _ASKS_ALEMBIC.search(source) is not None


# Only the text outside of quotes is normalized.
_TOKEN = re.compile(QUOTED_OR_BLANK, re.DOTALL | re.VERBOSE)


def checksum(texts: Sequence[str]) -> str:
    """Return a checksum over SQL statements, which ignores comments, white space and line ends."""

    def even(match: re.Match[str]) -> str:
        return match["quoted"].replace("\r\n", "\n") if match["quoted"] else " "

    evened = (_TOKEN.sub(even, kept_statement.summary(text) or text).strip() for text in texts)
    return hashlib.sha256("\0".join(evened).encode()).hexdigest()
