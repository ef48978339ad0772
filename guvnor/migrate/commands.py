"""What the command line calls, a function for a command: values in, values out."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guvnor import postgres
from guvnor.config import Settings
from guvnor.errors import UsageError
from guvnor.migrate import guard, history, locks, preflight, repair, revisions, signals, state
from guvnor.migrate.revisions import Revision
from guvnor.migrate.state import State, StateError
from guvnor.postgres import Identity

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from guvnor.migrate.move import Outcome, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What ``guvnor migrate status`` shows.

    :ivar problem: why a migration cannot start from here; None when it can.
    :ivar running: who is migrating the database right now.
    :ivar known: what of an interrupted revision is in the database, in lines.
    """

    identity: Identity
    state: State
    pending: tuple[Revision, ...]
    newest: Revision
    ahead: bool
    problem: StateError | None
    running: locks.Holder | None
    known: tuple[str, ...]


def alembic_config(path: Path) -> Config:
    """Return Alembic's configuration of an ``alembic.ini``."""
    from alembic.config import Config

    return Config(str(path))


def script_directory(path: Path) -> ScriptDirectory:
    """Return Alembic's view of the revision files of an ``alembic.ini``."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(alembic_config(path))


def read_revisions() -> tuple[Revision, ...]:
    """Return the revision files in the order of their numbers."""
    return revisions.read(revisions.directory(revisions.configuration_file()))


FindSteps = Callable[["ScriptDirectory", tuple[str, ...]], Any]


def upgrade_steps(to: str | None) -> FindSteps:
    """Return what asks Alembic for the steps of an ``up``.

    :param to: the last revision to apply; all when left out.
    :raises UsageError: when the files do not know it.
    """
    target = revisions.find(read_revisions(), to or "head")
    if target is None:
        raise UsageError(
            "Every database starts at base; `up` cannot go there.", next_step="guvnor migrate down --to base"
        )

    def find(script: ScriptDirectory, heads: tuple[str, ...]) -> Any:
        if _number(heads) >= target.number:
            return []
        return script._upgrade_revs(target.identifier, heads)  # type: ignore[arg-type]

    return find


def downgrade_steps(to: str | None) -> FindSteps:
    """Return what asks Alembic for the steps of a ``down``.

    :param to: the revision that remains applied, or ``base``; one step when left out.
    :raises UsageError: when the files do not know it; later, when it is ahead of the database.
    """
    target = revisions.find(read_revisions(), to) if to else None

    def find(script: ScriptDirectory, heads: tuple[str, ...]) -> Any:
        at = _number(heads)
        number = max(at - 1, 0) if to is None else (target.number if target else 0)
        if number > at:
            raise UsageError(
                f"The database is at version {at}; `down` cannot go up to {number}.",
                next_step="guvnor migrate up",
            )
        if number == at:
            return []
        return script._downgrade_revs(f"{number:03d}" if number else "base", heads)  # type: ignore[arg-type]

    return find


def up(request: Request, to: str | None = None) -> Outcome:
    """Apply pending revisions; see :func:`upgrade_steps`."""
    return _run(request, "upgrade", upgrade_steps(to), to or "head")


def down(request: Request, to: str | None = None) -> Outcome:
    """Roll back revisions; see :func:`downgrade_steps`."""
    return _run(request, "downgrade", downgrade_steps(to), to or "-1")


def repair_choices(settings: Settings) -> tuple[State, tuple[repair.Choice, ...]]:
    """Read the state and the ways out of it; no way when there is nothing to repair."""
    with postgres.closing(postgres.connect(postgres.connection_string(settings))) as connection:
        current = state.read(connection)
        if running := locks.holder(connection, locks.RUN_LOCK):
            raise state.StateError(
                f"Another migration is running: {running}. What looks unfinished is its work in progress.",
                state="Nothing was changed by this command.",
            )
        return current, repair.choices(current, read_revisions())


def diagnose(settings: Settings, current: State) -> list[str]:
    """Say in a few lines what of an interrupted revision is in the database, where that can be told."""
    if not current.dirty:
        return []
    from guvnor.migrate import diagnosis

    found = diagnosis.diagnose(settings, current)
    return diagnosis.lines(found) if found else []


def run_repair(request: Request) -> Outcome:
    """Take the way out of a dirty state that the request names, by running its revision."""
    return _run(request, "repair", lambda _script, _heads: [], "")


def _number(heads: tuple[str, ...]) -> int:
    return state.number(heads[0] if heads else None)


def _run(
    request: Request,
    name: str,
    find_steps: FindSteps,
    destination: str,
) -> Outcome:
    """Run Alembic's environment, as Alembic's own commands do."""
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    from guvnor.migrate.environment import REQUEST

    config = alembic_config(revisions.configuration_file())
    config.attributes[REQUEST] = request
    script = ScriptDirectory.from_config(config)

    def steps(heads: Any, _: Any) -> Any:
        return find_steps(script, tuple(heads))

    steps.__name__ = name  # as Alembic's own are called
    with EnvironmentContext(config, script, fn=steps, destination_rev=destination):
        script.run_env()
    assert request.outcome is not None
    return request.outcome


def check(settings: Settings, report: preflight.Report, patience: float) -> None:
    """Run the pre-flight checks alone; see :func:`guvnor.migrate.preflight.run`."""
    preflight.run(
        settings, revisions.configuration_file, script_directory, report, patience=patience
    ).connection.close()


def status(settings: Settings) -> Status:
    """Read the state of the database, without Alembic and without a lock."""
    files = read_revisions()
    with postgres.closing(postgres.connect(postgres.connection_string(settings))) as connection:
        current = state.read(connection)
        problem: StateError | None = None
        try:
            state.check(current, files)
        except StateError as error:
            problem = error
        applied = max(current.number, current.golang or 0 if not current.alembic else 0)
        return Status(
            identity=postgres.identify(connection),
            state=current,
            pending=tuple(revision for revision in files if revision.number > applied),
            newest=files[-1],
            ahead=state.is_ahead(current, files),
            problem=problem,
            running=locks.holder(connection, locks.RUN_LOCK),
            known=tuple(diagnose(settings, current)),
        )


def entries(settings: Settings, since: str | None = None, *, failed: bool = False) -> list[history.Entry]:
    """Read the history of the database, the oldest attempt first.

    :param since: the moment before which attempts are left out; see :func:`guvnor.migrate.history.moment`.
    :param failed: leave out attempts that succeeded.
    """
    start = history.moment(since, datetime.now().astimezone()) if since else None
    with postgres.closing(postgres.connect(postgres.connection_string(settings))) as connection:
        if not history.exists(connection):
            return []
        history.check_layout(connection)
        running = locks.holder(connection, locks.RUN_LOCK) is not None
        return history.entries(connection, since=start, failed=failed, running=running)


def create(name: str) -> Path:
    """Write a revision file with the next number from the house template.

    :param name: of the change, in words.
    :returns: the path of the new file.
    :raises UsageError: when a file cannot be named after it.
    :raises RevisionFilesError: when it cannot be written.
    """
    revisions.check_title(name)
    from alembic import command

    configuration = revisions.configuration_file()
    files = revisions.read(revisions.directory(configuration))
    config = alembic_config(configuration)
    config.cmd_opts = Namespace(quiet=True, x=None)  # Alembic would print the path, too
    try:
        script = command.revision(config, message=name, rev_id=f"{files[-1].number + 1:03d}")
    except OSError as error:
        raise revisions.RevisionFilesError(
            f"The migration file cannot be made: {error.strerror} ({error.filename}).",
            next_step=f"ls -l {configuration.parent} {revisions.directory(configuration)}",
        ) from None
    assert script is not None
    assert not isinstance(script, list)
    return Path(script.path)


def force(settings: Settings, to: str, ask: guard.Ask) -> State:
    """Set the version in both version tables and clear the dirty flag; the schema is left as it is.

    :param to: the revision that the schema is at, or ``base``.
    :param ask: asks for a confirmation where this is production.
    :returns: the state before.
    :raises UsageError: when the files do not know the revision.
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    target = revisions.find(read_revisions(), to)
    with (
        signals.explained("No revision was being run.") as canceller,
        postgres.closing(
            postgres.connect(postgres.connection_string(settings), purpose="force")
        ) as connection,
    ):
        canceller.connections.append(connection)
        identity = postgres.identify(connection)
        seen = state.read(connection)
        _confirm_force(settings, identity, seen, target, ask)  # nobody is kept out while somebody thinks
        held = locks.Locks(connection, identity.database, settings.lock_wait, log.warning)
        held.take()
        try:
            held.shut_out_golang()
            current = state.read(connection)
            state.check_unmoved(seen, current)
            state.set_version(connection, current, target.identifier if target else None, "force")
        finally:
            held.release()
        return current


