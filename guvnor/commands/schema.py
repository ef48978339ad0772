"""What ``guvnor schema`` calls, a function for a command: values in, values out."""

from __future__ import annotations

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.config import Settings
from guvnor.database import Database, local_server
from guvnor.revisions import check as revision_check
from guvnor.revisions.files import configuration_file
from guvnor.revisions.script import script_directory
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport
from guvnor.schema.live import read_live
from guvnor.schema.snapshot import Object


def check(settings: Settings, *, against_models: bool) -> DriftReport:
    """Compare the database with the revision that it says it is at, or with the models.

    Without a configured database, the revisions are compared with the models on the local server.

    :raises RevisionFilesError: when a revision file cannot be run.
    """
    script = script_directory(configuration_file())
    revision_check.load(script)
    if not settings.dsn and settings.storage_type == "postgres":
        return drift.check_files(Database(local_server()), script, GUVNOR.load_metadata())
    return drift.check(
        Database.of(settings), script, models=GUVNOR.load_metadata() if against_models else None
    )


def objects(settings: Settings) -> list[Object]:
    """Return every object of the database's schema, in the order of kind and name."""
    with postgres.closing(Database.of(settings).connect()) as connection:
        found, _ = read_live(connection)
    return sorted(found.without(settings.ignore), key=lambda item: (item.kind, item.identity))
