"""The check of a live database against what it should be. It changes nothing and leaves no trace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import MetaData

from guvnor.database import Database
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, closing
from guvnor.schema import root_causes, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.live import CheckError, Reading, reading
from guvnor.schema.shadow import Shadow, ShadowUnavailableError
from guvnor.schema.snapshot import Snapshot


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
    :ivar actual: what was looked at, in words.
    :ivar findings: the differences, in the order of a report; none when all is well.
    :ivar seconds: how long it took.
    """

    expected: str
    actual: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether there is no difference."""
        return not self.findings


def check(
    database: Database,
    script: ScriptDirectory,
    *,
    revision: str | None = None,
    models: MetaData | None = None,
) -> DriftReport:
    """Compare a live database with the revision that it says it is at.

    The expected schema is built while the live one is being read.

    :param database: the live one; a role that may only read is enough where it names a shadow server.
    :param script: the revision files.
    :param revision: the revision to compare with in place of the recorded one; ``base`` for none.
    :param models: compare with this metadata in place of a revision.
    :raises CheckError: when the live schema cannot be read; see :mod:`guvnor.schema.live`.
    :raises ShadowError: when the expected schema cannot be built.
    """
    began = time.monotonic()
    with reading(database) as live:
        target = revision or live.recorded()
        make = shadow.from_models(models) if models is not None else _revisions(script, target)
        with beside(live, database.shadow, make) as built:
            findings = root_causes.differences(
                built, live.schema(), grantees=database.grantees, ignore=database.ignore
            )
        name = f"database {live.connection().info.dbname}"
    return DriftReport(_expected(models, target), name, tuple(findings), time.monotonic() - began)


@contextlib.contextmanager
def beside(live: Reading, shadow_database: Database, make: Callable[[Shadow], None]) -> Iterator[Shadow]:
    """Build the expected schema on a connection of its own, while the live one is being read.

    :param shadow_database: where it is built.
    :raises ShadowUnavailableError: when that is a server of another major version.
    """
    with closing(shadow_database.connect("schema shadow")) as side:
        _same_major(live.connection(), side)
        with shadow.build(side, make) as built:
            yield built


def check_files(scratch_database: Database, script: ScriptDirectory, models: MetaData) -> DriftReport:
    """Compare what the revisions make with what the models say; no database of one's own is needed.

    :param scratch_database: of any server; nothing in it is read or changed.
    """
    began = time.monotonic()
    with closing(scratch_database.connect("schema check")) as scratch:
        with shadow.build(scratch, shadow.from_revisions(script, script.get_current_head())) as built:
            actual = built.snapshot()
        with shadow.build(scratch, shadow.from_models(models)) as built:
            findings = root_causes.differences(built, actual)
    head = script.get_current_head()
    return DriftReport("the models", f"revision {head}", tuple(findings), time.monotonic() - began)


def expected_at(connection: Connection, script: ScriptDirectory, revision: str | None) -> Snapshot:
    """Return what a revision makes of an empty database.

    :param connection: outside of a transaction; see :func:`guvnor.schema.shadow.build`.
    """
    with shadow.build(connection, _revisions(script, revision)) as built:
        return built.snapshot()


def _revisions(script: ScriptDirectory, revision: str | None) -> Callable[[Shadow], None]:
    if revision in (None, "base"):
        return shadow.from_revisions(script, None)
    try:
        known = script.get_revision(revision or "")
    except (CommandError, ResolutionError):
        known = None
    if known is None:
        raise CheckError(
            f"There is no file of revision {revision}: what the database should be cannot be told.",
            next_step="guvnor version   # is this the release that migrated the database?",
        )
    return shadow.from_revisions(script, known.revision)


def _same_major(live: Connection, side: Connection) -> None:
    """Check that two servers print alike.

    :raises ShadowUnavailableError: when they are of different major versions.
    """
    if side.server_version // 10000 != live.server_version // 10000:
        raise ShadowUnavailableError(
            f"The shadow server is PostgreSQL {side.server_version // 10000}, the database is on "
            f"{live.server_version // 10000}: they print some "
            "expressions differently, so both must be of one major."
        )


def _expected(models: MetaData | None, revision: str | None) -> str:
    if models is not None:
        return "the models"
    return f"revision {revision}" if revision and revision != "base" else "an empty database"
