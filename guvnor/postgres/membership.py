"""Who may act as the owner of the schema: the role that logs in, or another one that is meant to.

The set-up of ``guvnor migrate roles`` gives the role that logs in no rights of its own: it acts as the
owner. Where that was forgotten, a GRANT to the login would help, too, and undo the set-up. So a hint looks
here first.
"""

from __future__ import annotations

import shlex

from guvnor.postgres import SCHEMA, Connection, row

# The owners of the schema and of what is in it: whether this session may act as them, and which other roles
# log in to do so. No hint lends the rights of a superuser or of a predefined role. An administrator is a
# member of the roles that it has created (PostgreSQL documentation, "Role Attributes"), not there to migrate.
_OWNER = """
    SELECT o.rolname::text, pg_has_role(session_user, o.oid, {how}), o.rolcanlogin,
           ARRAY(SELECT m.rolname::text
                 FROM pg_catalog.pg_auth_members AS a JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
                 WHERE a.roleid = o.oid AND m.rolname <> session_user AND pg_has_role(m.oid, o.oid, {how})
                   AND m.rolcanlogin AND NOT m.rolsuper AND NOT m.rolcreaterole
                 GROUP BY 1
                 ORDER BY 1)
    FROM pg_catalog.pg_roles AS o
    JOIN (
        SELECT relowner, 0 FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(%(schema)s)
        UNION ALL
        SELECT CASE n.nspowner::regrole::text WHEN 'pg_database_owner' THEN d.datdba ELSE n.nspowner END, 1
        FROM pg_catalog.pg_namespace AS n, pg_catalog.pg_database AS d
        WHERE n.nspname = %(schema)s AND d.datname = current_database()
    ) AS owned (owner, place) ON owned.owner = o.oid
    WHERE o.oid >= 16384 AND NOT o.rolsuper AND o.rolname <> current_user
      AND (o.rolname = %(owner)s
           OR %(owner)s = '' AND has_schema_privilege(o.oid, %(schema)s, 'CREATE')
              AND has_schema_privilege(o.oid, %(schema)s, 'USAGE'))
    GROUP BY o.oid, o.rolname, o.rolcanlogin
    ORDER BY min(owned.place), count(*) DESC, o.rolname
    LIMIT 1
"""


def instead_of_a_grant(connection: Connection, owner: str = "") -> str | None:
    """Return what to type where a role is to act as the owner; None where a GRANT is in order.

    :param connection: of a session that lacks a right; not in a failed transaction.
    :param owner: the owner to act as; when left out, the one of most tables that may create tables.
    """
    how = "'SET'" if connection.server_version >= 160000 else "'MEMBER'"
    found = row(connection, _OWNER.format(how=how), {"schema": SCHEMA, "owner": owner})
    if found is None:
        return None
    name, may, logs_in, members = found
    setting = f"export GUVNOR_STORAGE_ROLE={shlex.quote(name)}"
    if may:
        return f"{setting}   # storage.role: role {connection.info.user} acts as it"
    if members and not logs_in:
        return f"Log in as {' or '.join(members)}, which may act as {name}, and:\n{setting}"
    return None
