"""The schema that revisions or models mean, built by the server itself and rolled back.

It is built in a schema of its own with a random name, inside a transaction that always ends in a rollback, so
that nothing of it is ever seen by anyone else. What is built there finds its own tables first
(``search_path`` is the shadow, then ``public``). A statement that reaches past them for a live table is
noticed in ``pg_locks`` and ends the work.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg2
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from psycopg2 import errorcodes, extensions
from sqlalchemy import Connection as SQLAlchemyConnection
from sqlalchemy import MetaData, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError

import guvnor.online.operations  # noqa: F401  (revisions use the online operations)
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection
from guvnor.schema import catalog
from guvnor.schema.enums import Enums
from guvnor.schema.snapshot import Object, Snapshot

LOCK_TIMEOUT = "50ms"
# A look at pg_locks costs more the more locks there are. Cheap ones follow every statement, dear ones take at
# most a twentieth of the time.
_CHEAP_LOOK = 0.002  # seconds
_LOOK_SHARE = 19

# How much of the documented room for locks (max_locks_per_transaction for each possible session) a shadow may
# fill; in truth there is a little more.
_LOCKS_SHARE = 1.0

# It runs after every statement, so it is planned once. What was there before is a list, so that of the many
# locks on the shadow's own relations none has to be looked up; what a statement made outside of the shadow
# locks nobody out, and is looked for ($1) while that is cheap, and at the end.
_PREPARE_LOOK = """
    PREPARE guvnor_shadow_look (boolean) AS
    SELECT l.relation::bigint, l.relation::regclass::text, l.mode,
           NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = l.relation)
    FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode <> 'AccessShareLock'
      AND (l.relation = ANY (%(outside)s::oid[])
           OR $1 AND l.relation >= 16384 AND EXISTS (
               SELECT FROM pg_catalog.pg_class AS c
               WHERE c.oid = l.relation AND c.relnamespace <> %(shadow)s AND c.relpersistence <> 't'
                 AND c.relnamespace <> 'pg_toast'::regnamespace))
    UNION ALL
    SELECT NULL, current_setting('search_path'), pg_current_xact_id_if_assigned()::text, false
"""

# Where another server of the same major version can do what this one does not allow.
_ANOTHER_SERVER = "guvnor schema check --shadow-dsn postgres://USER@HOST/SCRATCH_DATABASE"


class ShadowError(GuvnorError):
    """The expected schema could not be built."""

    state = "The database is unchanged: everything was rolled back."
    next_step = "Correct the revision, and try it on the local server: guvnor db start"


class ShadowUnavailableError(ShadowError):
    """The expected schema cannot be built on this server; another one of the same major version can do it."""

    exit_code = ExitCode.PREFLIGHT
    next_step = _ANOTHER_SERVER


class ShadowBusyError(ShadowError):
    """The expected schema could not be built: another session held a lock for too long."""

    exit_code = ExitCode.LOCKED
    next_step = "guvnor schema check   # again, when that session (VACUUM of a catalog, for one) is done"


class ShadowEscapeError(ShadowError):
    """A revision reached for an object outside of the schema that is being built."""


@dataclass
class Shadow:
    """A schema under construction; see :func:`build`."""

    connection: SQLAlchemyConnection
    driver: Connection
    name: str
    oid: int
    before: Snapshot
    doing: str = "the models"
    statements: list[str] = field(default_factory=list)
    guard: _Guard = field(init=False)

    def execute(self, statement: str) -> None:
        """Run one statement as it is written."""
        self.connection.exec_driver_sql(statement.replace("%", "%%"))

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Undo what is done within."""
        savepoint = self.connection.begin_nested()
        try:
            yield
        finally:
            savepoint.rollback()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """End what reaches for an object outside at once, as while the schema is built; undone when it fails.

        :raises ShadowEscapeError: as :func:`build` does.
        """
        self.guard.off = False
        try:
            with self.connection.begin_nested():
                yield
                self.guard.look()
        finally:
            self.guard.off = True

    def search_own(self) -> None:
        """Find the shadow's objects first, then those in ``public``."""
        self.execute(f"SET LOCAL search_path = {self.name}, public")

    def snapshot(self) -> Snapshot:
        """Read what was built.

        Of what belongs to the database as a whole only that counts which came with the shadow. An extension
        that was there before counts when a statement names it: a revision says ``IF NOT EXISTS``, and the
        catalogs cannot tell whether it asked.
        """
        found = catalog.read(self.driver, self.name)
        self.search_own()
        text = "\n".join(self.statements)
        objects: dict[str, Object] = {}
        for key, item in found.objects.items():
            if self.before.get(key) is None:
                objects[key] = item
            elif item.kind == "extension" and _mentions(text, item.identity.strip('"')):
                objects[key] = replace(item, attributes={**item.attributes, "content": "in schema public"})
        return replace(found, objects=objects)


