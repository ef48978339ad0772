"""What a plan's statements do, seen by running them: the objects they change, the locks they take.

A transaction holds ACCESS EXCLUSIVE on each table that it has created, so the lock that a statement takes
shows only on a table that was committed before. That needs a scratch database, in which a schema is created,
used and dropped. A process that is killed cannot drop it; the next rehearsal does.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from guvnor import postgres
from guvnor.database import Database
from guvnor.online.execute import OnlineStep
from guvnor.online.kept_statement import Kept
from guvnor.online.operations import PLAIN_FORM, RUNNER
from guvnor.online.plain_forms import Backfill
from guvnor.postgres import Connection
from guvnor.postgres.engine import connected
from guvnor.postgres.raw_sql import sent
from guvnor.revisions import transaction_control
from guvnor.revisions.plan import Step
from guvnor.revisions.script import Direction
from guvnor.revisions.statements import needs_database
from guvnor.schema import constraints, data_changes, escapes, inheritance, shadow
from guvnor.schema.constraints import NewConstraint
from guvnor.schema.data_changes import DataChange
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.stored_data import Ledger, Touch
from guvnor.schema.touched import DataWatch

# A rehearsal's schema is named with this prefix and a hexadecimal number, on which its session holds an
# advisory lock.
_PREFIX = "guvnor_rehearsal_"

ONLINE = "SHARE UPDATE EXCLUSIVE at most: readers and writers go on"


@dataclass(frozen=True)
class Effect:
    """What a step does to the schema.

    :ivar added: objects that it creates.
    :ivar changed: objects that it changes, as they are afterwards.
    :ivar dropped: objects that it drops.
    :ivar was: the changed objects as they were before, in the same order.
    :ivar data: what it does to data that was there before the plan.
    :ivar rows_locked: the tables of which rows stay locked until its commit.
    :ivar changes: what it does to data that was there before the step itself.
    :ivar at_first: what it does to data that was there before the first step of all, by the names of then: a
        plan may turn round, and each direction counts from where it turned.
    :ivar constraints: those that it makes and that rows of before the plan have to satisfy.
    :ivar triggered: the tables and views that it writes to and whose triggers do what was not seen.
    """

    step: Step
    added: tuple[Object, ...]
    changed: tuple[Object, ...]
    dropped: tuple[Object, ...]
    was: tuple[Object, ...] = ()
    data: tuple[DataChange, ...] = ()
    rows_locked: tuple[str, ...] = ()
    changes: tuple[DataChange, ...] = ()
    at_first: tuple[DataChange, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    triggered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lock:
    """A lock on a table that existed before.

    :ivar mode: as PostgreSQL's documentation calls it: ``ACCESS EXCLUSIVE``.
    """

    table: str
    mode: str


@dataclass(frozen=True)
class StatementEffect:
    """What one statement does to tables that existed before it.

    :ivar locks: those it takes beyond what its transaction already holds.
    :ivar rewrites: tables that it rewrites.
    :ivar scans: tables that it reads in full.
    :ivar online: whether it runs outside the transaction, while readers and writers go on.
    """

    sql: str
    locks: tuple[Lock, ...] = ()
    rewrites: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    online: bool = False


def effects(
    connection: Connection,
    script: ScriptDirectory,
    current: str | None,
    steps: Sequence[Step],
    fill: Callable[[Connection, str, Direction], None] | None = None,
) -> list[Effect]:
    """Run the steps of a plan in a shadow schema, and tell which objects each one changes.

    :param connection: in autocommit mode; see :func:`guvnor.schema.shadow.build`.
    :param current: the version that the plan starts from.
    :param fill: inserts rows into the tables of a schema, before the steps of a direction; without it, the
        tables are empty.
    """
    found: list[Effect] = []
    make_current = shadow.from_revisions(script, current)

    def make(built: Shadow) -> None:
        make_current(built)
        found.clear()
        old = built.snapshot().objects
        watch = DataWatch(built.driver, built.name)
        direction: Direction | None = None
        first: Ledger = {}
        rules = constraints.read(built.driver, built.name)
        for step in steps:
            if fill is not None and step.direction is not direction:
                fill(built.driver, built.name, step.direction)
            watch.begin()
            if step.direction is not direction:  # until a plan turns round, the application writes data
                direction, start, rules_then = step.direction, watch.ledger, rules
                first, so_far, unsure = first or start, list[Touch](), False
            before, built.watch = watch.ledger, watch
            built.migrate(step.alembic.migration_fn, f"revision {step.revision}")
            built.watch = None
            watch.end()
            so_far += watch.seen
            unsure |= any(map(_may_change_more, step.statements))
            rules_before, rules = rules, constraints.read(built.driver, built.name)
            new = built.snapshot().objects
            changed = [k for k in new if k in old and _differs(old[k], new[k])]
            effect = Effect(
                step,
                added=tuple(inheritance.own_objects(new[key] for key in new if key not in old)),
                changed=tuple(new[key] for key in changed),
                dropped=tuple(inheritance.own_objects(old[key] for key in old if key not in new)),
                was=tuple(old[key] for key in changed),
                data=data_changes.summed_up(start, before, watch.seen),
                rows_locked=data_changes.rows_locked(start, before, watch.seen),
                changes=data_changes.summed_up(before, before, watch.seen),
                at_first=data_changes.summed_up(first, before, watch.seen),
                constraints=tuple(
                    constraints.new(rules_then, rules_before, rules, step.revision, so_far, unsure=unsure)
                ),
                triggered=tuple(watch.triggered),
            )
            found.append(effect)
            old = new

    with shadow.build(connection, make):
        return found


def _differs(old: Object, new: Object) -> bool:
    """Tell whether an object is altered; what changes along with the table above it is not."""
    along = old.inherited & new.inherited
    return any(
        value != new.attributes.get(name) for name, value in old.attributes.items() if name not in along
    )


def _may_change_more(statement: str) -> bool:
    """Tell whether a statement may do more where there are rows, or a revision after it, which reads them."""
    return transaction_control.may_write_unseen(statement) or needs_database(statement)


def statements(
    scratch: Database, script: ScriptDirectory, current: str | None, steps: Sequence[Step]
) -> list[list[StatementEffect]]:
    """Run the steps of a plan in a scratch database, and tell what each statement locks, rewrites and scans.

    :param scratch: a database in which a schema may be made and dropped.
    :param current: the version that the plan starts from.
    :returns: for each step, its statements.
    """
    token = secrets.token_hex(8)
    name = f"{_PREFIX}{token}"
    place = _Place(name, scratch.keep)
    with connected(lambda: scratch.connect("rehearsal")) as connection:
        _drop_abandoned(connection)
        try:
            connection.exec_driver_sql("SELECT pg_advisory_lock(('x' || %s)::bit(64)::bigint)", (token,))
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
            _prepare(connection.connection.dbapi_connection, place)
            connection.commit()
            for revision in reversed(list(script.iterate_revisions(current, "base"))) if current else ():
                _run(connection, place, revision.module.upgrade)
            return [_run(connection, place, step.alembic.migration_fn) for step in steps]
        finally:
            connection.rollback()
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {name} CASCADE")
            connection.commit()


def _drop_abandoned(connection: sqlalchemy.Connection) -> None:
    """Drop the schemas of rehearsals whose session is gone, and its lock with it."""
    abandoned = connection.exec_driver_sql(
        """
        SELECT nspname FROM pg_catalog.pg_namespace
        WHERE nspname ~ %s AND pg_has_role(nspowner, 'USAGE')
          AND pg_try_advisory_xact_lock(('x' || right(nspname, 16))::bit(64)::bigint)
        """,
        (f"^{_PREFIX}[0-9a-f]{{16}}$",),
    )
    for name in abandoned.scalars().all():
        connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    connection.commit()


@dataclass(frozen=True)
class _Place:
    """The schema of a rehearsal, and the names of settings that stay as the server has them."""

    schema: str
    keep: tuple[str, ...]


def _prepare(driver: Any, place: _Place) -> None:
    """Set a session up for a rehearsal; an index build leaves other settings behind."""
    postgres.prepare(driver, place.keep)
    with driver.cursor() as cursor:
        cursor.execute(f"SET search_path = {place.schema}, public")


def _renew(driver: Any, place: _Place) -> None:
    """Leave nothing of an earlier revision in a session but the advisory lock on the schema."""
    lock = "(('x' || right(%s, 16))::bit(64)::bigint)"
    with driver.cursor() as cursor:
        cursor.execute(
            "CLOSE ALL; UNLISTEN *; DEALLOCATE ALL; DISCARD TEMP; RESET SESSION AUTHORIZATION; RESET ALL;"
            # The driver reads no other style, whatever is kept.
            f"SET DateStyle TO ISO; SELECT pg_advisory_xact_lock{lock};"
            f"SELECT pg_advisory_unlock_all(); SELECT pg_advisory_lock{lock}",
            (place.schema, place.schema),
        )
    _prepare(driver, place)
    driver.commit()


def _run(
    connection: sqlalchemy.Connection, place: _Place, migrate: Callable[..., object]
) -> list[StatementEffect]:
    _renew(connection.connection.dbapi_connection, place)
    recorder = _Recorder(connection, place)
    context = MigrationContext.configure(
        connection,
        opts={
            RUNNER: recorder,
            PLAIN_FORM: recorder.note_plain_form,
            "transaction_per_migration": True,
            "transactional_ddl": True,
        },
    )
    event.listen(connection, "after_cursor_execute", recorder.after_statement)
    try:
        with Operations.context(context), context.begin_transaction(_per_migration=True):
            migrate()
    finally:
        event.remove(connection, "after_cursor_execute", recorder.after_statement)
    return recorder.effects


@dataclass(frozen=True)
class _Seen:
    """What is seen of a table.

    :ivar modes: of the locks on it that this transaction holds.
    :ivar scans: how often this transaction has read all of it.
    :ivar above: the table that it is a partition of.
    """

    modes: frozenset[str]
    file: int
    scans: int
    above: str | None


def _modes_above(table: str, seen: Mapping[str, _Seen]) -> frozenset[str]:
    """Return the locks on the table that one is a partition of: they are on each partition, too."""
    above = seen.get(seen[table].above or "")
    return above.modes if above else frozenset()


def _said_once(tables: Iterable[str], seen: Mapping[str, _Seen]) -> tuple[str, ...]:
    """Name a partitioned table instead of its partitions, where all of them are locked with it."""

    def top(table: str) -> str:
        above = seen[table].above
        is_part = above in seen and seen[table].modes <= _modes_above(table, seen)
        return top(above) if above is not None and is_part else table

    return tuple(sorted({top(table) for table in tables}))


class _Recorder:
    """Records after each statement what changed; takes the place of a real migration's runner."""

    def __init__(self, connection: sqlalchemy.Connection, place: _Place) -> None:
        self.effects: list[StatementEffect] = []
        self._place = place
        raw: Any = connection.connection.dbapi_connection
        self._raw = raw
        self._busy = False
        self._plain = ""
        self._seen = self._inspect()
        self._raw.rollback()

    def builds_at_once(self, _name: str, _sql: str) -> bool:
        """Show the online form: tables are empty here, whatever they are elsewhere."""
        return False

    def note_plain_form(self, sql: str) -> None:
        """Take note of the statement that an online operation would be in one transaction."""
        self._plain = sql

    @contextlib.contextmanager
    def online_step(self, context: MigrationContext, step: str) -> Iterator[OnlineStep]:
        """Run an online operation for real: the scratch database may be committed to."""
        # Which rows it changes, and how, only the statement says.
        shown = self._plain if isinstance(self._plain, Backfill | Kept) else step
        self.effects.append(StatementEffect(shown, online=True))
        self._busy = True
        with context.autocommit_block():
            pid = self._raw.info.backend_pid
            yield OnlineStep(self._raw, self._raw, pid, step, lambda _: None)
            _prepare(self._raw, self._place)
        self._busy = False
        self._seen = self._inspect()

    def after_statement(
        self, _c: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, *_: Any
    ) -> None:
        """Look at locks, files and scans, and record what is new."""
        if self._busy:
            return
        now = self._inspect()
        tables = sorted(self._seen.keys() & now.keys())
        locks = tuple(
            Lock(table, escapes.lock_name(mode))
            for table in tables
            for mode in sorted(now[table].modes - self._seen[table].modes)
            if mode != "AccessShareLock" and mode not in _modes_above(table, now)
        )
        rewrites = _said_once((t for t in tables if now[t].file != self._seen[t].file), now)
        scans = _said_once((t for t in tables if now[t].scans > self._seen[t].scans), now)
        self.effects.append(StatementEffect(sent(statement, context).strip(), locks, rewrites, scans))
        # Nobody else uses a table that the revision has created itself.
        self._seen = {table: now[table] for table in now if table in self._seen}

    def _inspect(self) -> dict[str, _Seen]:
        sql = """
            SELECT c.relname,
                   ARRAY(SELECT l.mode FROM pg_catalog.pg_locks AS l
                         WHERE l.relation = c.oid AND l.pid = pg_backend_pid()),
                   pg_relation_filenode(c.oid)::bigint,
                   COALESCE(s.seq_scan, 0),
                   (SELECT p.relname FROM pg_catalog.pg_inherits AS h
                    JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
                    WHERE h.inhrelid = c.oid AND c.relispartition)
            FROM pg_catalog.pg_class AS c
            LEFT JOIN pg_catalog.pg_stat_xact_user_tables AS s ON s.relid = c.oid
            WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p', 'm')
            """
        found = postgres.rows(self._raw, sql, (self._place.schema,))
        return {name: _Seen(frozenset(modes), *others) for name, modes, *others in found}
