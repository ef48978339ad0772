"""``guvnor restore``: puts back what a rollback dropped, into the live database.

The whole holds the run lock, so that no migration changes the tables meanwhile.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from guvnor import postgres, typed
from guvnor.backup import staged
from guvnor.backup.opened import Backup
from guvnor.backup.script import BackupPart
from guvnor.backup.staged import StagedPart, Target
from guvnor.bookkeeping import consistency, history, production, state
from guvnor.bookkeeping.state import State
from guvnor.commands.putting_back import PuttingBack
from guvnor.commands.restored import UNDER_WAY, Report, RestoredPart, failures, what
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import PreflightError
from guvnor.migrate import guard, heartbeat, locks, signals
from guvnor.migrate.locks import Locks
from guvnor.migrate.watch import Watch
from guvnor.postgres import Connection, row_security, scalar
from guvnor.revisions.identifiers import number


@dataclass(frozen=True)
class _Session:
    """What the watch is told of the session that puts rows back."""

    pid: int
    driver: Connection


class RestoreTargetError(PreflightError):
    """The database has nothing that the backup could be put back into."""

    state = "Nothing was restored; the database is unchanged."


def restore_dropped(settings: Settings, backup: Backup, ask: guard.Ask, report: Report) -> list[RestoredPart]:
    """Put back what a rollback dropped.

    :raises RestoreTargetError: when a table or a column is not there (exit code 3).
    :raises RefusedError: when it is production and not confirmed (exit code 4).
    :raises StateError: when the database is dirty (exit code 5).
    :raises RestoreError: when it fails; the same command goes on (exit code 1, or 7 behind a lock).
    """
    database = Database.of(settings)
    with (
        signals.interruptible(UNDER_WAY) as canceller,
        failures(canceller, staged.SCHEMA, UNDER_WAY),
        postgres.closing(database.connect("restore")) as control,
    ):
        canceller.connections.append(control)
        identity, seen = postgres.identify(control), state.read(control, max_wait=settings.max_wait)
        find_targets(control, backup, seen)
        details = tuple(f"put back {what(part, count)}" for part, count in backup.counted if part.columns)
        hashed = ("restore", backup.sha256)
        guard.confirm(settings, ask, identity, seen, guard.RESTORE, seen.version, details, hashed)
        with (
            Locks(control, identity.database, settings.lock_wait).held(),
            heartbeat.beating(control),
            postgres.closing(database.connect("restore rows")) as worker,
            postgres.closing(database.connect("watch")) as watching,
        ):
            canceller.connections.append(worker)
            current = state.read(control, max_wait=settings.max_wait)
            consistency.check_unmoved(seen, current)
            found = find_targets(control, backup, current)
            with worker.cursor() as cursor:
                locks.mark_revision_session(cursor, scalar(control, "SELECT pg_backend_pid()"))
            guarded = production.reason(settings.production_environment, current.production) is not None
            budget = settings.max_stall_in_force(production=guarded)
            session = _Session(scalar(worker, "SELECT pg_backend_pid()"), worker)
            with contextlib.closing(Watch(watching, session)) as watch:
                watch.begin_step(budget)
                return PuttingBack(settings, backup, control, worker, watch, report, found).run()


def find_targets(connection: Connection, backup: Backup, current: State) -> list[StagedPart]:
    """Find where each part is put back.

    :raises RestoreTargetError: when a table or a column is not there, or row security hides rows of it.
    :raises StateError: when the database is dirty.
    """
    if current.dirty:
        raise consistency.dirty_error(current)
    has_history = history.exists(connection)
    found, lacking = [], []
    for place, (part, count) in enumerate(backup.counted):
        target = staged.read_target(connection, part, history=has_history)
        found.append(StagedPart(part, target, place, backup.sha256))
        if part.kind in ("rows", "values") and (problem := _problem(part, count, target)):
            lacking.append((problem, part))
    if lacking:
        made_by = {revision for _, part in lacking for revision in part.revisions}
        pending = any(number(revision) > current.number for revision in made_by)
        raise RestoreTargetError(
            "\n".join(dict.fromkeys(problem for problem, _ in lacking)),
            next_step=f"guvnor migrate up   # makes it again\n{typed.again(when='then')}"
            if pending or not made_by
            else "guvnor migrate history   # which revision has dropped or renamed it since?\n"
            + typed.again(when="once it is there again, by a new revision"),
        )
    tables = [one.part.table for one in found if one.part.kind in ("rows", "values")]
    if hidden := row_security.hidden_tables(connection, tables, schema=None):
        raise RestoreTargetError(
            f"Row security hides rows of {', '.join(hidden)} from role "
            f"{row_security.acting_role(connection)}.",
            next_step=f"{row_security.bypass(connection)}\n{typed.again(when='then')}",
        )
    return found


def _problem(part: BackupPart, count: int, target: Target) -> str | None:
    """Say why a part cannot be put back; None when it can."""
    if target.kind not in ("r", "p"):
        return f"There is no table {part.table}, of which the backup holds {what(part, count)}."
    if target.lacking:
        columns = ", ".join(target.lacking)
        return (
            f"Table {part.table} no longer has column{'s' if len(target.lacking) > 1 else ''} {columns}, of "
            f"which the backup holds values ({what(part, count)})."
        )
    return None
