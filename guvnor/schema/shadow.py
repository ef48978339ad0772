"""The schema that revisions or models describe, built by the server itself and rolled back.

It is built in a schema of its own with a random name, inside a transaction that always ends in a rollback,
so nobody else ever sees any of it. What is built there finds its own tables first (``search_path`` is the
shadow, then ``public``). A statement that reaches past them for a live table ends the build; see
:mod:`guvnor.schema.escapes`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg2

from guvnor.errors import GuvnorError
from guvnor.postgres import Connection, rows
from guvnor.revisions.sql_revisions import SqlRevision, SqlRevisions
from guvnor.schema import catalog
from guvnor.schema.enums import Enums
from guvnor.schema.escapes import EscapeGuard
from guvnor.schema.reading import LiveSchemaError
from guvnor.schema.shadow_errors import (
    LOCK_TIMEOUT,
    EventTriggers,
    ShadowEscapeError,
    ShadowUnavailableError,
    another_server,
    build_error,
    python_failed,
)
from guvnor.schema.shadow_session import ShadowSession
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.touched import DataWatch

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.script import Script, ScriptDirectory

_LOCKS_SHARE = 1.0  # of the documented room for locks that a shadow may fill; in practice there is more
_AGAIN = 2  # times that a shadow is built again when a statement was stopped


@dataclass
class Shadow:
    """A schema under construction; see :func:`build`.

    :ivar driver: the connection in whose transaction it is built.
    :ivar name: of the schema.
    :ivar before: handles of what belonged to the database as a whole before.
    :ivar session: is made as new after each revision.
    :ivar guard: checks that the statements stay within the schema.
    :ivar enums: follows the enums, if the server refused a value in an earlier build; see :func:`build`.
    :ivar watch: sees what statements do to data; None while nobody asks.
    """

    driver: Connection
    name: str
    before: set[str]
    session: ShadowSession
    guard: EscapeGuard
    enums: Enums | None = None
    watch: DataWatch | None = None

    def execute(self, statement: str) -> None:
        """Run statements as they are written.

        :raises psycopg2.Error: when one fails.
        """
        if self.watch is None:
            self.guard.execute(statement)
        else:
            self.watch.run(statement, self.guard.execute, self.undone)
        self._follow_enums()

    def _follow_enums(self) -> None:
        if self.enums is not None and not self.guard.off:
            self.enums.follow(self.driver, self.name)

    @cached_property
    def connection(self) -> sqlalchemy.Connection:
        """The same session as SQLAlchemy's connection, for Alembic's operations and for metadata.

        SQLAlchemy takes time to import, so this connection is made when it is first asked for.
        """
        from sqlalchemy import StaticPool, create_engine, event

        from guvnor.postgres.raw_sql import sent

        # StaticPool hands out this one connection and leaves it open. SQLAlchemy's first queries are made
        # here, since it would end them with a rollback otherwise.
        engine = create_engine(
            "postgresql+psycopg2://",
            creator=lambda: self.driver,
            poolclass=StaticPool,
            use_native_hstore=False,
            _initialize=False,
        )
        connection = engine.connect()
        engine.dialect.initialize(connection)

        @event.listens_for(connection, "before_cursor_execute")
        def before_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            self.guard.before_statement(statement)
            if self.watch is not None:
                self.watch.before_statement(statement)

        @event.listens_for(connection, "after_cursor_execute")
        def after_statement(
            _connection: object,
            _cursor: object,
            statement: str,
            parameters: Any,
            context: Any,
            many: bool,
        ) -> None:
            def again() -> None:
                with self.driver.cursor() as cursor:
                    if context.no_parameters:
                        cursor.execute(statement)
                    else:
                        (cursor.executemany if many else cursor.execute)(statement, parameters)

            self.guard.after_statement(sent(statement, context))
            if self.watch is not None:
                self.watch.after_statement(sent(statement, context), again)
            self._follow_enums()

        return connection

    def migrate(self, function: Callable[[], object], doing: str) -> None:
        """Run a revision's ``upgrade`` or ``downgrade``: its statements if they are known, else its Python.

        :param doing: what that is, in words for an error.
        """
        from guvnor.revisions.statements import render

        plain = render(function).plain
        if plain is not None:
            self.run(plain, doing)
            return
        from alembic.operations import Operations
        from alembic.runtime.migration import MigrationContext

        self.guard.doing = doing
        with Operations.context(MigrationContext.configure(self.connection)):
            try:
                function()
            except (Exception, SystemExit) as error:  # a revision may do anything
                if isinstance(getattr(error, "orig", error), (psycopg2.Error, AssertionError, GuvnorError)):
                    raise
                raise python_failed(error, doing) from error
        self.session.renew()

    def run(self, statements: Sequence[str], doing: str) -> None:
        """Run the statements of a revision.

        :param doing: what that is, in words for an error.
        """
        self.guard.doing = doing
        for statement in statements:
            self.execute(statement)
        self.session.renew()

    @contextlib.contextmanager
    def undone(self, *, on_failure: bool = False) -> Iterator[None]:
        """Undo what is done within.

        :param on_failure: only when it fails.
        """
        undo = "ROLLBACK TO SAVEPOINT undone; RELEASE SAVEPOINT undone"
        with self.driver.cursor() as cursor:
            cursor.execute("SAVEPOINT undone")
            try:
                yield
                if on_failure:
                    undo = "RELEASE SAVEPOINT undone"
            finally:
                if not self.driver.closed:
                    cursor.execute(undo)

    def attempt(self, statements: str) -> bool:
        """Run statements; when one fails, undo them and return False."""
        try:
            with self.undone(on_failure=True):
                self.execute(statements)
        except psycopg2.Error:
            return False
        return True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for what reaches outside, as during the build; when the body fails, it is undone.

        :raises ShadowEscapeError: as :func:`build` does.
        """
        self.guard.off = False
        try:
            with self.undone(on_failure=True):
                yield
                self.guard.inspect()
        finally:
            self.guard.off = True

    def snapshot(self, *, parents: bool = True) -> Snapshot:
        """Read what was built.

        Of what belongs to the database as a whole, only what came with the shadow counts. An extension that
        was there before counts when a statement names it: a revision says ``IF NOT EXISTS``, and the catalogs
        cannot tell whether it asked.

        :param parents: see :func:`guvnor.schema.catalog.read`.
        """
        found = catalog.read(self.driver, self.name, parents=parents)
        self.execute(f"SET LOCAL search_path = {self.name}, public")
        text = "\n".join(self.guard.statements)

        def named(item: Object) -> bool:
            name = re.escape(item.identity.strip('"'))
            return re.search(rf"(?<!\w){name}(?!\w)", text) is not None

        objects: dict[str, Object] = {}
        for key, item in found.objects.items():
            if key not in self.before:
                objects[key] = item
            elif item.kind == "extension" and named(item):
                objects[key] = replace(item, attributes={**item.attributes, "content": "in schema public"})
        return replace(found, objects=objects)


