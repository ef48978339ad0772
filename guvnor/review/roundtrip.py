"""Up, down and up again on a real server, with rows in every table: what does not come back?

The commands are those that a deploy job types, as processes of their own, in a scratch database.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
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

LIMIT = 300.0  # seconds for a command; there are a few rows only, so one that takes longer never ends


@dataclass(frozen=True)
class Problem:
    """What went wrong at one point of the trip.

    :ivar after: the command: ``up to 003``.
    :ivar exit_code: 1 when it failed, 6 when the schema or the rows are not what they should be.
    :ivar lines: what differs, or why it failed.
    """

    after: str
    exit_code: ExitCode
    lines: tuple[str, ...]


@dataclass
class RoundTrip:
    """What the trip has shown.

    :ivar filled: the rows that were there before the branch's revisions.
    :ivar problems: in the order in which they were met; none when all came back.
    :ivar dropped: the tables and columns whose rows and values the upgrade drops: they were not compared.
    :ivar notes: what is worth knowing and no failure.
    """

    filled: Filled = field(default_factory=Filled)
    problems: list[Problem] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Stop(Exception):  # noqa: N818 - not an error: the trip ends early
    """A command failed: there is no way on."""


def run(dsn: str, tree: Tree, base: str | None, head: str) -> RoundTrip:
    """Migrate a scratch database to the base, fill it, then go up, down and up again.

    :param dsn: of any database of the server.
    :param tree: the revisions.
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
        at_base, before, own = self._snapshot(), self._rows(), self._kept_by_triggers()
        up = self._migrate("up", head)
        self._compare_with_revision(up)
        # The way back has to cope with what was written meanwhile.
        again = rows.fill(self._dsn, first=101)
        self._trip.notes += [
            f"Table {name} has no rows after the upgrade: {why}" for name, why in again.empty.items()
        ]
        at_head, between = self._snapshot(), self._rows()
        down = self._migrate("down", base or "base")
        gone = at_base.objects.keys() - at_head.objects.keys()
        self._trip.dropped += [
            str(item) for item in changes.stored([at_base.objects[key] for key in sorted(gone)])
        ]
        self._compare(down, at_base, gone)
        self._compare_rows(down, before, between, self._rows(), gone, own)
        self._compare(self._migrate("up", head), at_head)

    def _migrate(self, direction: str, to: str) -> str:
        """Run ``guvnor migrate`` as a job would."""
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
                    "GUVNOR_VERIFY": "no",  # done here
                    "PYTHONPATH": os.pathsep.join(path),
                    "PYTHONUTF8": "1",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            reason = f"it has not ended within {LIMIT:.0f} s, with a few rows only"
            self._trip.problems.append(Problem(name, ExitCode.FAILED, (reason,)))
            raise _Stop from None
        if done.returncode != 0:
            said = done.stderr.replace(f"{self._tree.configuration.parent}/", "")
            self._trip.problems.append(Problem(name, ExitCode.FAILED, _reason(said)))
            raise _Stop
        return name

    def _snapshot(self) -> Snapshot:
        with closing(connect(self._dsn, purpose="review")) as connection:
            return reading.read_live_schema(connection)[0]

    def _compare_with_revision(self, after: str) -> None:
        report = drift.check(Database(self._dsn), self._tree.script)
        if not report.clean:
            titles = tuple(f"{f.title}: {f.meaning}" for f in report.findings)
            self._trip.problems.append(Problem(after, ExitCode.DRIFT, titles))

    def _compare(self, after: str, expected: Snapshot, gone: AbstractSet[str] = frozenset()) -> None:
        found = self._snapshot()
        self._trip.notes += [
            f"After {after}, {item} stays."
            for item in changes.left_over(expected, found)
            if item.kind == "extension"
        ]
        if differences := changes.exact(expected, found, gone):
            self._trip.problems.append(Problem(after, ExitCode.DRIFT, tuple(differences)))

    def _rows(self) -> dict[str, tuple[list[str], list[Row]]]:
        """Return the columns and the rows of every table."""
        with closing(connect(self._dsn, purpose="review")) as connection:
            found = {}
            for table in tables.read(connection):
                names = [column.name for column in table.columns]
                found[table.name] = (names, rows.read(connection, table.name, names) if names else [])
            return found

    def _kept_by_triggers(self) -> dict[str, set[str]]:
        """Return the columns that move by themselves, in every table."""
        with closing(connect(self._dsn, purpose="review")) as connection:
            return {table.name: rows.kept_by_triggers(connection, table) for table in tables.read(connection)}

    def _compare_rows(
        self,
        after: str,
        before: Mapping[str, tuple[list[str], list[Row]]],
        between: Mapping[str, tuple[list[str], list[Row]]],
        now: Mapping[str, tuple[list[str], list[Row]]],
        gone: AbstractSet[str],
        own: Mapping[str, set[str]],
    ) -> None:
        """Compare what remained all the while: rows of tables and columns that the upgrade did not drop."""
        lines = []
        for table, (columns, old) in before.items():
            if table not in between or table not in now or f"relation:{table}" in gone:
                continue
            kept = [
                column
                for column in columns
                if f"column:{table}.{column}" not in gone and column in now[table][0]
            ]
            compared = [column for column in kept if column not in own.get(table, set())]
            was, is_now = _only(compared, columns, old), _only(compared, *now[table])
            if lost := Counter(was) - Counter(is_now):
                differing = rows.changed_columns(was, is_now, compared)
                where = f" in {', '.join(differing)}" if differing else ""
                lines.append(f"table {table}: {lost.total()} of {len(was)} rows are not as they were{where}")
            moved = [column for column in kept if column not in compared]
            if moved and rows.changed_columns(_only(moved, columns, old), _only(moved, *now[table]), moved):
                self._trip.notes.append(
                    f"The revisions update rows of table {table}, and a trigger moves {', '.join(moved)}."
                )
            if (fewer := len(between[table][1]) - len(now[table][1])) > 0:
                self._trip.notes.append(
                    f"The downgrade deletes {fewer} of {len(between[table][1])} rows of table {table}."
                )
        if lines:
            self._trip.problems.append(Problem(after, ExitCode.DRIFT, tuple(lines)))


def _only(wanted: Sequence[str], columns: Sequence[str], found: Sequence[Row]) -> list[Row]:
    places = [columns.index(column) for column in wanted]
    return [tuple(row[place] for place in places) for row in found]


def _reason(errors: str) -> tuple[str, ...]:
    """Take from what a command says to people why it failed; the last words of a traceback otherwise."""
    lines = [line for line in errors.splitlines() if line.strip()]
    start = next((place for place, line in enumerate(lines) if line.startswith("❌")), len(lines) - 1)
    said = [line.strip().removeprefix("❌").strip() for line in lines[max(start, 0) :]]
    end = next((place for place, line in enumerate(said) if line.startswith(("State:", "Next:"))), len(said))
    return tuple(said[:end]) or ("it failed and said nothing",)
