"""The pre-flight check of what a role may do: create tables, act as their owner, create extensions."""

from __future__ import annotations

from guvnor import postgres
from guvnor.bookkeeping import state, tables
from guvnor.errors import PreflightError
from guvnor.migrate import role_warnings
from guvnor.postgres import Connection, Identity, rows, scalar
from guvnor.postgres.membership import instead_of_a_grant
from guvnor.project import Project


class PermissionDeniedError(PreflightError):
    """The role may not do what a migration needs."""

    def __init__(self, what: str, *, next_step: str) -> None:
        """Say what is denied, after the words that users know."""
        super().__init__(f"failed to create migrator: permission denied: {what}", next_step=next_step)


def check(connection: Connection, identity: Identity, project: Project) -> tuple[str, ...]:
    """Check that a role may do what a migration needs.

    :returns: warnings of what does not stop a migration.
    :raises PermissionDeniedError: when the role may not.
    """
    role = identity.role
    grantee = postgres.quote_ident(connection, role)
    if not scalar(connection, "SELECT to_regnamespace('public') IS NOT NULL"):
        raise PreflightError("The schema public does not exist.", next_step="CREATE SCHEMA public;")
    may_create = scalar(connection, "SELECT has_schema_privilege('public', 'CREATE')")
    may_use = scalar(connection, "SELECT has_schema_privilege('public', 'USAGE')")
    if not (may_create and may_use):
        grant = f"GRANT USAGE, CREATE ON SCHEMA public TO {grantee};   -- as the owner of the schema"
        raise PermissionDeniedError(
            f"role {role} may not create tables in schema public.",
            next_step=instead_of_a_grant(connection) or grant,
        )
    with connection.cursor() as cursor:
        kept = [f"public.{name}" for name in tables.existing(cursor)]
    owner = scalar(
        connection,
        """
        SELECT pg_get_userbyid(relowner)
        FROM pg_catalog.pg_class
        WHERE oid = ANY (%s::regclass[]) AND NOT pg_has_role(relowner, 'USAGE')
        LIMIT 1
        """,
        (kept,),
    )
    if owner:
        grant = f"GRANT {postgres.quote_ident(connection, owner)} TO {grantee};"
        raise PermissionDeniedError(
            f"the tables belong to {owner}, and role {role} may not act as it.",
            next_step=instead_of_a_grant(connection, owner) or grant,
        )
    return (
        role_warnings.hidden_rows(connection)
        + role_warnings.hidden_waits(connection)
        + _extensions(connection, identity, project)
    )


def _extensions(connection: Connection, identity: Identity, project: Project) -> tuple[str, ...]:
    """Check that the revisions can create their extensions, if no revision has run yet."""
    if not project.extensions:
        return ()
    with connection.cursor() as cursor:
        if state.recorded_version(cursor) is not None:
            return ()
    absent = rows(
        connection,
        """
        SELECT wanted.name, wanted.name IN (SELECT name FROM pg_catalog.pg_available_extensions)
        FROM unnest(%s::text[]) AS wanted (name)
        WHERE wanted.name NOT IN (SELECT extname FROM pg_catalog.pg_extension)
        """,
        (list(project.extensions),),
    )
    may_create = scalar(connection, "SELECT has_database_privilege(current_database(), 'CREATE')")
    missing = [name for name, available in absent if available and not may_create]
    if missing:
        role, database = (postgres.quote_ident(connection, n) for n in (identity.role, identity.database))
        grant = f"GRANT CREATE ON DATABASE {database} TO {role};\n" + "\n".join(
            f'CREATE EXTENSION "{name}";   -- or have a superuser run this' for name in missing
        )
        raise PermissionDeniedError(
            f"role {identity.role} may not create the extension{'s' if len(missing) > 1 else ''} "
            f"{' and '.join(missing)} in database {identity.database}.",
            next_step=instead_of_a_grant(connection) or grant,
        )
    return tuple(
        f"extension {name} is not available: {project.extensions[name]}"
        for name, available in absent
        if not available
    )
