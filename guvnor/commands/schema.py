"""``guvnor schema``: what its commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.config import Settings
from guvnor.database import Database, local_server
from guvnor.revisions import check as revision_check, sql_revisions
from guvnor.revisions.files import configuration_file
from guvnor.revisions.script import script_directory
from guvnor.revisions.sql_revisions import SqlRevisions
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport
from guvnor.schema.reading import read_live_schema
from guvnor.schema.snapshot import Object

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def check(settings: Settings, *, against_models: bool) -> DriftReport:
    """Compare the database with its revision, or with the models.

    Without a configured database, the revisions are compared with the models on the local server.

    :raises RevisionFilesError: when a revision file cannot be run.
    """
    configuration = configuration_file()
    revisions: SqlRevisions | ScriptDirectory
    try:  # without Alembic where that is enough: importing it takes longer than a check
        revisions = sql_revisions.read(configuration)
    except sql_revisions.NeedsAlembicError:
        revisions = script_directory(configuration)
        revision_check.load_files(revisions)
    if not settings.storage_dsn and settings.storage_type == "postgres":
        return drift.check_files(Database(local_server()), revisions, GUVNOR.load_metadata())
    models = GUVNOR.load_metadata() if against_models else None
    return drift.check(Database.of(settings), revisions, models=models)


def objects(settings: Settings) -> list[Object]:
    """Return every object of the database's schema, sorted by kind and name."""
    with postgres.closing(Database.of(settings).connect()) as connection:
        found, _ = read_live_schema(connection)
    return sorted(found.without(settings.schema_ignore), key=lambda item: (item.kind, item.identity))
