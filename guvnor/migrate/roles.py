"""Least privilege: who owns the schema, who migrates it, who uses it, and who only looks.

The owner cannot log in. The migrator can, has no rights of its own, and acts as the owner by ``SET ROLE``
(``storage.role``). The application reads and writes rows and nothing else, those of tables of future
revisions included (PostgreSQL documentation, ALTER DEFAULT PRIVILEGES); the bookkeeping it only reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from guvnor import postgres
from guvnor.bookkeeping import history
from guvnor.bookkeeping.state import BOOKKEEPING_TABLES
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import PreflightError
from guvnor.postgres import Connection, scalar

MISSING, TOO_MUCH = "missing", "too much"

_APPLICATION = {"table": ("SELECT", "INSERT", "UPDATE", "DELETE"), "sequence": ("USAGE", "SELECT")}
_READ_ONLY = {"table": ("SELECT",), "sequence": ("SELECT",)}
_BEYOND = {
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}


class RolesError(PreflightError):
    """The roles lack what a migration or the application needs."""

    next_step = "guvnor migrate roles | psql   # as an administrator of the database"


@dataclass(frozen=True)
class Names:
    """The names of the four roles."""

    owner: str = "guvnor_owner"
    migrator: str = "guvnor_migrator"
    application: str = "guvnor_app"
    read_only: str = "guvnor_readonly"

    @property
    def all(self) -> list[str]:
        """All four."""
        return [self.owner, self.migrator, self.application, self.read_only]

    def rights(self, role: str, kind: str, name: str = "") -> set[str]:
        """Return what a role shall be allowed.

        :param kind: ``database``, ``schema``, ``table`` or ``sequence``; nothing is said of what is owned.
        :param name: of the object; without one, of those that future revisions make.
        """
        if kind == "database":
            return {"CREATE"} if role == self.owner else {"CONNECT"}
        if kind == "schema":
            return {self.owner: {"USAGE", "CREATE"}, self.migrator: set()}.get(role, {"USAGE"})
        if role in (self.application, self.read_only):
            held = set((_APPLICATION if role == self.application else _READ_ONLY)[kind])
            return held & {"SELECT"} if name in BOOKKEEPING_TABLES else held
        return set()


@dataclass(frozen=True)
class Finding:
    """A difference between a set-up and what :func:`script` makes.

    :ivar kind: ``missing`` or ``too much``.
    :ivar what: the difference, in words.
    """

    kind: str
    role: str
    what: str

    def __str__(self) -> str:
        """Describe the difference in one line."""
        return f"{self.kind}: role {self.role} {self.what}"


def script(names: Names) -> str:
    """Return the SQL that sets the roles up in the database that it is run in.

    It can be run again, on an empty database and on one in use: what belongs to others in ``public`` is given
    to the owner. It names no password.
    """
    owner, migrator, application, read_only = map(_identifier, names.all)
    logins = f"{migrator}, {application}, {read_only}"
    rights = "\n".join(
        line
        for role, held in ((application, _APPLICATION), (read_only, _READ_ONLY))
        for kind, privileges in held.items()
        for line in (
            f"GRANT {', '.join(privileges)} ON ALL {kind.upper()}S IN SCHEMA public TO {role};",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public",
            f"    GRANT {', '.join(privileges)} ON {kind.upper()}S TO {role};",
        )
    )
    return f"""\
-- The roles of Guvnor's database. Run this in it as a superuser, or as a role with CREATEROLE that owns the
-- database and may grant pg_read_all_stats. It can be run again. Afterwards give each login a password (psql:
-- \\password ROLE), and configure for the migrator:
--   storage.role (GUVNOR_STORAGE_ROLE): {names.owner}
--   schema.grantees (GUVNOR_SCHEMA_GRANTEES): {names.application},{names.read_only}
BEGIN;
SET LOCAL lock_timeout = '200ms';
SET LOCAL search_path = public;

{_create(names)}
ALTER ROLE {owner} NOLOGIN INHERIT;
ALTER ROLE {migrator} LOGIN NOINHERIT;
ALTER ROLE {application} LOGIN;
ALTER ROLE {read_only} LOGIN;

-- The migrator acts as the owner. The owner sees which sessions wait, and who blocks them.
GRANT {owner} TO {migrator};
GRANT pg_read_all_stats TO {owner};

-- The owner makes extensions, and for a moment the schema in which an expected schema is built.
{_open_database(names)}
ALTER SCHEMA public OWNER TO {owner};
REVOKE CREATE ON SCHEMA public FROM PUBLIC, {logins};
GRANT USAGE ON SCHEMA public TO {application}, {read_only};

-- What is there belongs to the owner.
{_take_over(names.owner)}

-- Rights on what is there, and on what future revisions will make.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {logins};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {logins};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public REVOKE ALL ON TABLES FROM {logins};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public REVOKE ALL ON SEQUENCES FROM {logins};
{rights}

