"""What to type when the server denies a revision something (SQLSTATE 42501)."""

from __future__ import annotations

import psycopg2

from guvnor.postgres import Connection, quote_ident, row_security, rows, scalar

_NAMED = 3  # objects that are named of one owner

# Of a member of an extension or of a column's sequence, the owner is that of what it is part of.
_OWNED_BY_OTHERS = """
    SELECT quote_ident(o.rolname), o.rolsuper, array_agg(found.name ORDER BY found.name),
           array_agg(found.kind || ' ' || found.name ORDER BY found.name)
    FROM (
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                              WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
               c.oid::regclass::text, c.relowner, c.oid, 'pg_class'::regclass
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'TYPE', t.oid::regtype::text, t.typowner, t.oid, 'pg_type'::regclass
        FROM pg_catalog.pg_type AS t
        WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd', 'r')
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, p.oid, 'pg_proc'::regclass
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'public'::regnamespace
    ) AS found (kind, name, owner, oid, catalog)
    JOIN pg_catalog.pg_roles AS o ON o.oid = found.owner
    WHERE NOT pg_has_role(found.owner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = found.catalog AND d.objid = found.oid
                        AND d.deptype IN ('a', 'e', 'i'))
    GROUP BY o.rolname, o.rolsuper
    ORDER BY o.rolname
"""


def advice(connection: Connection, error: psycopg2.Error, *, half_done: bool, again: str) -> tuple[str, ...]:
    """Name what the role of a session lacks for a revision, from the catalogs, a line each.

    The server names the object in its message, but in no diagnostic field. Pre-flight has passed, so the role
    may use the schema: what it lacks is an object of another owner, or a right outside of the schema.

    :param connection: in autocommit mode, acting as the revision's role.
    :param half_done: whether a part of the revision is committed.
    :param again: the command that goes on from here.
    """
    if row_security.refused(error):
        return _row_security(connection, half_done=half_done, again=again)
    role = quote_ident(connection, row_security.acting_role(connection))
    # A role that only owns objects, as that of `guvnor migrate roles`, is a member of no other owner.
    only_owns = scalar(
        connection, "SELECT NOT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    lines = []
    for owner, superuser, names, objects in rows(connection, _OWNED_BY_OTHERS):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        by = f"as {owner}, who owns" if superuser else f"as a superuser: {owner} owns"
        if not (superuser or only_owns):
            lines.append(f"GRANT {owner} TO {role};   -- {owner} owns {', '.join(names[:_NAMED])}{more}")
        elif more:  # the rights of a superuser are not given away
            what = f"{by} {len(names)} objects of the schema: the one that the message names"
            lines.append(f"ALTER ... OWNER TO {role};   -- {what}")
        else:
            lines += [f"ALTER {item} OWNER TO {role};   -- {by} it" for item in objects]
    if not lines:
        if not scalar(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
            database = quote_ident(connection, connection.info.dbname)
            lines.append(f"GRANT CREATE ON DATABASE {database} TO {role};   -- for a schema or an extension")
        lines.append(
            f"Give role {role} the right that the message names, or have a superuser run the statement."
        )
    return (*lines, again)


def _row_security(connection: Connection, *, half_done: bool, again: str) -> tuple[str, ...]:
    """Say how the role gets to see the rows that a policy hides from it.

    An owner may exempt itself for the rest of its transaction, but not around an online step: that is
    committed, so the policy would be lifted for everybody who acts as the owner.
    """
    lines = (row_security.bypass(connection), again)
    if half_done:
        return (
            *lines,
            "Leave FORCE ROW LEVEL SECURITY on: around an online step, NO FORCE is committed at once.",
        )
    owned = row_security.hidden_tables(connection, owned=True)
    if row_security.hidden_tables(connection) and not owned:
        return lines
    table = owned[0] if len(owned) == 1 else "..."
    return (
        *lines,
        f"Or, in the revision: ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY before the statement,",
        f"and ALTER TABLE {table} FORCE ROW LEVEL SECURITY after it, before any online step.",
    )