def from_revisions(script: ScriptDirectory, revision: str | None) -> Callable[[Shadow], None]:
    """Return what builds a schema by running every ``upgrade()`` up to a revision.

    :param revision: the last one to run; None for none.
    """

    def run(shadow: Shadow) -> None:
        context = MigrationContext.configure(shadow.connection)
        with Operations.context(context):
            for step in reversed(list(script.iterate_revisions(revision, "base"))) if revision else ():
                shadow.doing = f"revision {step.revision}"
                step.module.upgrade()

    return run


def from_models(metadata: MetaData) -> Callable[[Shadow], None]:
    """Return what builds a schema from SQLAlchemy's metadata."""

    def run(shadow: Shadow) -> None:
        metadata.create_all(shadow.connection, checkfirst=False)

    return run


@contextlib.contextmanager
def build(connection: Connection, make: Callable[[Shadow], None]) -> Iterator[Shadow]:
    """Build a schema, hand it over, and roll everything back.

    :param connection: to any database of the right major version; it must be outside of a transaction and is
        in autocommit mode afterwards.
    :param make: what builds it: :func:`from_revisions` or :func:`from_models`; it may be called again, for a
        schema that is empty again.
    :raises ShadowUnavailableError: when the server or the role does not allow it.
    :raises ShadowEscapeError: when a statement takes a lock on an object outside, or ends the transaction.
    :raises ShadowError: when a statement fails.
    """
    connection.autocommit = False
    # StaticPool hands out this one connection and leaves it open.
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: connection, poolclass=StaticPool, use_native_hstore=False
    )
    try:
        with engine.connect() as wrapped:
            enums: Enums | None = None
            while True:
                shadow = _begin(wrapped)
                guard = shadow.guard = _Guard(shadow, enums)
                event.listen(wrapped, "after_cursor_execute", guard.after_statement)
                try:
                    try:
                        make(shadow)
                        guard.look()
                    except (DBAPIError, AssertionError) as error:
                        if _uses_new_value(error) and (enums is None or enums.grown):
                            enums = enums or Enums()
                            continue
                        raise _explained(error, shadow) from error
                    guard.off = True
                    yield shadow
                    return
                finally:
                    guard.end()
                    event.remove(wrapped, "after_cursor_execute", guard.after_statement)
                    wrapped.rollback()
    finally:
        if not connection.closed:
            connection.rollback()
            connection.autocommit = True


def _begin(wrapped: SQLAlchemyConnection) -> Shadow:
    """Start the transaction and make the schema."""
    name = f"guvnor_shadow_{secrets.token_hex(8)}"
    try:
        # The settings end with the transaction. Event triggers of others must not fire for what nobody will
        # see; only a superuser may hold them back.
        wrapped.exec_driver_sql(
            f"""
            SET TRANSACTION READ WRITE;
            SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
            SELECT set_config('session_replication_role', 'replica', true)
            WHERE current_setting('is_superuser')::boolean;
            CREATE SCHEMA {name};
            SET LOCAL search_path = {name}, public
            """
        )
        row = wrapped.exec_driver_sql(
            """
            SELECT current_schema()::regnamespace::oid::bigint,
                   -- every relation of the live schema has a twin, and each is locked until the end
                   (SELECT count(*) + count(*) FILTER (WHERE reltoastrelid <> 0) * 2 FROM pg_class
                    WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'i', 'I', 'S',
                        'm', 'v')),
                   current_setting('max_locks_per_transaction')::bigint
                       * (current_setting('max_connections')::bigint
                          + current_setting('max_prepared_transactions')::bigint)
            """
        ).one()
    except DBAPIError as error:
        raise _explained(error, None) from error
    oid, needed, room = row
    if needed > room * _LOCKS_SHARE:
        raise ShadowUnavailableError(
            f"The expected schema needs about {needed} locks; this server has room for {room} for everybody.",
            next_step=f"{_ANOTHER_SERVER}\nor raise max_locks_per_transaction (now for {room} locks in all)",
        )
    driver: Any = wrapped.connection.driver_connection
    return Shadow(wrapped, driver, name, oid, catalog.read_global(driver, name))


