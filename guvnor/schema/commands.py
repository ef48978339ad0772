"""What ``guvnor schema`` calls, a function for a command: values in, values out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guvnor import postgres
from guvnor.config import Settings
from guvnor.migrate import preflight, sql_revisions
from guvnor.migrate.commands import script_directory
from guvnor.migrate.revisions import configuration_file
from guvnor.migrate.sql_revisions import SqlRevisions
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport
from guvnor.schema.reading import read_live_schema
from guvnor.schema.snapshot import Object

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy import MetaData


def check(settings: Settings, *, against_models: bool) -> DriftReport:
    """Compare the database with the revision that it says it is at, or with the models.

    Without a configured database, the revisions are compared with the models on the local server.

    :raises RevisionFilesError: when a revision file cannot be run.
    """
    revisions = _read_revisions(configuration_file())
    if not settings.dsn and settings.storage_type == "postgres":
        return drift.check_files(postgres.local_server(), revisions, _models())
    return drift.check(
        postgres.connection_string(settings),
        revisions,
        models=_models() if against_models else None,
        shadow_dsn=settings.shadow_dsn or None,
        grantees=settings.grantees,
        ignore=settings.ignore,
    )


def _read_revisions(configuration: Path) -> SqlRevisions | ScriptDirectory:
    """Read the revision files, without Alembic where that is enough: importing it takes longer than a check.

    :raises RevisionFilesError: when a revision file cannot be run.
    """
    try:
        return sql_revisions.read(configuration)
    except sql_revisions.NeedsAlembicError:
        script = script_directory(configuration)
        preflight.load(script)
        return script


def _models() -> MetaData:
    """Return the models, which take time to import."""
    from guvnor.models import metadata

    return metadata


def objects(settings: Settings) -> list[Object]:
    """Return every object of the database's schema, in the order of kind and name."""
    with postgres.closing(postgres.connect(postgres.connection_string(settings))) as connection:
        found, _ = read_live_schema(connection)
    return sorted(found.without(settings.ignore), key=lambda item: (item.kind, item.identity))
