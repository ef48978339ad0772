"""The settings of a session: what would end a migration halfway, and what decides what SQL means.

Every session of this tool has them: that which runs revisions, the shadow, the rehearsal and the script for
psql. So a revision means the same everywhere, whatever the server, the database or the role is set to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import extensions

from guvnor.errors import ConfigurationError
from guvnor.postgres.quoting import constant

SCHEMA = "public"
READ_ONLY = "default_transaction_read_only"

# Settings that would end a migration halfway. Each transaction sets its own timeouts (PostgreSQL
# documentation, "Client Connection Defaults").
_SESSION = (
    ("search_path", SCHEMA),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),  # since PostgreSQL 17
    # A session whose client has vanished, and its locks, end after half a minute instead of hours.
    ("tcp_keepalives_idle", "10"),  # s
    ("tcp_keepalives_interval", "5"),  # s
    ("tcp_keepalives_count", "4"),
    ("tcp_user_timeout", "30000"),  # ms
    ("synchronous_commit", "local"),  # see guvnor.bookkeeping.confirmation
    ("default_transaction_deferrable", "off"),
    ("client_connection_check_interval", "500"),  # ms: a killed client's statement ends soon
    ("row_security", "off"),  # refuse a statement whose rows a policy would filter; see row_security.py
    ("client_min_messages", "notice"),
    ("jit", "off"),  # compiling a query of the catalogs takes longer than running it
)

# Settings that decide what SQL means, at PostgreSQL's own defaults (the column boot_val of pg_settings), but
# for the time zone, which is GMT there.
MEANING = (
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("check_function_bodies", "on"),
    ("default_transaction_isolation", "read committed"),
    (READ_ONLY, "off"),
    ("default_text_search_config", "pg_catalog.simple"),
    ("session_replication_role", "origin"),
    ("default_tablespace", ""),
    ("default_table_access_method", "heap"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
)

# The join skips settings that an older server does not know, so that one statement sets all others.
_SET = """
    SELECT set_config(wanted.name, wanted.value, false)
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_catalog.pg_settings AS known USING (name)
    WHERE known.setting IS DISTINCT FROM wanted.value
      AND (known.context = 'user' OR {may})
      AND (wanted.name <> 'client_connection_check_interval' OR version() !~ 'Visual C|mingw')
"""
_DIFFERING = """
    SELECT wanted.name, known.setting, wanted.value
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_catalog.pg_settings AS known USING (name)
    WHERE known.setting IS DISTINCT FROM wanted.value
    ORDER BY wanted.name
"""
_SCRIPT = """SET client_encoding = 'UTF8';

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            {0}
        ) AS w (name, value) JOIN pg_catalog.pg_settings AS s USING (name)
        WHERE s.setting IS DISTINCT FROM w.value
    LOOP
        BEGIN
            PERFORM set_config(wanted.name, wanted.value, false);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING 'this role may not set %, which is %', wanted.name, wanted.setting;
        END;
    END LOOP;
END
$$;"""


def known_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of settings that a configuration lists, as the server spells them.

    :raises ConfigurationError: when one is none of :data:`MEANING`.
    """
    spelled = {name.lower(): name for name, _ in MEANING}
    if unknown := [name for name in names if name.lower() not in spelled]:
        raise ConfigurationError(
            f"session.keep names {', '.join(unknown)}. It can name: {', '.join(spelled.values())}."
        )
    return tuple(spelled[name.lower()] for name in names)


def prepare(connection: extensions.connection, keep: Collection[str] = ()) -> None:
    """Give a session the settings that a migration needs, as far as its role may set them.

    :param keep: names of settings that stay as they are.
    """
    may = "current_setting('is_superuser')::boolean"
    if connection.server_version >= 150000:
        may = "has_parameter_privilege(known.name, 'SET')"
    with connection.cursor() as cursor:
        cursor.execute(_SET.format(may=may), _wanted(_SESSION + MEANING, keep))


def differing(connection: extensions.connection, keep: Collection[str] = ()) -> list[tuple[str, str, str]]:
    """Return the settings that decide what SQL means and that the role could not set.

    :param keep: names of settings that may differ.
    :returns: the name of each, its value in this session, and its value elsewhere.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERING, _wanted(MEANING, {*keep, READ_ONLY}))
        return cursor.fetchall()


def script(keep: Collection[str] = ()) -> str:
    """Return what gives a session of psql the settings that decide what SQL means.

    :param keep: names of settings that stay as they are.
    """
    wanted = (("search_path", SCHEMA), ("row_security", "off"), *MEANING)
    values = [f"({constant(name)}, {constant(value)})" for name, value in wanted if name not in keep]
    return _SCRIPT.format(",\n            ".join(values))


def _wanted(settings: Sequence[tuple[str, str]], keep: Collection[str]) -> dict[str, list[str]]:
    chosen = [(name, value) for name, value in settings if name not in keep]
    return {"names": [name for name, _ in chosen], "values": [value for _, value in chosen]}