-- The bookkeeping of migrations is only read by others.
{cleandoc(history.READ_ONLY_FOR_OTHERS)};
COMMIT;
"""


def _create(names: Names) -> str:
    """Return a statement that creates the roles that are missing.

    Who is no superuser has to be a member of the owner, to give objects to it and to set its default
    privileges; who has made a role may make itself a member.
    """
    return f"""\
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{", ".join(map(_literal, names.all))}]::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I', wanted);
        END IF;
    END LOOP;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT %I TO %I', {_literal(names.owner)}, current_user);
    END IF;
END
$$;"""


def _open_database(names: Names) -> str:
    logins = ", ".join(map(_literal, names.all[1:]))
    return f"""\
DO $$
DECLARE
    login name;
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), {_literal(names.owner)});
    FOREACH login IN ARRAY ARRAY[{logins}]::name[] LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
        EXECUTE format('REVOKE CREATE ON DATABASE %I FROM %I', current_database(), login);
    END LOOP;
END
$$;"""


# Tables, sequences that no column owns, types and functions, each with the words that name it in ALTER. What
# belongs to an extension, and row types and array types, go with what they are part of.
_OBJECTS = """
    SELECT c.oid AS oid, 'pg_class'::regclass AS catalog, c.relowner AS owner, c.relname::text AS name,
           'TABLE ' || c.oid::regclass AS words
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND c.relkind = 'S' AND d.deptype IN ('a', 'i'))
    UNION ALL
    SELECT t.oid, 'pg_type'::regclass, t.typowner, t.typname::text, 'TYPE ' || t.oid::regtype
    FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typcategory <> 'A'
      AND (t.typrelid = 0 OR (SELECT relkind FROM pg_catalog.pg_class WHERE oid = t.typrelid) = 'c')
    UNION ALL
    SELECT p.oid, 'pg_proc'::regclass, p.proowner, p.proname::text, 'ROUTINE ' || p.oid::regprocedure
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'public'::regnamespace"""
_OWN_OBJECTS = f"""
    SELECT o.* FROM ({_OBJECTS}
    ) AS o
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                      WHERE e.classid = o.catalog AND e.objid = o.oid AND e.deptype = 'e')"""


def _take_over(owner: str) -> str:
    return f"""\
DO $$
DECLARE
    object record;
BEGIN
    FOR object IN {_OWN_OBJECTS}
      AND pg_get_userbyid(o.owner) <> {_literal(owner)}
    LOOP
        EXECUTE format('ALTER %s OWNER TO %I', object.words, {_literal(owner)});
    END LOOP;
