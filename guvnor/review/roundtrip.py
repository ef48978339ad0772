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
from guvnor.postgres.quoting import unquoted
from guvnor.review import changes, row_differences, rows, scratch, tables
from guvnor.review.expected import Expected, Place
from guvnor.review.files import Tree
from guvnor.review.rows import Filled, Row
from guvnor.review.tables import Table
from guvnor.schema import drift, reading
from guvnor.schema.constraints import RowConstraint
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
    :ivar excused: what did not come back, as a revision accepts.
    :ivar notes: remarks on what is not a failure.
    :ivar went_up: whether the first way up came to its end.
    :ivar at_base: the statements that insert the rows before the branch's revisions.
    :ivar at_head: those that insert the rows after the first way up.
    """

    filled: Filled = field(default_factory=Filled)
    problems: list[TripProblem] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    excused: set[Place] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    went_up: bool = False
    at_base: tuple[str, ...] = ()
    at_head: tuple[str, ...] = ()

    def step_by_step(self, base: str | None) -> str:
        """Return the commands that make the trip again, with the same rows, in a database of its own.

        :param base: the revision to start from; None for none.
        """
        lines = [
            "unset GUVNOR_STORAGE_DSN; export GUVNOR_STORAGE_TYPE=embedded",
            "guvnor db shell -- -c 'DROP DATABASE IF EXISTS round_trip' -c 'CREATE DATABASE round_trip'",
            "export GUVNOR_STORAGE_TYPE=postgres",
            'export GUVNOR_STORAGE_DSN="$(guvnor db url)&dbname=round_trip"',
        ]
        if base is not None:
            lines.append(f"guvnor migrate up --to {base}")
        lines += [*_inserting(self.at_base), "guvnor migrate up"]
        if self.went_up:
            lines += [*_inserting(self.at_head), f"guvnor migrate down --to {base or 'base'}"]
            failed = [problem.after for problem in self.problems if problem.exit_code is ExitCode.FAILED]
            lines += [] if any(after.startswith("down") for after in failed) else ["guvnor migrate up"]
        return "\n".join(lines)


def _inserting(statements: Sequence[str]) -> list[str]:
    """Return the command that runs statements which insert rows; none for none."""
    if not statements:
        return []
    return ["guvnor db shell -- -q -1 -v ON_ERROR_STOP=1 -f - <<'ROWS'", *statements, "ROWS"]


@dataclass(frozen=True)
class _Contents:
    """What a database contains: its schema, its tables, and the rows of each one."""

    schema: Snapshot
    tables: Mapping[str, Table]
    rows: Mapping[str, Sequence[Row]]


class _Stop(Exception):  # noqa: N818 - not an error: the trip ends early
    """A command failed, so the trip cannot go on."""


def run(dsn: str, tree: Tree, base: str | None, head: str, expected: Expected) -> RoundTrip:
    """Migrate a scratch database to the base, fill it, then go up, down and up again.

    The rows satisfy the new constraints as well as the old ones: the report has invented them. Where the
    revisions change such rows first, they are given rows to change; if that is not enough for what was
    invented, they go up once more with rows that satisfy the constraints already.

    :param dsn: the connection string of any database of the server.
    :param base: the last revision of the main branch; None for an empty database.
    :param head: the last revision of the branch.
    :param expected: what the revisions do to rows on purpose.
    """
    trip = _travel(dsn, tree, base, head, expected, expected.satisfied())
    every = expected.satisfied(even_mended=True)
    if trip.went_up or len(every) == len(expected.satisfied()):
        return trip
    again = _travel(dsn, tree, base, head, expected, every)
    if not again.went_up:
        return trip
    first, named = trip.problems[0], ", ".join(map(str, every))
    again.notes.append(
        f"{first.after} failed with rows that break a new constraint, whatever the revisions change first: "
        f"{first.lines[0]} So it was done with rows that satisfy them all ({named})."
    )
    return again


def _travel(
    dsn: str, tree: Tree, base: str | None, head: str, expected: Expected, satisfied: Sequence[RowConstraint]
) -> RoundTrip:
    trip = RoundTrip()
    with scratch.database(dsn) as place, contextlib.suppress(_Stop):
        _Traveller(place, tree, trip, expected).travel(base, head, satisfied)
    return trip


class _Traveller:
    def __init__(self, dsn: str, tree: Tree, trip: RoundTrip, expected: Expected) -> None:
        self._dsn, self._tree, self._trip, self._expected = dsn, tree, trip, expected

    def travel(self, base: str | None, head: str, satisfied: Sequence[RowConstraint]) -> None:
        if base is not None:
            self._migrate("up", base)
        self._trip.filled = rows.fill(self._dsn, satisfying=satisfied)
        at_base, own = self._read(), self._kept_by_triggers()
        self._trip.at_base = rows.inserts(at_base.rows, self._trip.filled)
        up = self._migrate("up", head)
        self._trip.went_up = True
        survivors = self._read().rows
        report = drift.check(Database(self._dsn), self._tree.script)
        if not report.clean:
            self._problem(up, ExitCode.DRIFT, [f"{f.title}: {f.meaning}" for f in report.findings])
        # The downgrade must cope with rows that were written after the upgrade.
        filled = rows.fill(self._dsn, first=101)
        again = filled.empty
        self._trip.notes += [f"Table {name} has no rows after the upgrade: {again[name]}" for name in again]
        at_head = self._read()
        self._trip.at_head = rows.inserts(
            {name: rows.without(every, survivors.get(name, ())) for name, every in at_head.rows.items()},
            filled,
        )
        down = self._migrate("down", base or "base")
        gone = at_base.schema.objects.keys() - at_head.schema.objects.keys()
        dropped = changes.stored([at_base.schema.objects[key] for key in sorted(gone)])
        self._trip.dropped += map(str, dropped)
        back = self._read()
        self._compare_schema(down, at_base, back, gone)
        self._compare_rows(down, at_base, survivors, at_head, back, gone, own)
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
            found = {table.name: table for table in tables.read(connection)}
            columns = {name: [column.name for column in table.columns] for name, table in found.items()}
            contents = {name: rows.read(connection, name, columns[name]) for name in found}
            return _Contents(schema, found, contents)

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
        survivors: Mapping[str, Sequence[Row]],
        at_head: _Contents,
        back: _Contents,
        gone: AbstractSet[str],
        own: Mapping[str, set[str]],
    ) -> None:
        """Compare the rows of the tables and columns that the upgrade did not drop.

        :param survivors: the rows after the way up, before others were added.
        """
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
            key = [column.name for column in at_base.tables[table].columns if column.in_key]
            tolerance = row_differences.tolerance(
                table, compared, self._expected.accepted.keys(), self._expected.filled
            )
            added = rows.without(between, survivors.get(table, ()))
            found = row_differences.find(old, new, added, compared, key, tolerance)
            if found.lost:
                differing = [column for column in compared if column in found.columns]
                where = f" in {', '.join(differing)}" if differing else ""
                lines.append(f"table {table}: {found.lost} of {len(old)} rows are not as they were{where}")
            places = [*([None] if found.gone else []), *sorted(found.accepted)]
            self._trip.excused |= {(unquoted(table), place and unquoted(place)) for place in places}
            if found.filled:
                columns = ", ".join(f"{table}.{column}" for column in sorted(found.filled))
                notes.append(f"After {after}, values stay where NULL was in {columns}.")
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
