"""What of an interrupted revision is in the database, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor import postgres
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError
from guvnor.migrate import repair
from guvnor.revisions import check
from guvnor.revisions.files import configuration_file
from guvnor.revisions.script import read_revisions, script_directory
from guvnor.schema import drift, root_causes, shadow
from guvnor.schema.reading import read_live_schema
from guvnor.schema.snapshot import Object, Snapshot


@dataclass(frozen=True)
class Diagnosis:
    """The objects that tell a revision's version from the one before it, by how the database has them.

    :ivar revision: the interrupted revision.
    :ivar in_place: those that are as the revision makes them.
    :ivar missing: those that are not there.
    :ivar different: those that are there and differ; an index whose build broke off is one of them.
    """

    revision: str
    in_place: tuple[str, ...]
    missing: tuple[str, ...]
    different: tuple[str, ...]


def diagnose(settings: Settings, state: State) -> Diagnosis | None:
    """Compare the database with the revision at which a dirty state says that a run stopped.

    :returns: None where the expected schema cannot be built, or the revision is not known.
    """
    try:
        choice = repair.choose(state, read_revisions(), repair.AS_IS)
        if choice is None:
            return None
        script = script_directory(configuration_file())
        check.load(script)
        before = script.get_revision(choice.revision).down_revision
        database = Database.of(settings)
        with postgres.closing(database.connect("diagnosis")) as connection:
            live, _ = read_live_schema(connection)
        with postgres.closing(database.shadow.connect("shadow")) as connection:
            older = drift.expected_at(connection, script, before if isinstance(before, str) else None)
            with shadow.build(connection, shadow.from_revisions(script, choice.revision)) as built:
                newer = built.snapshot()
                findings = root_causes.differences(
                    built, live, grantees=settings.schema_grantees, ignore=settings.schema_ignore
                )
    except GuvnorError:
        return None
    different = {finding.object for finding in findings if finding.change == "different"}
    return _sorted(choice.revision, _own(older, newer), live, different)


def _own(older: Snapshot, newer: Snapshot) -> dict[str, Object]:
    """Return what only the newer schema has."""
    return {key: item for key, item in newer.objects.items() if key not in older.objects}


def _sorted(revision: str, own: dict[str, Object], live: Snapshot, different: set[str]) -> Diagnosis:
    """Sort the objects by how the database has them; a table stands for what belongs to it."""
    in_place, missing, wrong = [], [], []
    for item in own.values():
        tables = [own[parent] for parent in item.parents if parent in own and parent.startswith("relation:")]
        if item.identity in different:
            wrong.append(str(item))
        elif live.get(item.handle) is not None:
            in_place += [] if tables else [str(item)]
        elif all(live.get(table.handle) is not None for table in tables):
            missing.append(str(item))
    return Diagnosis(revision, *(tuple(sorted(names)) for names in (in_place, missing, wrong)))


def describe(settings: Settings, state: State) -> list[str]:
    """Say in a few lines what of an interrupted revision is in the database, where that can be told."""
    found = diagnose(settings, state) if state.dirty else None
    return lines(found) if found else []


def lines(diagnosis: Diagnosis) -> list[str]:
    """Say in a few lines what is there and what is not."""
    result = [f"   Of revision {diagnosis.revision}:"]
    for words, names in (
        ("in place", diagnosis.in_place),
        ("missing", diagnosis.missing),
        ("invalid or different", diagnosis.different),
    ):
        if names:
            result.append(f"     {words}: {_short(names)}")
    return result


def _short(names: tuple[str, ...], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
