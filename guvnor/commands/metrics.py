"""What ``guvnor migrate metrics`` tells: the state of a database and its history, which hold it already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guvnor.bookkeeping.history import Entry
from guvnor.commands import migrate, schema
from guvnor.commands.migrate import Status
from guvnor.config import Settings


@dataclass(frozen=True)
class Metrics:
    """A database as it is now, and what its history tells.

    :ivar attempts: how many there are of each direction, revision and outcome.
    :ivar latest: the last attempt of each direction and revision that has ended by itself.
    :ivar success: the last attempt that succeeded; None where there is none.
    :ivar running: the attempt that is under way; None where none is, or golang-migrate's.
    :ivar differences: from the revision; None where they were not looked for, or it is not known which
        revision that is.
    """

    status: Status
    attempts: Mapping[tuple[str, str, str], int]
    latest: Mapping[tuple[str, str], Entry]
    success: Entry | None
    running: Entry | None
    differences: int | None


def read(settings: Settings, *, check: bool = False) -> Metrics:
    """Read what there is to measure.

    :param check: also compare the schema with its revision.
    """
    status = migrate.status(settings)
    attempts: dict[tuple[str, str, str], int] = {}
    latest: dict[tuple[str, str], Entry] = {}
    success: Entry | None = None
    running: Entry | None = None
    for entry in migrate.history_entries(settings):
        what = entry.direction, entry.revision or ""
        if entry.outcome == "running":
            running = entry
            continue
        attempts[*what, entry.outcome] = attempts.get((*what, entry.outcome), 0) + 1
        if entry.duration_ms is not None:
            latest[what] = entry
        if entry.outcome == "succeeded":
            success = entry
    differences = None
    if check and status.problem is None:
        differences = len(schema.check(settings, against_models=False).findings)
    return Metrics(status, attempts, latest, success, running, differences)
