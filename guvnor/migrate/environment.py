"""What stands behind ``alembic/env.py``: the same for plain ``alembic`` and for ``guvnor``.

Alembic commands come in four kinds, told apart by what Alembic itself passes on: SQL written offline, a new
revision file, commands that look (current, check, revision --autogenerate), and commands that move the
version (upgrade, downgrade, stamp), which alone have a destination.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from guvnor import __version__, config, logs, postgres
from guvnor.errors import GuvnorError, UsageError
from guvnor.migrate import guard, history, offline, operations, preflight, revisions, signals, state
from guvnor.migrate import plan as planning
from guvnor.migrate.locks import Locks
from guvnor.migrate.plan import Plan
from guvnor.migrate.progress import Progress
from guvnor.migrate.run import Applied, Runner
from guvnor.migrate.state import BOOKKEEPING_TABLES, State

log = logging.getLogger(__name__)

REQUEST = "guvnor"  # the attribute of Alembic's configuration under which guvnor passes its request


@dataclass
class Request:
    """What is asked of the environment, and by whom the answers are shown.

    :ivar report: is told each pre-flight check.
    :ivar ask: asks for a confirmation.
    :ivar progress: is told how far a long step is.
    :ivar strict: refuse a database that is ahead of the files.
    :ivar outcome: what was done, once it is done.
    """

    settings: config.Settings
    report: preflight.Report
    ask: guard.Ask
    progress: Callable[[Progress], None]
    tool: str = f"guvnor {__version__}"
    patience: float = 0.0
    strict: bool = False
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Outcome:
    """What a command that moves the version has done.

    :ivar version: the number of the revision that the database is at now; 0 for none.
    :ivar ahead: whether that is later than the newest file.
    """

    version: int
    newest: int
    applied: tuple[Applied, ...] = field(default=())
    ahead: bool = False


def run(context: Any) -> None:
    """Do what an Alembic command asks for.

    :param context: the module ``alembic.context``.
    """
    request = context.config.attributes.get(REQUEST)
    if request is not None:
        _dispatch(context, request)
        return
    from guvnor.console import Console

    console = Console()
    with console.explaining():
        request = _request_of_plain_alembic(context, console)
        _dispatch(context, request)
        if request.outcome is not None:
            console.outcome(request.outcome)


def _request_of_plain_alembic(context: Any, console: Any) -> Request:
    flags = context.get_x_argument(as_dictionary=True)
    known = {option.name.replace(".", "_"): option.name for option in config.OPTIONS}
    unknown = sorted(set(flags) - set(known))
    if unknown:
        raise UsageError(
            f"Unknown -x argument: {', '.join(unknown)}. Known are {', '.join(known)}.",
            next_step="alembic -h",
        )
    settings = config.load({known[name]: value for name, value in flags.items()})
    logs.configure(settings)
    import alembic

    return Request(
        settings,
        report=console.checked,
        ask=console.ask,
        progress=console.progressed,
        tool=f"alembic {alembic.__version__}, guvnor {__version__}",
    )


def _dispatch(context: Any, request: Request) -> None:
    context.configure(dialect_name="postgresql")
    options = context.get_context().opts
    if context.is_offline_mode():
        offline.write(context)
    elif "revision_context" in options and not options["revision_context"].command_args["autogenerate"]:
        _new_revision(context)
    elif "destination_rev" in options:
        _move(context, request, options)
    else:
        _look(context, request)


def _new_revision(context: Any) -> None:
    """Let Alembic write a revision file, which needs no database."""
    context.configure(dialect_name="postgresql", as_sql=True, process_revision_directives=_number)
    context.run_migrations()


def _number(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the next number, unless the user gave it one."""
    assert context.script is not None
    for script in directives:
        if context.opts["revision_context"].command_args["rev_id"] is None:
            script.rev_id = next_identifier(context.script)


def next_identifier(script: ScriptDirectory) -> str:
    """Return the identifier of the next revision: ``003``."""
    numbers = [state.number(revision.revision) for revision in script.walk_revisions()]
    return f"{max(numbers, default=0) + 1:03d}"


