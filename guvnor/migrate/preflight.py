"""Pre-flight checks: whether a migration can start. Each check relies on those before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

from guvnor import postgres
from guvnor.bookkeeping import confirmation, consistency, state
from guvnor.bookkeeping.patience import wait_for_tables
from guvnor.bookkeeping.state import State
from guvnor.config import OLDEST_SERVER, Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError, PreflightError
from guvnor.migrate import edited_files, locks, permissions, role_warnings
from guvnor.migrate.signals import Canceller
from guvnor.postgres import Connection, Identity, rows, scalar
from guvnor.project import Project
from guvnor.revisions import check, escaped_colons, files as revision_files
from guvnor.revisions.files import Revision
from guvnor.revisions.script import script_directory

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from guvnor.revisions.plan import Plan
    from guvnor.schema.rehearsal import Effect


@dataclass(frozen=True)
class PreflightCheck:
    """One pre-flight check that has ended.

    :ivar text: what was found, in one line.
    :ivar error: why it failed; None when it passed.
    :ivar warnings: problems that do not stop a migration.
    :ivar brief: what a line that sums all checks up says of this one; empty for nothing.
    """

    name: str
    text: str
    error: GuvnorError | None = None
    warnings: tuple[str, ...] = ()
    brief: str = ""


@dataclass(frozen=True)
class Ready:
    """What the checks found, for the run that follows.

    :ivar seen: the state when the checks began; None where it could not be read yet.
    :ivar running: who was migrating the database at the end of the checks; None for nobody.
    :ivar effects: what steps do to the schema and the data, by revision and direction, as far as that was
        observed.
    """

    database: Database
    connection: Connection
    identity: Identity
    revisions: tuple[Revision, ...]
    script: ScriptDirectory
    state: State
    seen: State | None = None
    running: locks.Holder | None = None
    effects: dict[tuple[str, str], Effect] = field(default_factory=dict)


Report = Callable[[PreflightCheck], None]


@contextlib.contextmanager
def passed(
    settings: Settings,
    project: Project,
    report: Report,
    *,
    environment: Any = None,
    patience: float = 0.0,
    purpose: str = "",
    moving: bool = False,
    repairing: bool = False,
    canceller: Canceller | None = None,
    running_files: bool = False,
    planning: Callable[[Ready], Plan] | None = None,
) -> Iterator[Ready]:
    """Run all checks, up to the first one that fails, and keep their connection open for the body.

    :param report: is called with each check as it ends.
    :param environment: Alembic's environment, where an Alembic command has made one.
    :param patience: seconds to wait for a server that is still starting.
    :param moving: whether the version is about to be moved, which adopts what golang-migrate does meanwhile.
    :param repairing: whether the state is about to be repaired, so that it is not checked.
    :param canceller: cancels what runs on the connection when a signal arrives.
    :param running_files: whether files are to be run: those of applied revisions must not have changed.
    :param planning: makes the plan whose new constraints the rows have to satisfy; None for no plan.
    :raises GuvnorError: the error of the first check that fails, with its exit code.
    """
    with reported("configuration", report):
        database = Database.of(settings)
        report(
            PreflightCheck("configuration", f"Configuration loaded (database type {settings.storage_type})")
        )
    with reported("connection", report):
        connection = database.wait_and_connect(patience, purpose)
    with postgres.closing(connection):
        if canceller is not None:
            canceller.connections.append(connection)
        with reported("connection", report):
            identity, warnings = postgres.identify(connection), database.tls_warnings(connection)
            report(PreflightCheck("connection", "Database connection successful", warnings=warnings))
        with reported("server", report):
            report(_server(database, connection, identity))
        seen = None
        with reported("state", report), contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
            # The next check says what a role may not read.
            _, seen = observe(connection, project, settings.max_wait)
        with reported("permissions", report):
            beyond = () if settings.storage_type == "embedded" else role_warnings.beyond_need(connection)
            beyond += role_warnings.other_meanings(connection, database.keep)
            check_permissions = partial(_permissions, connection, identity, project, beyond)
            report(wait_for_tables(connection, settings.max_wait, check_permissions))
        with reported("files", report):
            found, script = _read_files(environment)
            check.validate(found, script)
            count = f"{len(found)} migration{'s' if len(found) != 1 else ''} found"
            report(PreflightCheck("files", f"Migration files validated ({count})", brief=count))
        with reported("state", report):
            running, current = observe(connection, project, settings.max_wait)
            if repairing:
                checked = PreflightCheck(
                    "state", "Database state is to be repaired", brief="a state to be repaired"
                )
            elif moving and seen and seen.agreed and consistency.golang_went_on(seen, current):
                text = f"golang-migrate has just moved the database to version {current.golang}"
                checked = PreflightCheck("state", text, brief=text)  # checked under the locks
            else:
                check_state = partial(_state, connection, current, found, script, running, moving)
                checked = wait_for_tables(connection, settings.max_wait, check_state)
            if running_files:
                edited_files.check(connection, current, script, settings)
        if not repairing:
            with reported("files", report):
                pending = [file.identifier for file in found if file.number > current.number]
                escaped_colons.check(script, pending)
                check.check_transactions(script, ((identifier, "up") for identifier in pending))
        ready = Ready(database, connection, identity, found, script, current, seen, running)
        if planning is not None and not (repairing or running or consistency.is_ahead(current, found)):
            with reported("rows", report):
                _rows(ready, planning, report)
        report(checked)
        yield ready


def observe(connection: Connection, project: Project, max_wait: float) -> tuple[locks.Holder | None, State]:
    """Read who is migrating the database, and its state, so that work in progress is not taken for remains.

    The locks are read before the state: a run that ends between the two leaves a clean state. One that begins
    between the two leaves a dirty one, so a dirty state counts only when it is read a second time.
    """
    before: State | None = None
    while True:
        running = locks.at_work(connection, golang_migrate=project.golang_migrate)
        current = state.read(connection, max_wait=max_wait, golang_migrate=project.golang_migrate)
        if running or not current.dirty or current == before:
            return running, current
        before = current


def _read_files(environment: Any) -> tuple[tuple[Revision, ...], ScriptDirectory]:
    """Read the revision files, and Alembic's view of them."""
    named = environment.config.config_file_name if environment is not None else None
    ini = Path(named) if named else revision_files.configuration_file()
    found = revision_files.read(revision_files.directory(ini))
    return found, environment.script if environment is not None else script_directory(ini)


