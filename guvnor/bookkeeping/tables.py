"""The bookkeeping tables: what they look like, which of them exist, and how they are made.

``alembic_version`` is Alembic's. ``schema_migrations`` has golang-migrate's format, so that golang-migrate
and the Go ``guvnor`` binary see the same truth: one row with the version as a number and a dirty flag, no row
when nothing is applied, -1 on the way to no version. ``guvnor_migration_history`` is this project's.
"""

from __future__ import annotations

from typing import Any

from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection

HISTORY = "guvnor_migration_history"
BOOKKEEPING_TABLES = ("alembic_version", "schema_migrations", HISTORY)
LAYOUT = 1  # of the history; kept in the table's comment, so that an older tool knows that it is too old

CREATE_ALEMBIC_VERSION = """
    CREATE TABLE IF NOT EXISTS alembic_version (
        version_num varchar(32) NOT NULL,
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
    )
"""
CREATE_SCHEMA_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version bigint NOT NULL PRIMARY KEY,
        dirty boolean NOT NULL
    )
"""
CREATE_HISTORY = (
    """
    CREATE TABLE IF NOT EXISTS guvnor_migration_history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        attempt uuid NOT NULL,
        event text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        direction text NOT NULL,
        revision text,
        from_version text,
        to_version text,
        step text,
        resumable boolean,
        duration_ms bigint,
        lock_wait_ms bigint,
        tries integer,
        database_bytes bigint,
        checksum text,
        sqlstate text,
        error text,
        database_role text NOT NULL DEFAULT session_user,
        os_user text,
        host text,
        job text,
        tool text NOT NULL,
        database_identity text,
        note text,
        stalled_ms bigint,
        stalled_sessions integer,
        stalled_statement text,
        rendering integer,
        source text,
        checkout text
    )
    """,
    f"COMMENT ON TABLE guvnor_migration_history IS 'layout {LAYOUT}'",
)

# Older releases made the table without these columns. They name those that they write, so they can write a
# table that has these, too: the layout stays.
_ADDED_TO_HISTORY = (
    "stalled_ms bigint",
    "stalled_sessions integer",
    "stalled_statement text",
    "rendering integer",
    "source text",
    "checkout text",
)
_COMPLETE_HISTORY = "ALTER TABLE public.guvnor_migration_history " + ", ".join(
    f"ADD COLUMN IF NOT EXISTS {column}" for column in _ADDED_TO_HISTORY
)

# Rails and dbmate keep a table schema_migrations, too: theirs has one column, a text.
_OF_GOLANG_MIGRATE = """
    (SELECT count(*) = 2 FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = to_regclass('public.schema_migrations') AND NOT a.attisdropped
       AND (a.attname, a.atttypid) IN (('version', 'bigint'::regtype), ('dirty', 'boolean'::regtype)))
"""

# The owner's default privileges let the application write to all tables, these included, which it only has to
# read. The owner runs this after creating them.
READ_ONLY_FOR_OTHERS = f"""
    DO $$
    DECLARE
        given record;
    BEGIN
        FOR given IN
            SELECT DISTINCT c.oid::regclass AS relation,
                   COALESCE(quote_ident(pg_get_userbyid(NULLIF(a.grantee, 0))), 'PUBLIC') AS grantee
            FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
            WHERE c.oid IN (to_regclass('public.alembic_version'), to_regclass('public.schema_migrations'),
                            to_regclass('public.guvnor_migration_history'))
              AND (c.relname <> 'schema_migrations' OR {_OF_GOLANG_MIGRATE.strip()})
              AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
        LOOP
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s',
                           given.relation, given.grantee);
        END LOOP;
    END
    $$
"""


class ForeignTableError(GuvnorError):
    """The table schema_migrations belongs to another tool."""

    exit_code = ExitCode.DECISION
    state = "Nothing was changed; the table was left alone."
    next_step = (
        "Give Guvnor a database of its own, or rename that tool's table and tell the tool its new name "
        "(dbmate --migrations-table; in Rails, schema_migrations_table_name):\n"
        "ALTER TABLE public.schema_migrations RENAME TO other_migrations;   -- as its owner"
    )


def existing(cursor: Any) -> set[str]:
    """Return the names of the bookkeeping tables that exist; another tool's schema_migrations is none."""
    cursor.execute(
        "SELECT name FROM unnest(%s) AS name WHERE to_regclass('public.' || name) IS NOT NULL "
        f"AND (name <> 'schema_migrations' OR {_OF_GOLANG_MIGRATE.strip()})",
        (list(BOOKKEEPING_TABLES),),
    )
    return {name for (name,) in cursor}


def check_golang(cursor: Any) -> None:
    """Check that a table schema_migrations, if there is one, is golang-migrate's.

    :raises ForeignTableError: when its columns are not golang-migrate's (exit code 5).
    """
    cursor.execute(
        f"""
        SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.schema_migrations') AND a.attnum > 0 AND NOT a.attisdropped
          AND NOT {_OF_GOLANG_MIGRATE.strip()}
        """
    )
    (columns,) = cursor.fetchone() or (None,)
    if columns is not None:
        raise ForeignTableError(
            "The table schema_migrations in schema public belongs to another tool (Rails and dbmate have one "
            f"of this name): its column{'s are' if ',' in columns else ' is'} {columns}. golang-migrate's, "
            "which is needed here, has the columns version bigint and dirty boolean."
        )


def create_missing(connection: Connection, *, golang_migrate: bool = True) -> None:
    """Create the bookkeeping tables that are missing, and the columns that an older history lacks.

    :param connection: in autocommit mode, holding the run lock.
    :param golang_migrate: whether golang-migrate's table is one of them.
    """
    wanted = {"alembic_version": CREATE_ALEMBIC_VERSION, HISTORY: ";".join(CREATE_HISTORY)}
    if golang_migrate:
        wanted["schema_migrations"] = CREATE_SCHEMA_MIGRATIONS
    with connection.cursor() as cursor:
        if wanted.keys() - existing(cursor):
            cursor.execute(";".join((*wanted.values(), READ_ONLY_FOR_OTHERS)))
        _complete_history(cursor)


def create_history(cursor: Any) -> None:
    """Create the history table when it is missing, or the columns that an older one lacks."""
    if HISTORY not in existing(cursor):
        cursor.execute(";".join((*CREATE_HISTORY, READ_ONLY_FOR_OTHERS)))
    _complete_history(cursor)


def _complete_history(cursor: Any) -> None:
    """Add the columns that the history lacks; it is locked for that only when it lacks one."""
    cursor.execute(
        """
        SELECT count(*) FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass('public.guvnor_migration_history') AND attname = ANY (%s)
          AND NOT attisdropped
        """,
        ([column.partition(" ")[0] for column in _ADDED_TO_HISTORY],),
    )
    if cursor.fetchone() != (len(_ADDED_TO_HISTORY),):
        cursor.execute(_COMPLETE_HISTORY)
