"""The check of a live database against what it should be. It changes nothing and leaves no trace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, closing
from guvnor.postgres.quoting import identifier
from guvnor.revisions.sql_revisions import SqlRevisions
from guvnor.schema import root_causes, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.partitions import Partition
from guvnor.schema.reading import LiveReader, live_reader
from guvnor.schema.shadow import Make, Shadow
from guvnor.schema.shadow_errors import ShadowUnavailableError
from guvnor.schema.snapshot import Snapshot, handle

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy import MetaData


class DriftError(GuvnorError):
    """The schema is not what it should be."""

    exit_code = ExitCode.DRIFT

    def __init__(self, message: str, report: DriftReport, *, state: str, next_step: str) -> None:
        """Take what the comparison found."""
        super().__init__(message, state=state, next_step=next_step)
        self.report = report


@dataclass(frozen=True)
class DriftReport:
    """What a check found.

    :ivar expected: what was expected, in words: ``revision 002`` or ``the models``.
    :ivar actual: what was compared with it, in words.
    :ivar findings: the differences, in the order of a report; none when all is well.
    :ivar seconds: how long it took.
    :ivar partitions: those that the expected schema does not know; they are no difference.
    """

    expected: str
    actual: str
    findings: tuple[Finding, ...]
    seconds: float
    partitions: tuple[Partition, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there is no difference."""
        return not self.findings


def check(
    database: Database,
    revisions: SqlRevisions | ScriptDirectory,
    *,
    revision: str | None = None,
    models: MetaData | None = None,
    kept: Collection[str] = (),
) -> DriftReport:
    """Compare a live database with the revision that it says it is at.

    The expected schema is built while the live one is being read.

    :param database: the live one; a role that may only read is enough where it names a shadow database.
    :param revisions: the revision files, as SQL where they consist of it, else as Alembic reads them.
    :param revision: the revision to compare with instead of the recorded one; ``base`` for none.
    :param models: compare with this metadata instead of a revision.
    :param kept: the extensions that stay when all revisions have been rolled back.
    :raises LiveSchemaError: when the live schema cannot be read.
    :raises ShadowError: when the expected schema cannot be built.
    """
    began = time.monotonic()
    with live_reader(database) as live:
        target, ignore = revision or live.recorded, database.ignore
        if models is not None:
            make, expected = shadow.from_models(models), "the models"
        else:
            make = shadow.from_revisions(revisions, target)
            expected = f"revision {target}"
            if target is None or target == "base":
                expected, ignore = "an empty database", (*ignore, *map(_extension, kept))
        with built_alongside(live, database.shadow, make) as built:
            found = root_causes.trace(built, live.schema(), grantees=database.grantees, ignore=ignore)
        name = f"database {live.connection.info.dbname}"
    seconds = time.monotonic() - began
    return DriftReport(expected, name, tuple(found.all_findings), seconds, found.partitions)


def _extension(name: str) -> str:
    """Return the pattern that names an extension."""
    return handle("extension", identifier(name))


@contextlib.contextmanager
def built_alongside(live: LiveReader, shadow_database: Database, make: Make) -> Iterator[Shadow]:
    """Build the expected schema on a connection of its own, while the live one is being read.

    :param shadow_database: where it is built.
    :raises ShadowUnavailableError: when its server has another major version.
    """
    with closing(shadow_database.connect("schema shadow")) as side:
        there, here = (session.server_version // 10000 for session in (live.connection, side))
        if there != here:
            raise ShadowUnavailableError(
                f"The shadow server is PostgreSQL {here}, the database is on {there}: they print some "
                "expressions differently, so both must be of one major version."
            )
        with shadow.build(side, make) as built:
            yield built


def check_files(
    scratch_database: Database, revisions: SqlRevisions | ScriptDirectory, models: MetaData
) -> DriftReport:
    """Compare what the revisions make with what the models say; no database with data is needed.

    :param scratch_database: on any server; nothing in it is read or changed.
    """
    began = time.monotonic()
    head = revisions.head if isinstance(revisions, SqlRevisions) else revisions.get_current_head()
    with closing(scratch_database.connect("schema check")) as scratch:
        actual = expected_at(scratch, revisions, head)
        with shadow.build(scratch, shadow.from_models(models)) as built:
            found = root_causes.trace(built, actual)
    seconds = time.monotonic() - began
    return DriftReport("the models", f"revision {head}", tuple(found.all_findings), seconds, found.partitions)


def expected_at(
    connection: Connection, revisions: SqlRevisions | ScriptDirectory, revision: str | None
) -> Snapshot:
    """Return what a revision makes of an empty database.

    :param connection: outside of a transaction; see :func:`guvnor.schema.shadow.build`.
    """
    with shadow.build(connection, shadow.from_revisions(revisions, revision)) as built:
        return built.snapshot()