Make = Callable[[Shadow], None]


def from_revisions(revisions: SqlRevisions | ScriptDirectory, revision: str | None) -> Make:
    """Return what builds the schema of a revision, or an empty one for None and ``base``.

    :param revisions: the revision files, as SQL where they consist of it, else as Alembic reads them.
    :raises LiveSchemaError: when there is no file of the revision.
    """
    if revision is None or revision == "base":
        return lambda _: None
    steps: Sequence[SqlRevision | Script] | None = None
    if isinstance(revisions, SqlRevisions):
        steps = revisions.up_to(revision)
    else:
        from alembic.script.revision import ResolutionError
        from alembic.util import CommandError

        with contextlib.suppress(CommandError, ResolutionError):
            steps = list(revisions.iterate_revisions(revision, "base"))[::-1]
    if steps is None:
        raise LiveSchemaError(
            f"There is no file of revision {revision}, so it is unknown what the database should be.",
            next_step="guvnor version   # is this the release that migrated the database?",
        )

    def run(shadow: Shadow) -> None:
        for step in steps:
            if isinstance(step, SqlRevision):
                shadow.run(step.statements, f"revision {step.identifier}")
            else:
                shadow.migrate(step.module.upgrade, f"revision {step.revision}")

    return run


def from_models(metadata: sqlalchemy.MetaData) -> Make:
    """Return what builds a schema from SQLAlchemy's metadata."""
    return lambda shadow: metadata.create_all(shadow.connection, checkfirst=False)


