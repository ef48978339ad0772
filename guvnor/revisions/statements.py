"""What a revision says in SQL: its statements, written down without a database, and their checksum."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from guvnor.online import operations  # noqa: F401 - makes the online operations known to Alembic


class _Collector(io.StringIO):
    """Takes Alembic's offline output apart again: it is written statement by statement."""

    def __init__(self) -> None:
        super().__init__()
        self.statements: list[str] = []

    def write(self, text: str) -> int:
        if text.strip():
            self.statements.append(text.strip())
        return len(text)


def statements(function: Any) -> tuple[str, ...]:
    """Render a revision's ``upgrade`` or ``downgrade`` as SQL, without a database.

    Online operations keep their online form, between COMMIT and BEGIN. A function that reads from the
    database cannot be rendered; what it would have run up to there is followed by a line that says so.
    """
    output = _Collector()
    context = offline_context(output)
    with Operations.context(context):
        try:
            function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision may do anything
            code = getattr(function, "__code__", None)
            digest = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest() if code else ""
            output.statements.append(
                f"-- from here on the revision needs the database ({type(error).__name__}); code "
                f"{digest[:16]}"
            )
    return tuple(output.statements)


def offline_context(output: io.TextIOBase) -> MigrationContext:
    """Return a migration context that writes SQL instead of running it."""
    return MigrationContext.configure(
        dialect_name="postgresql",
        # "named" keeps the driver's doubling of percent signs out of the text.
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": output, "literal_binds": True, "transactional_ddl": True},
    )


# Quoted text is matched as a whole, so that only what stands outside is evened out; comments may nest.
_TOKEN = re.compile(
    r"""
    (?P<quoted>
        (?<!\w)[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
        | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    )
    | (?P<blank> (?: \s | --[^\n]* | /\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*.*?\*/)*\*/ )+ )
    """,
    re.DOTALL | re.VERBOSE,
)


def checksum(texts: Sequence[str]) -> str:
    """Return a checksum over SQL statements in which comments, white space and line ends do not count."""

    def even(match: re.Match[str]) -> str:
        return match["quoted"].replace("\r\n", "\n") if match["quoted"] else " "

    evened = (_TOKEN.sub(even, text).strip() for text in texts)
    return hashlib.sha256("\0".join(evened).encode()).hexdigest()
