"""The script that puts back what a rollback dropped, read part by part.

It is a script for psql, so that nothing but PostgreSQL's own programs is needed to use it. For `guvnor
restore`, a comment before each part says as JSON what the part holds. The data follows in COPY's text format:
each row is one line, whatever it contains. A line below says how many rows that are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

HEAD = "-- Puts back what a rollback dropped: rows of tables, and values of columns by primary key."
PART = "-- guvnor: "
_END = b"COMMIT;"  # the last statement
_COPY = re.compile(rb"COPY .* FROM stdin;")
_DATA_END = b"\\.\n"
# What pg_restore writes.
_ENCODING = re.compile(rb"SET client_encoding = '(\w+)';\n")
_HEADER = re.compile(rb"COPY (\S.*?) \((.*)\) FROM stdin;\n")
_ROWS = re.compile(rb"-- Rows: (\d+)")


class DamagedScriptError(ValueError):
    """The script is not whole, or was written by another release."""


@dataclass(frozen=True)
class BackupPart:
    """What one part of the script holds. Names are as SQL writes them, those of relations with their schema.

    :ivar kind: ``rows`` of a table, ``values`` of a column or of several of a table, the state of a
        ``sequence``, or a materialized ``view`` to refresh.
    :ivar name: the table, the column with its table, the sequence or the view.
    :ivar table: the relation that is put back into.
    :ivar columns: of the data; of values, they are the key and each column.
    :ivar key: the columns of the primary key; none where the table has none.
    :ivar revisions: those whose rollback loses the data.
    :ivar gone: whether the column is dropped, not overwritten.
    """

    kind: str
    name: str
    table: str
    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    gone: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what the comment in the script says."""
        return asdict(self)

    @classmethod
    def of(cls, said: dict[str, Any]) -> BackupPart:
        """Return what a comment in the script says."""
        lists = {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
        return cls(**{**said, **lists})


def parts(script: Iterable[bytes]) -> Iterator[tuple[BackupPart, Iterator[bytes]]]:
    """Go over the parts of a script: what each holds, and its rows, a line each.

    :param script: its lines.
    :raises DamagedScriptError: when the script is not whole, or has no such parts.
    """
    lines = iter(script)
    if next(lines, b"").rstrip(b"\n") != HEAD.encode():
        raise DamagedScriptError("it does not begin as such a script does")
    marker, last, found = PART.encode(), b"", False
    for line in lines:
        if line.startswith(marker):
            found = True
            part = _read(line[len(marker) :])
            rows = _rows(lines, part) if part.columns else iter(())
            yield part, rows
            for _ in rows:  # what the caller has left
                pass
        last = line.strip() or last
    if last != _END:
        raise DamagedScriptError("its end is missing")
    if not found:
        raise DamagedScriptError("an older release of guvnor has written it")


def _read(said: bytes) -> BackupPart:
    try:
        return BackupPart.of(json.loads(said))
    except (ValueError, TypeError):
        raise DamagedScriptError("another release of guvnor has written it") from None


def _rows(lines: Iterator[bytes], part: BackupPart) -> Iterator[bytes]:
    """Return the rows of a part, and check their number."""
    for line in lines:
        if _COPY.fullmatch(line.rstrip(b"\n")):
            break
    count = 0
    for line in lines:
        if line == _DATA_END:
            break
        count += 1
        yield line
    said = _ROWS.match(next(lines, b""))
    if said is None or int(said[1]) != count:
        raise DamagedScriptError(f"rows of {part.name} are missing")


@dataclass(frozen=True)
class Copied:
    """The rows of a table in a script of pg_restore.

    :ivar columns: as SQL writes them.
    :ivar encoding: of the lines.
    """

    table: str
    columns: str
    encoding: str
    lines: Iterator[bytes]


def copied(script: Iterable[bytes]) -> Iterator[Copied]:
    """Go over the rows in a script of pg_restore, table by table."""
    lines, encoding = iter(script), "UTF8"
    for line in lines:
        if said := _ENCODING.fullmatch(line):
            encoding = said[1].decode()
        if header := _HEADER.fullmatch(line):
            rows = iter(lambda: next(lines, _DATA_END), _DATA_END)
            yield Copied(header[1].decode(), header[2].decode(), encoding, rows)
            for _ in rows:  # what the caller has left
                pass