def _look(context: Any, request: Request) -> None:
    """Run a command that moves nothing: it takes no lock and creates no table."""
    dsn = postgres.connection_string(request.settings)
    with _engine_connection(dsn, "look") as connection:
        _configure(context, connection, process_revision_directives=_number, dont_mutate=True)
        context.run_migrations()


def _move(context: Any, request: Request, options: dict[str, Any]) -> None:
    """Run upgrade, downgrade or stamp: pre-flight, plan, guard, locks, and the plan's steps one by one."""
    if options.get("purge"):
        raise UsageError(
            "stamp --purge would empty alembic_version unguarded.", next_step="guvnor migrate force REV"
        )
    script: ScriptDirectory = context.script
    with signals.interruptible() as canceller:
        try:
            ready = preflight.run(
                request.settings,
                lambda: (
                    Path(context.config.config_file_name)
                    if context.config.config_file_name
                    else revisions.configuration_file()
                ),
                lambda _: script,
                request.report,
                patience=request.patience,
                purpose="control",
            )
            with postgres.closing(ready.connection):
                _announce(ready, request, options)
                move = _Move(context, request, ready, script, options, canceller)
                request.outcome = move.run()
        except signals.Interrupt as interrupt:
            raise signals.RunInterrupted(
                f"Interrupted by {interrupt}.", interrupt.number, state="No revision was being run."
            ) from None


def _announce(ready: preflight.Ready, request: Request, options: dict[str, Any]) -> None:
    """Say in the first record which tool works on which database, and that it starts."""
    identity = ready.identity
    log.info(
        request.tool,
        extra={
            "host": identity.host,
            "port": identity.port,
            "database": identity.database,
            "role": identity.role,
            "server_version": identity.version_text,
        },
    )
    direction = {"upgrade": "up", "downgrade": "down"}.get(options["fn"].__name__, options["fn"].__name__)
    log.info(
        f"Starting database migration ({direction})",
        extra={"current_version": ready.state.number, "migrations_found": len(ready.revisions)},
    )


