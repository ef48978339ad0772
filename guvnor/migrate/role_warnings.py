"""Warnings of pre-flight about the role: what it does not see, and what it may do beyond its need."""

from __future__ import annotations

from guvnor.postgres import Connection, quote_ident, row_security, rows, settings
from guvnor.postgres.quoting import constant


def hidden_rows(connection: Connection) -> tuple[str, ...]:
    """Warn of tables whose rows the server would hide from a revision, and so refuses to read and write."""
    tables = ", ".join(row_security.hidden_tables(connection))
    if not tables:
        return ()
    role = row_security.acting_role(connection)
    what = (
        f"row security hides rows from role {role}, so the server refuses each statement of a revision that "
        f"reads or writes rows of: {tables} (ALTER ROLE {quote_ident(connection, role)} BYPASSRLS, "
        "as a superuser)"
    )
    return (what,)


def hidden_waits(connection: Connection) -> tuple[str, ...]:
    """Warn of a role that does not see who waits for a lock: the watch of a run then looks less often."""
    sql = """
        SELECT current_user
        WHERE NOT (pg_has_role('pg_read_all_stats', 'USAGE')
                   OR pg_has_role(session_user, 'pg_read_all_stats', 'USAGE'))
    """
    return tuple(
        f"role {role} does not see who waits for a lock, so a run looks only every 50 ms whether the "
        f"application waits (GRANT pg_read_all_stats TO {quote_ident(connection, role)})"
        for (role,) in rows(connection, sql)
    )


def other_meanings(connection: Connection, keep: tuple[str, ...]) -> tuple[str, ...]:
    """Warn of settings that give SQL another meaning, and that the role may not set.

    :param keep: names of settings that may differ.
    """
    ((login, database),) = rows(connection, "SELECT session_user, quote_ident(current_database())")
    alter = f"ALTER ROLE {quote_ident(connection, login)} IN DATABASE {database}"
    return tuple(
        f"role {login} may not set {name}, so revisions run with {value}, not {wanted} "
        f"({alter} SET {name} = {constant(wanted)}, as a superuser; or name it in session.keep)"
        for name, value, wanted in settings.differing(connection, keep)
    )


def beyond_need(connection: Connection) -> tuple[str, ...]:
    """Warn of a role that may do more than a migration needs.

    Where a table forces row security on its owner, a migration needs BYPASSRLS of the role that it acts as;
    no member of a role inherits it.
    """
    found = rows(
        connection,
        """
        SELECT format('role %s is a superuser', rolname)
        FROM pg_catalog.pg_roles WHERE rolname IN (session_user, current_user) AND rolsuper
        UNION ALL
        SELECT format('role %s has %s', rolname, string_agg(attribute, ', ' ORDER BY attribute))
        FROM pg_catalog.pg_roles
        CROSS JOIN LATERAL (VALUES ('CREATEDB', rolcreatedb), ('CREATEROLE', rolcreaterole),
                                   ('REPLICATION', rolreplication),
                                   ('BYPASSRLS', rolbypassrls AND (rolname <> current_user OR NOT EXISTS (
                                       SELECT FROM pg_catalog.pg_class
                                       WHERE relnamespace = to_regnamespace('public')
                                         AND relrowsecurity AND relforcerowsecurity)))
                           ) AS may (attribute, held)
        WHERE rolname IN (session_user, current_user) AND NOT rolsuper AND held
        GROUP BY rolname
        """,
    )
    return tuple(f"{text}: more than a migration needs (guvnor migrate roles)" for (text,) in found)