@contextlib.contextmanager
def build(connection: Connection, make: Make) -> Iterator[Shadow]:
    """Build a schema, hand it over, and roll everything back.

    :param connection: to any database of the right major version; it must be outside of a transaction and is
        in autocommit mode afterwards.
    :param make: what builds it, such as :func:`from_revisions`; it may be called again, for a schema that is
        empty again.
    :raises ShadowUnavailableError: when the server or the role does not allow it.
    :raises ShadowEscapeError: when a statement takes a lock on an object outside, or ends the transaction.
    :raises ShadowError: when a statement fails.
    """
    connection.autocommit = False
    enums: Enums | None = None
    stopped = 0
    try:
        while True:
            triggers = _prepare(connection)
            shadow = _begin(connection, enums, triggers)
            try:
                try:
                    make(shadow)
                    shadow.guard.inspect()
                except Exception as error:
                    cause = getattr(error, "orig", error)  # SQLAlchemy's error around the driver's
                    if not isinstance(cause, (psycopg2.Error, AssertionError, ShadowEscapeError)):
                        raise
                    late = isinstance(cause, psycopg2.errors.QueryCanceled) and shadow.guard.limited
                    if late and stopped < _AGAIN:  # on a busy machine, anything may take so long
                        stopped += 1
                        continue
                    refused = isinstance(cause, psycopg2.errors.UnsafeNewEnumValueUsage)
                    if refused and (enums is None or enums.grown):
                        enums = Enums(enums.labels) if enums else Enums()
                        continue
                    raise build_error(cause, shadow.guard.doing, triggers) from error
                shadow.guard.off = True
                yield shadow
                return
            finally:
                _end(shadow)
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = True


def _prepare(driver: Connection) -> EventTriggers:
    """Start the transaction with its settings, and return which event triggers will fire in it.

    They must not fire for what nobody will see, but only some roles may suppress them (PostgreSQL
    documentation, "Client Connection Defaults": session_replication_role; the privilege exists since 15).
    """
    may = "current_setting('is_superuser')::boolean"
    if driver.server_version >= 150000:
        may = "has_parameter_privilege('session_replication_role', 'SET')"
    # The settings end with the transaction. No table has rows, so no index build needs workers, and row
    # security has nothing to hide.
    sql = f"""
        SET TRANSACTION READ WRITE;
        SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
        SET LOCAL max_parallel_maintenance_workers = 0;
        SET LOCAL row_security = on;
        SELECT set_config('session_replication_role', 'replica', true) WHERE {may};
        SELECT {may}, current_user::text,
               ARRAY(SELECT format('%I (function %s)', evtname, evtfoid::regproc)
                     FROM pg_catalog.pg_event_trigger
                     WHERE evtenabled = 'A'
                        OR evtenabled = CASE current_setting('session_replication_role')
                                        WHEN 'replica' THEN 'R' ELSE 'O' END::"char"
                     ORDER BY evtname)
        """
    try:
        ((suppressed, role, names),) = rows(driver, sql)
    except psycopg2.Error as error:
        raise build_error(error, None) from error
    return EventTriggers(tuple(names), role, suppressed)


def _begin(driver: Connection, enums: Enums | None, triggers: EventTriggers) -> Shadow:
    """Make the schema."""
    name = f"guvnor_shadow_{secrets.token_hex(8)}"
    try:
        sql = f"""
            CREATE SCHEMA {name};
            SET LOCAL search_path = {name}, public;
            SELECT current_schema()::regnamespace::oid::bigint,
                   -- every relation of the live schema has a twin, and each is locked until the end
                   (SELECT count(*) + count(*) FILTER (WHERE reltoastrelid <> 0) * 2 FROM pg_class
                    WHERE relnamespace = to_regnamespace('public')
                      AND relkind IN ('r', 'p', 'i', 'I', 'S', 'm', 'v')),
                   current_setting('max_locks_per_transaction')::bigint
                       * (current_setting('max_connections')::bigint
                          + current_setting('max_prepared_transactions')::bigint)
            """
        ((oid, needed, room),) = rows(driver, sql)
    except psycopg2.Error as error:
        raise build_error(error, None, triggers) from error
    if needed > room * _LOCKS_SHARE:
        raise ShadowUnavailableError(
            f"The expected schema needs about {needed} locks; this server has room for {room} in all.",
            next_step=f"{another_server()}\nor raise max_locks_per_transaction on this server",
        )
    session = ShadowSession(driver)
    return Shadow(driver, name, catalog.read_global(driver, oid), session, EscapeGuard(driver, oid), enums)


def _end(shadow: Shadow) -> None:
    """Roll back; when a statement has committed the shadow, drop it."""
    driver = shadow.driver
    if not driver.closed:
        driver.rollback()
        with contextlib.suppress(psycopg2.Error), driver.cursor() as cursor:
            shadow.guard.end()
            cursor.execute("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s", (shadow.name,))
            if cursor.fetchone() is not None:
                cursor.execute(f"DROP SCHEMA {shadow.name} CASCADE")
                driver.commit()
        driver.rollback()
    if "connection" in vars(shadow):
        if driver.closed:  # the pool would try to roll back on a lost connection, and log how that fails
            shadow.connection.invalidate()
        shadow.connection.close()
