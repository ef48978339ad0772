"""Up, down and up again on a real server, with rows in every table: what is not restored?

Each step runs ``guvnor migrate`` as a deploy job would, in a process of its own, on a scratch database.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import guvnor
from guvnor.database import Database
from guvnor.errors import ExitCode
from guvnor.postgres import closing, connect
from guvnor.review import changes, rows, scratch, tables
from guvnor.review.files import Tree
from guvnor.review.rows import Filled, Row
from guvnor.schema import drift, reading
from guvnor.schema.snapshot import Snapshot

LIMIT = 300.0  # seconds for a command; with only a few rows, one that takes longer probably never ends


@dataclass(frozen=True)
class TripProblem:
    """What went wrong in one step of the trip.

    :ivar after: the command: ``up to 003``.
    :ivar exit_code: FAILED when the command failed, DRIFT when the schema or the rows are not as expected.
    :ivar lines: what differs, or why the command failed.
    """

    after: str
    exit_code: ExitCode
    lines: tuple[str, ...]


@dataclass
class RoundTrip:
    """What the trip found.

    :ivar filled: the rows that were inserted before the branch's revisions ran.
    :ivar problems: the problems in the order in which they occurred; none when everything was restored.
    :ivar dropped: the tables and columns that the upgrade drops; their contents were not compared.
    :ivar notes: remarks on what is not a failure.
    """

    filled: Filled = field(default_factory=Filled)
    problems: list[TripProblem] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Contents:
    """What a database contains: its schema, and the rows of each table."""

    schema: Snapshot
    rows: Mapping[str, Sequence[Row]]


class _Stop(Exception):  # noqa: N818 - not an error: the trip ends early
    """A command failed, so the trip cannot go on."""


def run(dsn: str, tree: Tree, base: str | None, head: str) -> RoundTrip:
    """Migrate a scratch database to the base, fill it, then go up, down and up again.

    :param dsn: the connection string of any database of the server.
    :param base: the last revision of the main branch; None for an empty database.
    :param head: the last revision of the branch.
    """
    trip = RoundTrip()
    with scratch.database(dsn) as place, contextlib.suppress(_Stop):
        _Traveller(place, tree, trip).travel(base, head)
    return trip


class _Traveller:
    def __init__(self, dsn: str, tree: Tree, trip: RoundTrip) -> None:
        self._dsn, self._tree, self._trip = dsn, tree, trip

    def travel(self, base: str | None, head: str) -> None:
        if base is not None:
            self._migrate("up", base)
        self._trip.filled = rows.fill(self._dsn)
        at_base, own = self._read(), self._kept_by_triggers()
        up = self._migrate("up", head)
        report = drift.check(Database(self._dsn), self._tree.script)
        if not report.clean:
            self._problem(up, ExitCode.DRIFT, [f"{f.title}: {f.meaning}" for f in report.findings])
        # The downgrade must cope with rows that were written after the upgrade.
        again = rows.fill(self._dsn, first=101).empty
        self._trip.notes += [f"Table {name} has no rows after the upgrade: {again[name]}" for name in again]
        at_head = self._read()
        down = self._migrate("down", base or "base")
        gone = at_base.schema.objects.keys() - at_head.schema.objects.keys()
        dropped = changes.stored([at_base.schema.objects[key] for key in sorted(gone)])
        self._trip.dropped += map(str, dropped)
        back = self._read()
        self._compare_schema(down, at_base, back, gone)
        self._compare_rows(down, at_base, at_head, back, gone, own)
        self._compare_schema(self._migrate("up", head), at_head, self._read())

    def _migrate(self, direction: str, to: str) -> str:
        """Run ``guvnor migrate`` as a deploy job would, and return direction and target."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("GUVNOR_")}
        path = [str(Path(guvnor.__file__).parent.parent), *filter(None, [kept.get("PYTHONPATH")])]
        name = f"{direction} to {to}"
        try:
            done = subprocess.run(
                [sys.executable, "-m", "guvnor", "migrate", direction, "--to", to],
                cwd=self._tree.configuration.parent,
                env={
                    **kept,
                    "ALEMBIC_CONFIG": str(self._tree.configuration),
                    "GUVNOR_STORAGE_DSN": self._dsn,
                    "GUVNOR_LOG_LEVEL": "error",
                    "GUVNOR_VERIFY": "no",  # the trip verifies the schema itself
                    "PYTHONPATH": os.pathsep.join(path),
                    "PYTHONUTF8": "1",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            reason = f"it did not end within {LIMIT:.0f} s, although the tables hold only a few rows"
            self._problem(name, ExitCode.FAILED, [reason])
            raise _Stop from None
        if done.returncode != 0:
            said = done.stderr.replace(f"{self._tree.configuration.parent}/", "")
            self._problem(name, ExitCode.FAILED, _reason(said))
            raise _Stop
        return name

    def _problem(self, after: str, exit_code: ExitCode, lines: Sequence[str]) -> None:
        self._trip.problems.append(TripProblem(after, exit_code, tuple(lines)))

    def _read(self) -> _Contents:
        with closing(connect(self._dsn, purpose="review")) as connection:
            schema = reading.read_live_schema(connection)[0]
            found = {}
            for table in tables.read(connection):
                found[table.name] = rows.read(connection, table.name, [c.name for c in table.columns])
            return _Contents(schema, found)

    def _kept_by_triggers(self) -> dict[str, set[str]]:
        """Return the columns of each table that its triggers change."""
        with closing(connect(self._dsn, purpose="review")) as connection:
            return {table.name: rows.kept_by_triggers(connection, table) for table in tables.read(connection)}

    def _compare_schema(
        self, after: str, expected: _Contents, actual: _Contents, gone: AbstractSet[str] = frozenset()
    ) -> None:
        extra = changes.left_over(expected.schema, actual.schema)
        self._trip.notes += [f"After {after}, {item} stays." for item in extra if item.kind == "extension"]
        if differences := changes.exact(expected.schema, actual.schema, gone):
            self._problem(after, ExitCode.DRIFT, differences)

    def _compare_rows(
        self,
        after: str,
        at_base: _Contents,
        at_head: _Contents,
        back: _Contents,
        gone: AbstractSet[str],
        own: Mapping[str, set[str]],
    ) -> None:
        """Compare the rows of the tables and columns that the upgrade did not drop."""
        lines, notes = [], self._trip.notes
        for table, old in at_base.rows.items():
            if table not in at_head.rows or table not in back.rows or f"relation:{table}" in gone:
                continue
            between, new = at_head.rows[table], back.rows[table]
            kept = [
                column
                for column in (old[0] if old else ())
                if f"column:{table}.{column}" not in gone and all(column in row for row in new)
            ]
            compared = [column for column in kept if column not in own.get(table, set())]
            if lost := rows.missing_rows(old, new, compared):
                differing = rows.changed_columns(old, new, compared)
                where = f" in {', '.join(differing)}" if differing else ""
                lines.append(f"table {table}: {lost} of {len(old)} rows are not as they were{where}")
            moved = [column for column in kept if column not in compared]
            if rows.changed_columns(old, new, moved):
                columns = ", ".join(moved)
                notes.append(f"The revisions update rows of table {table}, and a trigger sets {columns}.")
            if (fewer := len(between) - len(new)) > 0:
                notes.append(f"The downgrade deletes {fewer} of {len(between)} rows of table {table}.")
        if lines:
            self._problem(after, ExitCode.DRIFT, lines)


def _reason(errors: str) -> tuple[str, ...]:
    """Return the message of a failed command without its state and next step; else its last line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    start = next((place for place, line in enumerate(lines) if line.startswith("❌")), len(lines) - 1)
    said = [line.strip().removeprefix("❌").strip() for line in lines[max(start, 0) :]]
    end = next((place for place, line in enumerate(said) if line.startswith(("State:", "Next:"))), len(said))
    return tuple(said[:end]) or ("it failed without a message",)
