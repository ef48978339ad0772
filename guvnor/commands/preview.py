"""What ``guvnor migrate plan`` shows: a plan and its effects, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.backup import losses
from guvnor.backup.losses import Loss
from guvnor.bookkeeping import consistency, production
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError, reason
from guvnor.migrate import backup_policy, preflight
from guvnor.postgres import Connection, rows
from guvnor.postgres.quoting import unquoted
from guvnor.revisions import check, plan as planning
from guvnor.revisions.files import configuration_file
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import downgrade_steps, read_revisions, script_directory, upgrade_steps
from guvnor.schema import rehearsal
from guvnor.schema.rehearsal import Effect, StatementEffect


@dataclass(frozen=True)
class Preview:
    """A plan and what it would do.

    :ivar effects: the objects that each step changes.
    :ivar losses: the data that would be lost; some of it may be accepted.
    :ivar statements: what each statement of each step locks; None without a scratch database.
    :ivar unknown: why some of this is unknown; None when all of it is known.
    :ivar routines: the names of the functions and procedures that are there or are made.
    """

    plan: Plan
    effects: tuple[Effect, ...]
    losses: tuple[Loss, ...]
    statements: tuple[tuple[StatementEffect, ...], ...] | None
    unknown: str | None = None
    routines: frozenset[str] = frozenset()


_CALLED = ("function", "procedure")
_ROUTINES = """
    SELECT p.proname::text FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'public'::regnamespace
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""


# Makes a scratch database on the server of a connection string, and drops it at the end.
MakeScratch = Callable[[str], AbstractContextManager[str]]


def preview(
    settings: Settings,
    direction: str,
    to: str | None,
    *,
    make_scratch: MakeScratch | None = None,
) -> Preview:
    """Make the plan of an ``up`` or ``down`` and look at what it would do; nothing is changed.

    :param to: the target revision; the default is that of the command itself.
    :param make_scratch: makes the scratch database where none is configured, outside of production; None to
        do without.
    :raises RevisionFilesError: when the files cannot be run.
    :raises StateError: when no migration can start from the state of the database.
    """
    script = script_directory(configuration_file())
    files = read_revisions()
    check.validate(files, script)
    find_steps = (upgrade_steps if direction == "up" else downgrade_steps)(to)
    database = Database.of(settings)
    with postgres.closing(database.connect("plan")) as connection:
        running, current = preflight.observe(connection, GUVNOR, settings.max_wait)
        try:
            consistency.check(current, files)
        except consistency.StateError:
            if running:  # what looks wrong may be its work in progress
                raise consistency.at_work_error(running.sentence) from None
            raise
        identity = postgres.identify(connection)
        if consistency.is_ahead(current, files):
            if direction == "down":
                raise consistency.ahead_error(current, files)
            return Preview(planning.make(identity, f"{current.furthest:03d}", ()), (), (), None)
        steps = find_steps(script, current.alembic or ())
        plan = planning.make(identity, current.version, steps)
        about_backup = backup_policy.backup_hashed(plan, settings)
        try:
            effects = rehearsal.effects(connection, script, plan.current, plan.steps)
        except GuvnorError as error:
            backup_policy.raise_first(error, plan, settings)
            plan = replace(plan, lost=(*losses.UNKNOWN, *about_backup))
            return Preview(plan, (), (), None, error.message)
        lost = losses.read(connection, effects)
        made = {unquoted(i.identity.partition("(")[0]) for e in effects for i in e.added if i.kind in _CALLED}
        routines = frozenset(made | {name for (name,) in rows(connection, _ROUTINES)})
        plan = replace(plan, lost=(*losses.hashed(effects), *about_backup))
        scratch, why = _scratch(settings, database, connection, current, make_scratch)
    unknown = f"The locks are known only with a scratch database{why}: name one with --shadow-dsn."
    if scratch is None:
        return Preview(plan, tuple(effects), lost, None, unknown, routines)
    try:
        with scratch as dsn:
            there = Database(dsn, keep=database.keep)
            seen = rehearsal.statements(there, script, plan.current, plan.steps)
    except (GuvnorError, psycopg2.Error, SQLAlchemyError) as error:
        if settings.shadow_dsn:
            raise
        failed = getattr(getattr(error, "orig", error), "diag", None)
        why = (failed and failed.message_primary) or reason(error).splitlines()[0]
        unknown = f"The locks are not known, since the plan failed in a scratch database: {why}."
        return Preview(plan, tuple(effects), lost, None, unknown, routines)
    return Preview(plan, tuple(effects), lost, tuple(tuple(step) for step in seen), routines=routines)


def _scratch(
    settings: Settings,
    database: Database,
    connection: Connection,
    current: State,
    make_scratch: MakeScratch | None,
) -> tuple[AbstractContextManager[str] | None, str]:
    """Return the scratch database to use, or None and why there is none."""
    if settings.shadow_dsn:
        return nullcontext(settings.shadow_dsn), ""
    if make_scratch is None:
        return None, ""
    if production.reason(settings.production_environment, current.production):
        return None, ", and none is made on a production server"
    sql = "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user"
    if not postgres.scalar(connection, sql):
        return None, f", and role {connection.info.user} may not create one"
    return make_scratch(database.dsn), ""
