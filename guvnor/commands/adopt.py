"""Taking over a database that another tool migrated: its schema is compared, then the version written."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor import postgres
from guvnor.bookkeeping import consistency, production, state, versions
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError, UsageError
from guvnor.migrate import guard
from guvnor.migrate.locks import Locks
from guvnor.postgres import Identity
from guvnor.revisions import check
from guvnor.revisions.confirmation import confirmation_hash
from guvnor.revisions.files import Revision, configuration_file, find
from guvnor.revisions.script import read_revisions, script_directory
from guvnor.schema import drift
from guvnor.schema.drift import DriftError, DriftReport


@dataclass(frozen=True)
class Adoption:
    """What was adopted.

    :ivar revision: the revision that the database is at; None when it was adopted already.
    :ivar report: the comparison of its schema with that revision.
    """

    revision: Revision | None
    report: DriftReport | None


def adopt(settings: Settings, at: str | None, ask: guard.Ask, *, accept_drift: bool = False) -> Adoption:
    """Write the version of a database after comparing its schema with that of the revision.

    Without ``at`` the version is what golang-migrate's table says; where the two version tables disagree, the
    one of them that the schema equals.

    :param at: the revision that the schema is at.
    :param ask: asks for a confirmation, for drift that is accepted in production.
    :param accept_drift: go on where the schema differs.
    :raises DriftError: when the schema differs (exit code 6).
    :raises StateError: when the database is dirty (exit code 5).
    :raises UsageError: when no version is known and none is given.
    """
    files = read_revisions()
    database = Database.of(settings)
    with postgres.closing(database.connect("adopt")) as connection:
        identity = postgres.identify(connection)
        seen = state.read(connection)
        confirmed = None
        if accept_drift and (why := production.reason(database.environment, seen.production)):
            # Ask before the run lock is taken, so that a slow answer blocks nobody; look again under it.
            confirmed = _confirm(settings, database, identity, seen, _candidates(seen, files, at), why, ask)
        locks = Locks(connection, identity.database, settings.lock_wait, lambda _: None)
        locks.take()
        try:
            locks.shut_out_golang()
            current = state.read(connection)
            candidates = _candidates(current, files, at)
            if not candidates:
                return Adoption(None, None)
            revision, report = _best(database, candidates)
            if not report.clean:
                if not accept_drift:
                    raise _differs(revision, report)
                guarded = production.reason(database.environment, current.production) is not None
                if guarded and _digest(identity, current, revision, report) != confirmed:
                    raise GuvnorError(
                        "Version or schema are others now than those that were confirmed.",
                        state="Nothing was written.",
                        next_step="guvnor migrate adopt --accept-drift",
                    )
            versions.set_version(connection, current, revision.identifier, "adopt")
            return Adoption(revision, report)
        finally:
            locks.release()


def _candidates(current: State, files: tuple[Revision, ...], at: str | None) -> list[Revision]:
    """Return the revisions that the schema may be at, the likeliest first; none: there is nothing to do."""
    if current.dirty:
        raise consistency.dirty_error(current)
    if at is not None:
        revision = find(files, at)
        if revision is None:
            raise UsageError(
                "A database without any revision needs no adoption.", next_step="guvnor migrate up"
            )
        return [revision]
    if current.empty:
        raise UsageError(
            "No tool has recorded a version in this database.",
            next_step="guvnor migrate adopt --at REV   # when its schema is that of a revision\n"
            "guvnor migrate up                # when it is empty",
        )
    if current.alembic and current.number == (current.golang or 0):
        return []
    numbers = [current.golang or 0, current.number]
    if current.golang_moved_last is False:
        numbers.reverse()
    return [files[number - 1] for number in dict.fromkeys(numbers) if 0 < number <= len(files)] or _unknown(
        current
    )


def _unknown(current: State) -> list[Revision]:
    raise consistency.StateError(
        f"The migration files know neither version {current.golang} of golang-migrate nor {current.version}.",
        state="Nothing was written.",
        next_step="guvnor version   # is this the release that migrated the database?",
    )


def _best(database: Database, candidates: list[Revision]) -> tuple[Revision, DriftReport]:
    """Compare with each candidate until one fits; the first one is reported when none does."""
    script = script_directory(configuration_file())
    check.load(script)
    compared = []
    for revision in candidates:
        report = drift.check(database, script, revision=revision.identifier)
        if report.clean:
            return revision, report
        compared.append((revision, report))
    return compared[0]


def _differs(revision: Revision, report: DriftReport) -> DriftError:
    count = len(report.findings)
    return DriftError(
        f"The schema of the database is not that of revision {revision.identifier}: it differs in "
        f"{count} {'thing' if count == 1 else 'things'}.",
        report,
        state="Nothing was written.",
        next_step="Reconcile what is listed above, or take it as it is: guvnor migrate adopt --accept-drift",
    )


def _confirm(
    settings: Settings,
    database: Database,
    identity: Identity,
    seen: State,
    candidates: list[Revision],
    why: str,
    ask: guard.Ask,
) -> str | None:
    """Let somebody confirm the drift that there is; returns what was confirmed."""
    if not candidates:
        return None
    revision, report = _best(database, candidates)
    if report.clean:
        return None
    confirmation = _digest(identity, seen, revision, report)
    guard.check(
        guard.Risk(
            "adopt a schema that differs from its revision",
            why,
            identity,
            seen.version,
            revision.identifier,
            _titles(report),
            confirmation,
        ),
        settings.confirm,
        ask,
    )
    return confirmation


def _digest(identity: Identity, current: State, revision: Revision, report: DriftReport) -> str:
    return confirmation_hash(identity, current.version, revision.identifier, ("adopt", *_titles(report)))


def _titles(report: DriftReport) -> tuple[str, ...]:
    return tuple(finding.title for finding in report.findings)