def _confirm_force(
    settings: Settings, identity: Identity, current: State, target: Revision | None, ask: guard.Ask
) -> None:
    why = guard.production(settings, current)
    if why is None:
        return
    name = target.identifier if target else None
    digest = guard.digest(identity, current.version, name, ("force", str(current.golang), str(current.dirty)))
    what = f"set the version to {name or 'none'}, whatever the schema is (it is left as it is)"
    guard.check(
        guard.Risk(guard.FORCE, why, identity, current.version, name, (what,), digest), settings.confirm, ask
    )


def mark(settings: Settings, *, production: bool, ask: guard.Ask) -> None:
    """Mark the database as production, or take the mark away.

    :param ask: asks for a confirmation when the mark is taken away.
    :raises RunInterrupted: when a signal arrives (exit code 130 or 143).
    """
    with (
        signals.explained("No revision was being run.") as canceller,
        postgres.closing(
            postgres.connect(postgres.connection_string(settings), purpose="mark")
        ) as connection,
    ):
        canceller.connections.append(connection)
        identity = postgres.identify(connection)
        current = state.read(connection)
        why = guard.production(settings, current)
        if not production and why is not None:
            digest = guard.digest(identity, current.version, current.version, ("unmark",))
            risk = guard.Risk(
                "take the production mark off a database",
                why,
                identity,
                current.version,
                current.version,
                ("the guard will no longer ask before a rollback",),
                digest,
            )
            guard.check(risk, settings.confirm, ask)
        history.set_mark(connection, production=production)
