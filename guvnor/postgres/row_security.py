"""Row security: the tables whose rows it hides from a role, and what lets the role see them.

Every session of this project sets ``row_security = off``. Then the server refuses a statement whose rows a
policy would filter (SQLSTATE 42501), instead of counting or changing a part of them in silence (PostgreSQL
documentation, "Row Security Policies"). Policies apply to a table's owner, too, where the table forces it.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg2
from psycopg2 import errorcodes

from guvnor.postgres import SCHEMA, Connection, quote_ident, rows, scalar

# The server's function that refuses; no other diagnostic field tells this refusal from a missing privilege.
_REFUSED_BY = "check_enable_rls"


def refused(error: psycopg2.Error) -> bool:
    """Tell whether the server has refused a statement because a policy would have filtered its rows."""
    denied = error.pgcode == errorcodes.INSUFFICIENT_PRIVILEGE
    return denied and error.diag.source_function == _REFUSED_BY


def hidden_tables(
    connection: Connection,
    tables: Sequence[str] | None = None,
    *,
    schema: str | None = SCHEMA,
    owned: bool = False,
) -> list[str]:
    """Return the tables some of whose rows may be hidden from the role that a session acts as.

    :param tables: only these, as SQL writes them, with their schema; None for all, except for members of
        extensions.
    :param schema: only those of a schema; None for any.
    :param owned: only those that the role owns.
    :returns: names as SQL writes them.
    """
    found = rows(
        connection,
        """
        SELECT c.oid::regclass::text
        FROM pg_catalog.pg_class AS c
        WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid)
          AND CASE WHEN %(tables)s::text[] IS NULL
                   THEN NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                      AND d.deptype = 'e')
                   ELSE c.oid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name) END
          AND (%(schema)s IS NULL OR c.relnamespace = to_regnamespace(quote_ident(%(schema)s)))
          AND (NOT %(owned)s OR pg_has_role(c.relowner, 'USAGE'))
        ORDER BY 1
        """,
        {"tables": None if tables is None else list(tables), "schema": schema, "owned": owned},
    )
    return [name for (name,) in found]


def acting_role(connection: Connection) -> str:
    """Return the role that a session acts as; its login may be another one."""
    return str(scalar(connection, "SELECT current_user::text"))


def bypass(connection: Connection) -> str:
    """Return the SQL that shows all rows to the role that a session acts as.

    The attribute is not inherited by the members of a role (PostgreSQL documentation, "Role Membership"), so
    it is of no use to the role that logs in, where that is another one.
    """
    role = quote_ident(connection, acting_role(connection))
    return f"ALTER ROLE {role} BYPASSRLS;   -- as a superuser; members of the role do not inherit it"