END
$$;"""


def check(settings: Settings, names: Names) -> tuple[Finding, ...]:
    """Compare the set-up of the configured database with what :func:`script` makes.

    :returns: what is missing first, then what is too much; nothing when all is well.
    """
    with postgres.closing(Database.of(settings).connect()) as connection:
        found = [
            *_attributes(connection, names),
            *_memberships(connection, names),
            *_owned(connection, names),
            *_held(connection, names),
            *_defaults(connection, names),
        ]
    return tuple(sorted(found, key=lambda finding: finding.kind))


def _attributes(connection: Connection, names: Names) -> Iterator[Finding]:
    rows = _rows(
        connection,
        f"""
        SELECT rolname, rolcanlogin, rolinherit, rolsuper, {", ".join(_BEYOND)}
        FROM pg_catalog.pg_roles WHERE rolname = ANY (%s)
        """,
        (names.all,),
    )
    for role in set(names.all) - {row[0] for row in rows}:
        yield Finding(MISSING, role, "does not exist")
    for role, can_login, inherits, superuser, *beyond in rows:
        if can_login and role == names.owner:
            yield Finding(TOO_MUCH, role, "can log in")
        if not can_login and role != names.owner:
            yield Finding(MISSING, role, "cannot log in")
        if inherits and role == names.migrator:
            yield Finding(TOO_MUCH, role, "has the rights of the owner without SET ROLE (INHERIT)")
        if superuser:
            yield Finding(TOO_MUCH, role, "is a superuser")
        for attribute in (name for name, held in zip(_BEYOND.values(), beyond, strict=True) if held):
            yield Finding(TOO_MUCH, role, f"has {attribute}")


def _memberships(connection: Connection, names: Names) -> Iterator[Finding]:
    set_role = "SET" if connection.server_version >= 160000 else "MEMBER"
    for role, of, how, what in (
        (names.migrator, names.owner, set_role, f"may not act as {names.owner}"),
        (names.owner, "pg_read_all_stats", "USAGE", "is no member of pg_read_all_stats"),
    ):
        if _exist(connection, role, of) and not scalar(
            connection, "SELECT pg_has_role(%s, %s, %s)", (role, of, how)
        ):
            yield Finding(MISSING, role, what)
    rows = _rows(
        connection,
        """
        SELECT DISTINCT pg_get_userbyid(member), pg_get_userbyid(roleid)
        FROM pg_catalog.pg_auth_members
        WHERE pg_get_userbyid(member) = ANY (%s)
        ORDER BY 1, 2
        """,
        (names.all,),
    )
    for role, of in rows:
        if (role, of) not in ((names.migrator, names.owner), (names.owner, "pg_read_all_stats")):
            yield Finding(TOO_MUCH, role, f"is a member of {of}")


def _owned(connection: Connection, names: Names) -> Iterator[Finding]:
    for words, owner in _rows(
        connection,
        f"SELECT words, pg_get_userbyid(owner) FROM ({_OWN_OBJECTS}) AS o WHERE pg_get_userbyid(owner) <> %s "
        "ORDER BY 1",
        (names.owner,),
    ):
        kind, _, name = words.partition(" ")
        yield Finding(MISSING, names.owner, f"does not own the {kind.lower()} {name}, which is {owner}'s")


def _held(connection: Connection, names: Names) -> Iterator[Finding]:
    """Compare rights on what is there. What a superuser may do says nothing."""
    rows = _rows(
        connection,
        """
        WITH objects AS (
            SELECT 'database' AS kind, datname::text AS name, oid
            FROM pg_catalog.pg_database WHERE datname = current_database()
            UNION ALL
            SELECT 'schema', 'public', 'public'::regnamespace
            UNION ALL
            SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname, oid
            FROM pg_catalog.pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                              WHERE e.classid = 'pg_class'::regclass AND e.objid = pg_class.oid
                                AND e.deptype = 'e')
        )
        SELECT r.rolname, o.kind, o.name,
               array_agg(p.privilege) FILTER (WHERE CASE o.kind
                   WHEN 'database' THEN has_database_privilege(r.oid, o.oid, p.privilege)
                   WHEN 'schema' THEN has_schema_privilege(r.oid, o.oid, p.privilege)
                   WHEN 'sequence' THEN has_sequence_privilege(r.oid, o.oid, p.privilege)
                   ELSE has_table_privilege(r.oid, o.oid, p.privilege) END)
        FROM objects AS o
        JOIN (VALUES ('database', 'CREATE'), ('database', 'CONNECT'), ('schema', 'CREATE'),
                     ('schema', 'USAGE'), ('sequence', 'USAGE'), ('sequence', 'SELECT'),
                     ('sequence', 'UPDATE'), ('table', 'SELECT'), ('table', 'INSERT'), ('table', 'UPDATE'),
                     ('table', 'DELETE'), ('table', 'TRUNCATE'), ('table', 'REFERENCES'),
                     ('table', 'TRIGGER')) AS p (kind, privilege) USING (kind)
        CROSS JOIN pg_catalog.pg_roles AS r
        WHERE r.rolname = ANY (%s) AND NOT r.rolsuper
        GROUP BY r.rolname, o.kind, o.name
        ORDER BY r.rolname, o.kind, o.name
        """,
        (names.all,),
    )
    for role, kind, name, held in rows:
        if role == names.owner and kind in ("table", "sequence"):
            continue
        # Everybody may connect, and use the schema, unless somebody has taken that away.
        usual = {"database": {"CONNECT"}, "schema": {"USAGE"}}.get(kind, set())
        yield from _compared(
            role, f"on {kind} {name}", names.rights(role, kind, name), set(held or ()), usual
        )


def _defaults(connection: Connection, names: Names) -> Iterator[Finding]:
    """Compare rights on what future revisions will make."""
    rows = _rows(
        connection,
        """
        SELECT pg_get_userbyid(a.grantee), CASE d.defaclobjtype WHEN 'r' THEN 'table' ELSE 'sequence' END,
               a.privilege_type
        FROM pg_catalog.pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
        WHERE pg_get_userbyid(d.defaclrole) = %s AND d.defaclobjtype IN ('r', 'S')
          AND d.defaclnamespace IN (0, 'public'::regnamespace)
        """,
        (names.owner,),
    )
    for role in names.all[1:]:
        if not _exist(connection, role, names.owner):
            continue
        for kind in ("table", "sequence"):
            held = {privilege for grantee, of, privilege in rows if (grantee, of) == (role, kind)}
            where = f"on the {kind}s of future revisions"
            yield from _compared(role, where, names.rights(role, kind), held, set())


def _compared(role: str, where: str, wanted: set[str], held: set[str], usual: set[str]) -> Iterator[Finding]:
    if missing := sorted(wanted - held):
        yield Finding(MISSING, role, f"lacks {', '.join(missing)} {where}")
    if beyond := sorted(held - wanted - usual):
        yield Finding(TOO_MUCH, role, f"has {', '.join(beyond)} {where}")


def _exist(connection: Connection, *roles: str) -> bool:
    return all(
        scalar(connection, "SELECT to_regrole(quote_ident(%s)) IS NOT NULL", (role,)) for role in roles
    )


def _rows(connection: Connection, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
