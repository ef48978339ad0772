"""Which parts of an interrupted revision are in the database, and which are missing."""

from __future__ import annotations

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from guvnor import postgres
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError
from guvnor.migrate import leftovers, repair
from guvnor.revisions import check
from guvnor.revisions.files import configuration_file
from guvnor.revisions.script import read_revisions, script_directory
from guvnor.schema import drift, root_causes, shadow
from guvnor.schema.reading import read_live_schema
from guvnor.schema.snapshot import Object, Snapshot


def describe(settings: Settings, state: State) -> tuple[str, ...]:
    """Say in a few lines what of an interrupted revision is in the database, and which writes that refuses.

    :returns: nothing of what is unknown: the expected schema cannot be built, or the revision is not known.
    """
    return (*_objects(settings, state), *_refused(settings))


def _refused(settings: Settings) -> tuple[str, ...]:
    """Say which writes are refused or slower until the revision is finished or undone."""
    try:
        with postgres.closing(Database.of(settings).connect("diagnosis")) as connection:
            found, queries = leftovers.read(connection), leftovers.queries(connection)
    except (GuvnorError, psycopg2.Error):
        return ()
    refused = (f"   Until it is finished or undone, {'; '.join(found)}.",) if found else ()
    return (*refused, *(f"     {query}" for query in queries))


def _objects(settings: Settings, state: State) -> tuple[str, ...]:
    """Say which objects that an interrupted revision creates are in the database, and which are missing.

    :returns: nothing where the state is not dirty; see :func:`parts`.
    """
    try:
        choice = repair.choose(state, read_revisions(), "as-is")
    except GuvnorError:
        return ()  # the state itself is what has to be told
    return parts(settings, choice.revision) if choice else ()


def parts(settings: Settings, revision: str) -> tuple[str, ...]:
    """Say in a few lines which parts of a revision are in the database, and which are missing.

    Only the objects that the revision creates count.

    :returns: nothing where the expected schema cannot be built, or the revision is not known.
    """
    try:
        script = script_directory(configuration_file())
        check.load_files(script)
        before = script.get_revision(revision).down_revision
        database = Database.of(settings)
        with postgres.closing(database.connect("diagnosis")) as connection:
            live, _ = read_live_schema(connection)
        with postgres.closing(database.shadow.connect("shadow")) as connection:
            older = drift.expected_at(connection, script, before if isinstance(before, str) else None)
            with shadow.build(connection, shadow.from_revisions(script, revision)) as built:
                newer = built.snapshot()
                found = root_causes.trace(
                    built, live, grantees=settings.schema_grantees, ignore=settings.schema_ignore
                )
    except (GuvnorError, psycopg2.Error, SQLAlchemyError):
        return ()  # the state itself is what has to be told
    new = (item for key, item in newer.objects.items() if key not in older.objects)
    own = {item.handle: item for item in new if not item.inherited_from}
    different = {finding.object for finding in found.findings if finding.change == "different"}
    lines = (f"     {how}: {_short(names)}" for how, names in _sorted(own, live, different).items() if names)
    return (f"   Of revision {revision}:", *lines)


def _sorted(own: dict[str, Object], live: Snapshot, different: set[str]) -> dict[str, list[str]]:
    """Sort the objects by how the database has them; a table stands for what belongs to it.

    :param different: those that differ; an index whose build was interrupted is one of them.
    """
    in_place, missing, wrong = [], [], []
    for item in own.values():
        tables = [own[parent] for parent in item.parents if parent in own and parent.startswith("relation:")]
        if item.identity in different:
            wrong.append(str(item))
        elif item.handle in live.objects:
            in_place += [] if tables else [str(item)]
        elif all(table.handle in live.objects for table in tables):
            missing.append(str(item))
    return {"in place": in_place, "missing": missing, "invalid or different": wrong}


def _short(names: list[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + rest
