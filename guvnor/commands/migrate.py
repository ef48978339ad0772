"""``guvnor migrate``: what its commands do apart from moving the version."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.bookkeeping import consistency, history, production, state, versions
from guvnor.bookkeeping.consistency import StateError
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import ExitCode
from guvnor.migrate import guard, locks, preflight, repair, signals
from guvnor.postgres import Connection, Identity
from guvnor.revisions import files as revision_files
from guvnor.revisions.files import Revision
from guvnor.revisions.identifiers import following
from guvnor.revisions.script import alembic_config, read_revisions, upgrade_steps

if TYPE_CHECKING:
    from guvnor.revisions.plan import Plan


@dataclass(frozen=True)
class Status:
    """What ``guvnor migrate status`` shows.

    :ivar problem: why a migration cannot start from here; None when it can.
    :ivar running: who is migrating the database right now, golang-migrate included.
    :ivar known: lines that say which objects of an interrupted revision are in the database.
    """

    identity: Identity
    state: State
    pending: tuple[Revision, ...]
    newest: Revision
    ahead: bool
    problem: StateError | None
    running: locks.Holder | None
    known: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of ``status --exit-code``."""
        if self.problem and not self.running:
            return ExitCode.DECISION
        return ExitCode.PENDING if self.pending or self.state.dirty else ExitCode.DONE


def repair_choices(settings: Settings) -> tuple[State, tuple[repair.Choice, ...]]:
    """Read the state and the choices for its repair; there is none when nothing is to repair."""
    with postgres.closing(Database.of(settings).connect()) as connection:
        running, current = preflight.observe(connection, GUVNOR, settings.max_wait)
        if running:
            raise consistency.at_work_error(running.sentence)
        return current, repair.choices(current, read_revisions())


def run_preflight(
    settings: Settings, report: preflight.Report, patience: float, *, running_files: bool = False
) -> None:
    """Run the pre-flight checks alone, for an ``up``; see :func:`guvnor.migrate.preflight.passed`."""

    def planning(ready: preflight.Ready) -> Plan:
        from guvnor.revisions import plan

        steps = upgrade_steps(None)(ready.script, ready.state.alembic or ())
        return plan.make(ready.identity, ready.state.version, steps)

    with (
        signals.interruptible("The database is unchanged.") as canceller,
        preflight.passed(
            settings,
            GUVNOR,
            report,
            patience=patience,
            running_files=running_files,
            planning=planning,
            canceller=canceller,
        ),
    ):
        pass


def status(settings: Settings) -> Status:
    """Read the state of the database, without Alembic and without a lock."""
    files = read_revisions()
    with postgres.closing(Database.of(settings).connect()) as connection:
        running, current = preflight.observe(connection, GUVNOR, settings.max_wait)
        problem: StateError | None = None
        try:
            consistency.check(current, files)
        except StateError as error:
            problem = error
        known: tuple[str, ...] = ()
        if current.dirty:  # otherwise save the time of the import
            from guvnor.migrate import diagnosis

            known = diagnosis.describe(settings, current)
        ahead = consistency.is_ahead(current, files)
        applied = current.furthest if ahead or not current.alembic else current.number
        return Status(
            identity=postgres.identify(connection),
            state=current,
            pending=tuple(revision for revision in files if revision.number > applied),
            newest=files[-1],
            ahead=ahead,
            problem=problem,
            running=running,
            known=known,
        )


def history_entries(
    settings: Settings, since: str | None = None, *, failed: bool = False
) -> list[history.Entry]:
    """Read the history of the database, the oldest attempt first.

    :param since: leave out earlier attempts; see :func:`guvnor.bookkeeping.history.parse_moment`.
    :param failed: leave out attempts that succeeded.
    """
    start = history.parse_moment(since, datetime.now().astimezone()) if since else None
    with postgres.closing(Database.of(settings).connect()) as connection:
        if not history.exists(connection):
            return []
        history.check_layout(connection)
        running = locks.holder(connection, locks.RUN_LOCK) is not None
        return wait_for_tables(
            connection,
            settings.max_wait,
            lambda: history.entries(connection, since=start, failed=failed, running=running),
        )


def create(name: str) -> Path:
    """Write a revision file with the next number from the house template, and return its path.

    :param name: the name of the change, in words.
    :raises UsageError: when it cannot name a file, or there is no project but that of an installed package.
    :raises RevisionFilesError: when the file cannot be written.
    """
    revision_files.check_title(name)
    from alembic import command

    configuration = revision_files.configuration_file()
    revision_files.check_not_installed(configuration)
    files = revision_files.read(revision_files.directory(configuration))
    config = alembic_config(configuration)
    config.cmd_opts = Namespace(quiet=True, x=None)  # Alembic would print the path, too
    try:
        script = command.revision(
            config, message=name, rev_id=following(revision.identifier for revision in files)
        )
    except OSError as error:
        raise revision_files.RevisionFilesError(
            f"The migration file cannot be created: {error.strerror} ({error.filename}).",
            next_step=f"ls -l {configuration.parent} {revision_files.directory(configuration)}",
        ) from None
    assert script is not None
    assert not isinstance(script, list)
    return Path(script.path)


def force(settings: Settings, to: str, ask: guard.Ask, *, shown: State | None = None) -> State:
    """Set the version in both version tables and clear the dirty flag; the schema is left as it is.

    :param to: the revision that the schema is at, or ``base``.
    :param shown: the state that the user has decided on, where a command has shown it.
    :returns: the state before.
    :raises StateError: when the version was moved since then (exit code 5).
    :raises UsageError: when the files do not know the revision.
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    target = revision_files.find(read_revisions(), to)
    name = target.identifier if target else None
    what = f"set the version to {name or 'none'}, whatever the schema is (it is left as it is)"
    with bookkeeping_connection(settings, "force") as (connection, identity, seen):
        # Ask before the run lock is taken, so that a slow answer blocks nobody.
        hashed = ("force", str(seen.golang), str(seen.dirty))
        guard.confirm(settings, ask, identity, seen, guard.FORCE, name, (what,), hashed)
        held = locks.Locks(connection, identity.database, settings.lock_wait)
        with held.held():
            current = state.read(connection, max_wait=settings.max_wait)
            consistency.check_unmoved(shown or seen, current)
            wait_for_tables(
                connection,
                settings.max_wait,
                lambda: versions.set_version(connection, current, name, "force"),
            )
        return current


def set_production_mark(settings: Settings, ask: guard.Ask, *, marked: bool) -> None:
    """Mark the database as production, or remove the mark after a confirmation.

    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    with bookkeeping_connection(settings, "mark") as (connection, identity, current):
        if not marked:
            at, what = current.version, "nothing will be asked any more before data is lost here"
            guard.confirm(settings, ask, identity, current, guard.UNMARK, at, (what,), ("unmark",))
        wait_for_tables(
            connection, settings.max_wait, lambda: production.set_mark(connection, production=marked)
        )


@contextlib.contextmanager
def bookkeeping_connection(settings: Settings, purpose: str) -> Iterator[tuple[Connection, Identity, State]]:
    """Connect for a command that writes only the bookkeeping, and let signals interrupt it.

    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    with (
        signals.interruptible("No revision was being run.") as canceller,
        postgres.closing(Database.of(settings).connect(purpose)) as connection,
    ):
        canceller.connections.append(connection)
        yield connection, postgres.identify(connection), state.read(connection, max_wait=settings.max_wait)
