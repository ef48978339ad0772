"""``guvnor schema``: what its commands do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg2

from guvnor import postgres
from guvnor.application import GUVNOR
from guvnor.bookkeeping import consistency, state
from guvnor.bookkeeping.patience import BookkeepingBusyError
from guvnor.config import Settings, seconds
from guvnor.database import Database, local_server
from guvnor.errors import ConfigurationError
from guvnor.revisions import check as revision_check, sql_revisions
from guvnor.revisions.files import configuration_file
from guvnor.revisions.script import read_revisions, script_directory
from guvnor.revisions.sql_revisions import SqlRevisions
from guvnor.schema import drift
from guvnor.schema.drift import DriftReport
from guvnor.schema.inheritance import own_objects
from guvnor.schema.reading import LOCK_TIMEOUT, read_live_schema
from guvnor.schema.snapshot import Object

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


NO_DATABASE = (
    "no database is configured, so none is checked: the revisions are compared with the models, on the local "
    "server"
)


def has_no_database(settings: Settings) -> bool:
    """Tell whether the configuration names no database."""
    return not settings.storage_dsn and settings.storage_type == "postgres"


def check_person_asks(*, asked: bool, terminal: bool) -> None:
    """Let a comparison without a database pass only for a person: a job may have lost its connection string.

    :param asked: whether the comparison of a database with its revision was asked for by name.
    :raises ConfigurationError: otherwise (exit code 2).
    """
    if asked or not terminal:
        raise ConfigurationError(
            "No database is configured, so there is none to compare with its revision.",
            next_step="export GUVNOR_STORAGE_DSN='postgres://USER:PASSWORD@HOST:5432/DATABASE'\n"
            "guvnor schema check --against models   # compares the revisions with the models instead",
        )


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
    if has_no_database(settings):
        return drift.check_files(Database(local_server()), revisions, GUVNOR.load_metadata())
    database = Database.of(settings)
    if against_models:
        return drift.check(database, revisions, models=GUVNOR.load_metadata())
    _check_agreement(database)
    return drift.check(database, revisions, kept=GUVNOR.extensions)


def _check_agreement(database: Database) -> None:
    """Check that it is known which revision the database should be compared with.

    :raises StateError: when the version tables disagree (exit code 5).
    """
    unreadable = (psycopg2.errors.InsufficientPrivilege, BookkeepingBusyError)
    with (
        postgres.closing(database.connect("schema check")) as connection,
        contextlib.suppress(*unreadable),  # the comparison says so, if it needs the same
    ):
        current = state.read(connection, max_wait=seconds(LOCK_TIMEOUT))
        if current.alembic is None or current.dirty or current.agreed:
            return
        files = read_revisions()
        if consistency.is_ahead(current, files) and current.number <= files[-1].number:
            raise consistency.ahead_error(current, files)
        consistency.check_agreement(current, files)


def objects(settings: Settings) -> list[Object]:
    """Return every object of the database's schema that is not inherited, sorted by kind and name."""
    with postgres.closing(Database.of(settings).connect()) as connection:
        found, _ = read_live_schema(connection)
    return sorted(
        own_objects(found.without(settings.schema_ignore)), key=lambda item: (item.kind, item.identity)
    )
