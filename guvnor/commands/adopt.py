"""Adopting a database that another tool migrated: its schema is compared, then the version is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from guvnor import typed
from guvnor.application import GUVNOR
from guvnor.bookkeeping import consistency, production, state, versions
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.commands.migrate import bookkeeping_connection
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import UsageError
from guvnor.migrate import guard, locks
from guvnor.migrate.locks import Locks
from guvnor.revisions import check
from guvnor.revisions.files import Revision, configuration_file, find
from guvnor.revisions.script import read_revisions, script_directory
from guvnor.schema import drift
from guvnor.schema.drift import DriftError, DriftReport


def adopt(
    settings: Settings, at: str | None, ask: guard.Ask, *, accept_drift: bool = False
) -> Adopted | None:
    """Write the version of a database after comparing its schema with that of the revision.

    Without ``at``, it is the version in golang-migrate's table; where the two version tables disagree, the
    version whose schema the database has. That may be none: golang-migrate may have rolled back everything.

    :param at: the revision that the schema is at.
    :param accept_drift: go on where the schema differs; in production, a person confirms that first.
    :returns: the version that the database is at, and the comparison of the two schemas; None when the
        database was adopted before.
    :raises DriftError: when the schema differs (exit code 6).
    :raises RefusedError: when drift is accepted in production and not confirmed (exit code 4).
    :raises StateError: when the database is dirty, ahead of the files, or moved since the confirmation (exit
        code 5).
    :raises UsageError: when no version is known and none is given.
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    files = read_revisions()
    database = Database.of(settings)
    with bookkeeping_connection(settings, "adopt") as (connection, identity, seen):
        confirmed = None
        if accept_drift and production.reason(settings.production_environment, seen.production):
            # Ask before the locks are taken, so that a slow answer blocks nobody; look again under them.
            if running := locks.at_work(connection):
                raise consistency.at_work_error(running.sentence)
            confirmed = _compare(database, seen, files, at)
            if confirmed and confirmed.differences:
                action, differences = "adopt a schema that differs from its revision", confirmed.differences
                to, hashed = confirmed.to, ("adopt", *differences)
                guard.confirm(settings, ask, identity, seen, action, to, differences, hashed)
        with Locks(connection, identity.database, settings.lock_wait).held():
            current = state.read(connection, max_wait=settings.max_wait)
            found = _compare(database, current, files, at)
            if found is None:
                return None
            if found.differences:
                if not accept_drift:
                    raise _differs(found)
                consistency.check_unmoved(seen, current)
                guarded = production.reason(settings.production_environment, current.production)
                if guarded and found != confirmed:
                    raise consistency.StateError(
                        "The schema has changed since the confirmation.",
                        state="Nothing was written.",
                        next_step=typed.again(),
                    )
            to = found.to
            wait_for_tables(
                connection,
                settings.max_wait,
                lambda: versions.set_version(connection, current, to, "adopt"),
            )
            return Adopted(to, found.report)


@dataclass(frozen=True)
class Adopted:
    """What was adopted.

    :ivar version: the identifier of the revision that the database is at; None for none.
    :ivar report: the comparison of the schema with that revision.
    """

    version: str | None
    report: DriftReport


@dataclass(frozen=True)
class _Comparison:
    """The schema of the database compared with that of a revision.

    :ivar version: the version in the tables.
    :ivar to: the revision; None for an empty schema.
    :ivar differences: the differences, a line each.
    """

    version: str | None
    to: str | None
    differences: tuple[str, ...]
    report: DriftReport = field(compare=False)


def _compare(
    database: Database, current: State, files: tuple[Revision, ...], at: str | None
) -> _Comparison | None:
    """Compare the schema with each candidate until one matches.

    :returns: the comparison that matches, else the one with the fewest differences; None when there is
        nothing to adopt.
    """
    script = script_directory(configuration_file())
    check.load_files(script)
    compared: list[_Comparison] = []
    for to in _candidates(current, files, at):
        report = drift.check(database, script, revision=to or "base", kept=GUVNOR.extensions)
        titles = tuple(finding.title for finding in report.findings)
        compared.append(_Comparison(current.version, to, titles, report))
        if report.clean:
            return compared[-1]
    return min(compared, key=lambda comparison: len(comparison.differences), default=None)


def _candidates(current: State, files: tuple[Revision, ...], at: str | None) -> list[str | None]:
    """Return the versions that the schema may be at, the likeliest first; none when nothing is to do.

    None among them stands for an empty schema.
    """
    if current.dirty:
        raise consistency.dirty_error(current)
    if consistency.is_ahead(current, files):
        raise consistency.ahead_error(current, files)
    if at is not None:
        revision = find(files, at)
        if revision is None and current.empty:
            raise UsageError(
                "A database without any revision needs no adoption.", next_step="guvnor migrate up"
            )
        return [revision.identifier if revision else None]
    if current.empty:
        raise UsageError(
            "No tool has recorded a version in this database.",
            next_step="guvnor migrate adopt --at REV   # when its schema is that of a revision\n"
            "guvnor migrate up                # when it is empty",
        )
    if current.alembic is not None and current.agreed:
        return []
    numbers = [current.golang or 0, current.number]
    if current.golang_moved_last is False:
        numbers.reverse()
    # Where Alembic has never recorded a version, that says nothing about the schema.
    known = [number for number in dict.fromkeys(numbers) if number or current.alembic is not None]
    return [files[number - 1].identifier if number else None for number in known]


def _differs(found: _Comparison) -> DriftError:
    count = len(found.differences)
    that = f"that of revision {found.to}" if found.to else "empty, as before the first revision"
    return DriftError(
        f"The schema of the database is not {that}: it differs in "
        f"{count} {'place' if count == 1 else 'places'}.",
        found.report,
        state="Nothing was written.",
        next_step="Reconcile what is listed above, or accept it: "
        + typed.again_with_flag("--accept-drift", "guvnor migrate adopt --accept-drift"),
    )