@contextlib.contextmanager
def reported(name: str, report: Report) -> Iterator[None]:
    """Report an error of the body as a failed check."""
    try:
        yield
    except GuvnorError as error:
        report(PreflightCheck(name, error.message, error))
        raise


def _rows(ready: Ready, planning: Callable[[Ready], Plan], report: Report) -> None:
    """Check that no row breaks a constraint that is about to be made."""
    try:
        plan = planning(ready)
    except GuvnorError:  # the run itself will say so
        return
    from guvnor.migrate import breaking_rows

    found = breaking_rows.judge(ready.connection, ready.database, ready.script, plan, ready.effects)
    if found is not None:
        count = f"{found.checked} constraint{'' if found.checked == 1 else 's'}"
        text = f"No row breaks what is about to be made ({count} checked)"
        report(PreflightCheck("rows", text, warnings=found.warnings))


def _server(database: Database, connection: Connection, identity: Identity) -> PreflightCheck:
    if identity.major < OLDEST_SERVER:
        raise PreflightError(
            f"The server runs PostgreSQL {identity.version_text}; version {OLDEST_SERVER} or newer is "
            "needed.",
            next_step=f"Upgrade the server to PostgreSQL {OLDEST_SERVER} or newer.",
        )
    if identity.in_recovery:
        raise PreflightError(
            f"The server {identity.host}, port {identity.port}, is in recovery: a read-only standby.",
            next_step="Connect to the primary: name it in the connection string, "
            "or name all hosts and add target_session_attrs=read-write.",
        )
    if identity.read_only:
        role, name = (postgres.quote_ident(connection, n) for n in (identity.role, identity.database))
        raise PreflightError(
            f"Transactions of role {identity.role} on database {identity.database} are read-only "
            "(default_transaction_read_only is on).",
            next_step="SELECT * FROM pg_db_role_setting;   -- who sets it\n"
            f"ALTER ROLE {role} IN DATABASE {name} SET default_transaction_read_only = off;",
        )
    warnings = _pooler(database, connection)
    if confirmation.is_missing(connection):
        warning = "commits wait for a synchronous standby (synchronous_standby_names), and none is connected"
        warnings += (f"{warning}: each revision will wait {confirmation.LIMIT:.0f} s for its confirmation",)
    server = f"PostgreSQL {identity.version_text}"
    return PreflightCheck("server", f"Server is {server} and accepts writes", warnings=warnings, brief=server)


