"""The SQL that keeps rows beside before it changes or deletes them, and brings them back.

What it needs to know, such as the key and the types of the columns, only the server knows. So a query makes
the statements from the catalogs: online it is asked once and its statements run range by range, and in a
transaction or a script a DO block asks it and runs them over the whole table.

The table beside has the columns of the source that it needs, by their names and types. A type that is not
PostgreSQL's own is kept as text, so that a later revision may drop it. ``guvnor_written_N`` is what the
revision wrote to the N-th changed column, as text, which all types can be compared by.
``guvnor_left_at`` is infinity until a downgrade could not bring the row back.
"""

from __future__ import annotations

import hashlib
import json
import re

RELATION, RANGE = "\1", "\2"
"""What stands in a statement for the table, and for the condition on the places of its rows."""

WAITING = "guvnor_left_at = 'infinity'"
"""The condition of a kept row that was not brought back yet."""


class Kept(str):
    """A statement that keeps what it changes, or brings back what was kept.

    :ivar table: the table whose rows it changes, without quotes.
    :ivar makes: whether it keeps rows, and so needs a key of the table; it brings rows back otherwise.
    """

    __slots__ = ("makes", "table")
    table: str
    makes: bool


_STATEMENT = re.compile(r"DO (\$guvnor_*\$)\n-- (op\.[^\n]*)\n.*\1;?\s*", re.DOTALL)


def statement(table: str, summary: str, text: str, *, makes: bool = False) -> Kept:
    """Return a DO block, in quotes that its body does not hold.

    :param summary: all that the revision says, in words.
    """
    tag = "$guvnor$"
    while tag in text or tag in summary:
        tag = f"{tag[:-1]}_$"
    made = Kept(f"DO {tag}\n-- {' '.join(summary.split())}\n{text.strip()}\n{tag}")
    made.table, made.makes = table, makes
    return made


def summary(sql: str) -> str | None:
    """Return what such a statement does, in one line; None for any other statement.

    Two that differ in what the revision says differ in this line, and a later release may write the same
    statement in other words. So the line stands for it in a checksum, and a person reads no more of it.
    """
    match = _STATEMENT.fullmatch(sql)
    return match[2] if match else None


def digest(*said: object) -> str:
    """Return a checksum over what a revision says."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