class _Guard:
    """Looks after each statement whether it stayed within the shadow."""

    def __init__(self, shadow: Shadow, enums: Enums | None) -> None:
        self.shadow = shadow
        self.enums = enums
        if enums is not None:
            enums.begin()
        self.off = False
        self._looked_at = 0.0
        self._cost = 0.0
        with shadow.driver.cursor() as cursor:
            cursor.execute(
                """
                SELECT pg_current_xact_id()::text, current_setting('search_path'),
                       ARRAY(SELECT oid::bigint FROM pg_class WHERE oid >= 16384)
                """
            )
            row = cursor.fetchone()
            assert row is not None
            self.transaction, self.search_path, outside = row
            cursor.execute(_PREPARE_LOOK, {"shadow": shadow.oid, "outside": outside})

    def after_statement(
        self, _connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        """Remember the statement and look, unless looks have become dear."""
        if self.off:
            return
        self.shadow.statements.append(statement)
        now = time.monotonic()
        ended = self.shadow.driver.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        if ended or self._cost < _CHEAP_LOOK or now - self._looked_at > _LOOK_SHARE * self._cost:
            self.look(thorough=ended or self._cost < _CHEAP_LOOK)
        if self.enums is not None:
            self.enums.look(self.shadow.driver, self.shadow.name)

    def look(self, *, thorough: bool = True) -> None:
        """Look into ``pg_locks``.

        :param thorough: whether to look for what was made outside of the shadow, too.
        :raises ShadowEscapeError: on any lock but ACCESS SHARE on a relation that was there before, and when
            the transaction is another one.
        """
        began = time.monotonic()
        driver = self.shadow.driver
        if driver.info.transaction_status == extensions.TRANSACTION_STATUS_INERROR:
            return  # the error itself is on its way
        with driver.cursor() as cursor:
            cursor.execute("EXECUTE guvnor_shadow_look (%s)", (thorough,))
            rows = cursor.fetchall()
        self._looked_at = time.monotonic()
        self._cost = self._looked_at - began
        *locks, (_, search_path, transaction, _) = rows
        if locks:
            # A table that was there before tells more than what was made on it.
            oid, name, mode, gone = min(locks)
            raise self._escape(f"took {lock_name(mode)} on {f'a table (oid {oid})' if gone else name}")
        if transaction != self.transaction:
            raise self._escape("ended the transaction")
        if search_path != self.search_path:
            raise self._escape("changed the search_path")

    def _escape(self, what: str) -> ShadowEscapeError:
        statement = " ".join(self.shadow.statements[-1].split()) if self.shadow.statements else ""
        return ShadowEscapeError(
            f"While the expected schema was built, {self.shadow.doing} {what}, outside of it. "
            f"Statement: {statement[:200]}",
            next_step="Name objects without their schema, look for them in current_schema() only, and leave "
            "transactions to the tool.",
        )

    def end(self) -> None:
        """Roll back; when a statement has committed the shadow, drop it."""
        self.off = True
        driver = self.shadow.driver
        if driver.closed:
            return
        driver.rollback()
        with contextlib.suppress(psycopg2.Error), driver.cursor() as cursor:
            cursor.execute("DEALLOCATE guvnor_shadow_look")
            cursor.execute("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s", (self.shadow.name,))
            if cursor.fetchone() is not None:
                cursor.execute(f"DROP SCHEMA {self.shadow.name} CASCADE")
                driver.commit()
        driver.rollback()


def _uses_new_value(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and (
        getattr(error.orig, "pgcode", None) == errorcodes.UNSAFE_NEW_ENUM_VALUE_USAGE
    )


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def lock_name(mode: str) -> str:
    """Return the SQL name of a lock mode: ``AccessExclusiveLock`` is ``ACCESS EXCLUSIVE``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()


def _explained(error: DBAPIError | AssertionError, shadow: Shadow | None) -> GuvnorError:
    """Say what a failure to build means."""
    doing = shadow.doing if shadow else "the schema"
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "pgcode", None)
    reason = getattr(getattr(original, "diag", None), "message_primary", None) or " ".join(
        str(original).split()
    )
    if code == errorcodes.OUT_OF_MEMORY:
        return ShadowUnavailableError(
            "The expected schema needs more locks than this server has room for (max_locks_per_transaction)."
        )
    if shadow is None and code == errorcodes.INSUFFICIENT_PRIVILEGE:
        return ShadowUnavailableError(
            f"The expected schema is built in a schema of its own, which this role may not create: {reason}.",
            next_step=f"{_ANOTHER_SERVER}\nor, as the database's owner: GRANT CREATE ON DATABASE ... TO ...",
        )
    if code in (errorcodes.READ_ONLY_SQL_TRANSACTION, errorcodes.FEATURE_NOT_SUPPORTED) and shadow is None:
        return ShadowUnavailableError(f"The expected schema cannot be built on a read-only server: {reason}.")
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return ShadowBusyError(
            f"The expected schema could not be built: {doing} waited more than {LOCK_TIMEOUT} for a lock."
        )
    if isinstance(error, AssertionError):
        reason = "it leaves its transaction (autocommit_block); use the online operations instead"
    return ShadowError(f"The expected schema could not be built: {doing} failed: {reason}.")
