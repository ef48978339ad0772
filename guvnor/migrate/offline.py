"""``alembic upgrade --sql``: the revisions as a script for psql that leaves the same state as a run."""

from __future__ import annotations

from functools import partial
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep

from guvnor import __version__
from guvnor.bookkeeping import tables
from guvnor.postgres import settings
from guvnor.revisions import escaped_colons
from guvnor.revisions.identifiers import number


def write(context: Any, *, golang_migrate: bool, keep: tuple[str, ...] = ()) -> None:
    """Write the script.

    :param context: the module ``alembic.context``, in offline mode.
    :param golang_migrate: whether golang-migrate's table is kept in step.
    :param keep: names of settings that stay as the server has them.
    :raises RevisionFilesError: when a revision cannot be applied as it is (exit code 3).
    """
    context.configure(
        dialect_name="postgresql",
        # "named" keeps the driver's doubling of percent signs out of the script.
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        transaction_per_migration=True,
        on_version_apply=partial(_version_applied, golang_migrate=golang_migrate),
    )
    migration = context.get_context()
    escaped_colons.check(context.script, _applied(migration))
    migration.impl.static_output(settings.script(keep))
    for statement in ((tables.CREATE_SCHEMA_MIGRATIONS,) if golang_migrate else ()) + tables.CREATE_HISTORY:
        migration.impl.execute(statement.strip())
    with context.begin_transaction():
        context.run_migrations()


def _applied(migration: MigrationContext) -> list[str]:
    """Return the revisions that the script will apply."""
    find = migration.opts["fn"] if "destination_rev" in migration.opts else lambda *_: ()
    steps = find(migration.get_current_heads(), migration)
    return [step.revision.revision for step in steps if isinstance(step, RevisionStep) and step.is_upgrade]


# On a database at another version, Alembic's own UPDATE of alembic_version changes nothing, without an error.
_STARTS_FROM = """DO $$
DECLARE
    at bigint DEFAULT (SELECT max(version) FROM schema_migrations);
BEGIN
    IF COALESCE(at, 0) <> {0} THEN
        RAISE EXCEPTION USING MESSAGE =
            concat('this script starts from version {0}, the database is at version ', at);
    END IF;
END
$$"""


def _version_applied(ctx: MigrationContext, step: MigrationInfo, *, golang_migrate: bool, **_: Any) -> None:
    """Write golang-migrate's row and the history beside Alembic's version."""
    target = number(step.destination_revision_ids[0] if step.destination_revision_ids else None)
    source = number(step.source_revision_ids[0] if step.source_revision_ids else None)
    direction = "stamp" if step.is_stamp else ("up" if step.is_upgrade else "down")
    statements = []
    if golang_migrate:
        statements += [] if step.is_stamp else [_STARTS_FROM.format(source)]
        statements.append("DELETE FROM schema_migrations")
        if target:
            statements.append(f"INSERT INTO schema_migrations (version, dirty) VALUES ({target}, false)")
    revision = target if direction != "down" else source
    statements.append(
        "WITH attempt AS (SELECT gen_random_uuid() AS number)\n"
        "INSERT INTO guvnor_migration_history (attempt, event, direction, revision, from_version, "
        "to_version, tool)\n"
        f"SELECT number, event, '{direction}', '{revision:03d}', "
        f"{_literal(source)}, {_literal(target)}, 'guvnor {__version__} (offline)'\n"
        "FROM attempt, unnest(ARRAY['started', 'succeeded']) WITH ORDINALITY AS e (event, position) ORDER "
        "BY position"
    )
    for statement in statements:
        ctx.impl.execute(statement)


def _literal(version: int) -> str:
    return f"'{version:03d}'" if version else "NULL"