class _Move:
    """One command that moves the version, from the plan to the outcome."""

    def __init__(
        self,
        context: Any,
        request: Request,
        ready: preflight.Ready,
        script: ScriptDirectory,
        options: dict[str, Any],
        canceller: signals.Canceller,
    ) -> None:
        self._context = context
        self._request = request
        self._ready = ready
        self._script = script
        self._find_steps: Callable[[Any, Any], Sequence[MigrationStep]] = options["fn"]
        self._upwards = self._find_steps.__name__ == "upgrade"
        self._relative = str(options["destination_rev"])[:1] in ("+", "-")
        self._canceller = canceller
        self._locks = Locks(
            ready.connection,
            ready.identity.database,
            request.settings.lock_wait,
            lambda text: log.warning(text),
        )

    def run(self) -> Outcome:
        """Plan, confirm, lock, look again, and execute."""
        ready = self._ready
        if state.is_ahead(ready.state, ready.revisions):
            return self._ahead(ready.state)
        plan = self._plan(ready.state)
        if not plan.steps and not ready.state.dirty:
            return self._outcome(ready.state)
        self._guard(plan, ready.state)
        self._locks.take()
        try:
            current = state.read(ready.connection)
            state.check(current, ready.revisions)
            plan = self._again(plan, current)
            applied = self._execute(plan) if plan.steps else []
            if self._request.settings.production and current.production is None:
                # From now on it is guarded wherever it is reached from.
                history.set_mark(ready.connection, production=True)
            return self._outcome(state.read(ready.connection), tuple(applied))
        finally:
            with contextlib.suppress(psycopg2.Error):
                self._locks.release()

    def _plan(self, current: State) -> Plan:
        """Make the plan from a state; what an earlier run left unfinished comes first."""
        heads = current.alembic or ()
        steps = list(self._find_steps(heads, self._context.get_context()))
        start = current.unfinished
        if current.dirty and start is not None:
            finish = self._finishing_steps(start.direction, start.to_version, heads)
            if steps[:1] != finish[:1]:
                target = (start.to_version,) if start.to_version else ()
                steps = finish + list(self._find_steps(target, self._context.get_context()))
        return planning.make(self._ready.identity, current.version, steps)

    def _finishing_steps(
        self, direction: str, target: str | None, heads: tuple[str, ...]
    ) -> list[MigrationStep]:
        if direction == "up":
            return list(self._script._upgrade_revs(target or "head", heads))  # type: ignore[arg-type]
        return list(self._script._downgrade_revs(target or "base", heads))  # type: ignore[arg-type]

    def _again(self, plan: Plan, current: State) -> Plan:
        """Fit the plan to what was found under the lock: another run may have done a part of it, or all.

        A relative target (``-1``) is resolved once: what remains of the first plan is run.
        """
        remaining = plan.remaining(current.version)
        if current.dirty or remaining is None:
            fresh = self._plan(current)
            if remaining is None and self._relative:
                raise GuvnorError(
                    f"Another run moved the database to version {current.number} while this one was waiting.",
                    state="Nothing was changed by this command.",
                    next_step="guvnor migrate status",
                )
            if fresh.hash != plan.hash:
                self._guard(fresh, current)
            return fresh
        return remaining

    def _guard(self, plan: Plan, current: State) -> None:
        why = guard.production(self._request.settings, current)
        risky = [step for step in plan.steps if step.direction != "up"]
        if why is None or not risky:
            return
        risk = guard.Risk(
            action=guard.ROLLBACK if risky[0].direction == "down" else guard.FORCE,
            why=why,
            database=plan.database,
            current=plan.current,
            target=plan.target,
            revisions=tuple(
                f"{step.direction} {step.revision} {step.description}".strip() for step in plan.steps
            ),
            hash=plan.hash,
        )
        guard.check(risk, self._request.settings.confirm, self._request.ask)

    def _execute(self, plan: Plan) -> list[Applied]:
        dsn = postgres.connection_string(self._request.settings)
        with _engine_connection(dsn, "revision") as connection:
            runner = Runner(
                connection,
                self._ready.connection,
                self._locks,
                self._request.settings,
                self._request.progress,
                self._canceller,
                self._request.tool,
            )
            try:
                _configure(
                    self._context,
                    connection,
                    transaction_per_migration=True,
                    on_version_apply=runner.version_applied,
                    fn=runner.next_step,
                    dont_mutate=True,
                    **{operations.RUNNER: runner},
                )
                return runner.execute(plan, self._context.get_context(), self._run_migrations)
            finally:
                runner.close()

    def _run_migrations(self) -> None:
        with self._context.begin_transaction():
            self._context.run_migrations()

    def _ahead(self, current: State) -> Outcome:
        """Leave a database alone that is ahead of the files: the application was rolled back."""
        newest = self._ready.revisions[-1]
        message = (
            f"The database is at version {current.number}, ahead of the migration files "
            f"(newest: {newest.identifier})."
        )
        if self._request.strict or not self._upwards:
            raise state.AheadError(
                message,
                state="Nothing was changed.",
                next_step="Use the release that migrated it: guvnor migrate history",
            )
        log.warning(message)
        return self._outcome(current)

    def _outcome(self, current: State, applied: tuple[Applied, ...] = ()) -> Outcome:
        newest = self._ready.revisions[-1].number
        return Outcome(current.number, newest, applied, ahead=current.number > newest)


@contextlib.contextmanager
def _engine_connection(dsn: str, purpose: str) -> Iterator[sqlalchemy.Connection]:
    """Open a connection for Alembic; the connection string goes to libpq as it is."""

    def create() -> postgres.Connection:
        connection = postgres.connect(dsn, purpose=purpose)
        connection.autocommit = False
        return connection

    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=create, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _configure(context: Any, connection: sqlalchemy.Connection, **options: Any) -> None:
    from guvnor.models import metadata

    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=_is_ours,
        compare_server_default=True,
        **options,
    )


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Keep the bookkeeping tables out of comparisons."""
    return not (kind == "table" and name in BOOKKEEPING_TABLES)