def _pooler(database: Database, connection: Connection) -> tuple[str, ...]:
    """Refuse a connection pooler that changes the session between transactions.

    Behind one, session locks and settings end up in the sessions of other clients. It shows in two ways: a
    second connection, in a transaction, is given the server process of the first one, which is idle; or,
    where several processes take turns, the process of the first one changes.
    """
    pid = "SELECT pg_backend_pid()"
    if scalar(connection, pid) == connection.info.backend_pid:  # a pooler reports a number of its own
        return ()
    for _ in range(3):
        first = scalar(connection, pid)
        with postgres.closing(database.connect()) as second:
            second.autocommit = False
            if scalar(second, pid) == first or scalar(connection, pid) != first:
                raise PreflightError(
                    "The connection goes through a connection pooler in transaction mode, which gives every "
                    "transaction another session: advisory locks and session settings do not hold there.",
                    next_step="Name the server itself in the connection string, or a pool in session mode.",
                )
    return ("the connection goes through a connection pooler (in session mode)",)


def _permissions(
    connection: Connection, identity: Identity, project: Project, warnings: tuple[str, ...]
) -> PreflightCheck:
    warnings += permissions.check(connection, identity, project)
    login = str(scalar(connection, "SELECT session_user"))
    acting = f", logged in as {login}" if login != identity.role else ""
    who = f"role {identity.role}{acting}"
    return PreflightCheck("permissions", f"Permissions sufficient ({who})", warnings=warnings, brief=who)


def _state(
    connection: Connection,
    current: State,
    found: tuple[Revision, ...],
    script: ScriptDirectory,
    running: locks.Holder | None,
    moving: bool,
) -> PreflightCheck:
    at = f"version {current.number}" if current.version else "no migrations applied"
    if running:
        # What looks unfinished may be that run's work in progress; the state is checked under the locks.
        what = running.sentence
        warning = what[0].lower() + what[1:]
        if running.is_gone:
            warning += (
                f"; its runner has given no sign of life for {running.silent:.0f} s (guvnor migrate status)"
            )
        text = f"{what.partition(':')[0]} ({at})"
        return PreflightCheck("state", text, warnings=(warning,), brief=text)
    consistency.check(current, found)
    text = "Database state is clean"
    warnings = edited_files.warnings(connection, current, script) + _busy(connection)
    if current.dirty and current.unfinished:
        text, start = "Database is in a dirty state that can be finished", current.unfinished
        what = f"revision {start.revision}, started {start.at:%Y-%m-%d %H:%M:%S %Z}, {start.ended}"
        once = " once the cause is corrected" if start.end == "failed" else ""
        warnings += (f"{what} at the step: {start.step}; it can be finished{once}",)
    elif consistency.is_ahead(current, found) and not moving:  # else the run itself says so
        newest, at = found[-1].identifier, f"version {current.furthest}"
        warnings += (f"the database is at {at}, ahead of the migration files (newest: {newest})",)
    return PreflightCheck("state", f"{text} ({at})", warnings=warnings, brief=at)


def _busy(connection: Connection) -> tuple[str, ...]:
    """Name what will make a migration wait: old transactions, and a VACUUM that does not give way."""
    found = rows(
        connection,
        """
        SELECT format('a transaction has been open for %s s: pid %s (role %s, %s, %s)',
                      round(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)), pid, usename,
                      COALESCE(NULLIF(application_name, ''), 'unnamed application'), state)
        FROM pg_catalog.pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '1 minute'
        UNION ALL
        SELECT format('a VACUUM to prevent wraparound is running on %s and will not give way: pid %s',
                      p.relid::regclass, p.pid)
        FROM pg_catalog.pg_stat_progress_vacuum AS p
        JOIN pg_catalog.pg_stat_activity AS a USING (pid)
        JOIN pg_catalog.pg_class AS c ON c.oid = p.relid
        WHERE p.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND c.relnamespace = 'public'::regnamespace
          AND a.backend_type = 'autovacuum worker' AND a.query LIKE '%(to prevent wraparound)'
        """,
    )
    return tuple(text for (text,) in found)
