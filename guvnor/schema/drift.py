"""The check of a live database against what it should be. It changes nothing and leaves no trace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg2
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from psycopg2 import errorcodes
from sqlalchemy import MetaData

from guvnor.errors import GuvnorError
from guvnor.postgres import Connection, closing, connect
from guvnor.schema import catalog, settle, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.shadow import Shadow, ShadowUnavailableError
from guvnor.schema.snapshot import Snapshot

# A read waits only for an ACCESS EXCLUSIVE lock, and nobody but its holder's kind waits behind it.
_LOCK_TIMEOUT = "2s"
_TRIES = 3


class CheckError(GuvnorError):
    """The live schema could not be read."""

    exit_code = 3
    state = "The database is unchanged."
    next_step = "guvnor migrate preflight"


class BusyError(CheckError):
    """The live schema could not be read: a statement holds a table under ACCESS EXCLUSIVE."""

    exit_code = 7
    next_step = "guvnor schema check   # again, when it is over"


class DriftError(GuvnorError):
    """The schema is not what it should be."""

    exit_code = 6

    def __init__(self, message: str, report: Report, *, state: str, next_step: str) -> None:
        """Take what the comparison found."""
        super().__init__(message, state=state, next_step=next_step)
        self.report = report


@dataclass(frozen=True)
class Report:
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
    dsn: str,
    script: ScriptDirectory,
    *,
    revision: str | None = None,
    models: MetaData | None = None,
    shadow_dsn: str | None = None,
    grantees: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Report:
    """Compare a live database with the revision that it says it is at.

    :param dsn: of the live database; a role that may only read is enough when ``shadow_dsn`` is given.
    :param script: the revision files.
    :param revision: the revision to compare with in place of the recorded one; ``base`` for none.
    :param models: compare with this metadata in place of a revision.
    :param shadow_dsn: a scratch database of a server of the same major version, where the expected schema is
        built in place of the live one.
    :param grantees: glob patterns of roles that may hold privileges.
    :param ignore: glob patterns of objects that belong to others.
    :raises CheckError: when the live schema cannot be read.
    :raises ShadowError: when the expected schema cannot be built.
    """
    began = time.monotonic()
    with closing(connect(dsn, purpose="schema check")) as live:
        actual, recorded = read_live(live)
        target = revision or recorded
        make = shadow.from_models(models) if models is not None else _revisions(script, target)
        with beside(live, shadow_dsn) as place, shadow.build(place, make) as built:
            findings = settle.differences(built, actual, grantees=grantees, ignore=ignore)
        name = f"database {live.info.dbname}"
    return Report(_expected(models, target), name, tuple(findings), time.monotonic() - began)


def check_files(scratch_dsn: str, script: ScriptDirectory, models: MetaData) -> Report:
    """Compare what the revisions make with what the models say; no database of one's own is needed.

    :param scratch_dsn: of any server; nothing in it is read or changed.
    """
    began = time.monotonic()
    with closing(connect(scratch_dsn, purpose="schema check")) as scratch:
        with shadow.build(scratch, shadow.from_revisions(script, script.get_current_head())) as built:
            actual = built.snapshot()
        with shadow.build(scratch, shadow.from_models(models)) as built:
            findings = settle.differences(built, actual)
    head = script.get_current_head()
    return Report("the models", f"revision {head}", tuple(findings), time.monotonic() - began)


def expected_at(connection: Connection, script: ScriptDirectory, revision: str | None) -> Snapshot:
    """Return what a revision makes of an empty database.

    :param connection: outside of a transaction; see :func:`guvnor.schema.shadow.build`.
    """
    with shadow.build(connection, _revisions(script, revision)) as built:
        return built.snapshot()


def read_live(connection: Connection) -> tuple[Snapshot, str | None]:
    """Read the live schema and the revision that it says it is at, in one snapshot.

    :param connection: in autocommit mode.
    :returns: the schema, and the revision as ``alembic_version`` says it, else as ``schema_migrations`` does.
    :raises CheckError: when the role may not read the version.
    :raises BusyError: when a table stays locked.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                recorded = _recorded(cursor)
            return catalog.read(connection), recorded
        except psycopg2.errors.LockNotAvailable as error:
            raise BusyError from error
        except psycopg2.errors.InsufficientPrivilege as error:
            raise CheckError(
                f"The live schema could not be read: {error.diag.message_primary}.",
                next_step="GRANT SELECT ON alembic_version, schema_migrations TO ...;",
            ) from error
        except psycopg2.Error as error:
            # An object that another session drops while it is printed: look again.
            if attempt == _TRIES or error.pgcode not in (
                errorcodes.INTERNAL_ERROR,
                errorcodes.UNDEFINED_TABLE,
            ):
                raise
        finally:
            if not connection.closed:
                with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
    raise AssertionError("unreachable")


def _recorded(cursor: psycopg2.extensions.cursor) -> str | None:
    """Read the revision that the database says it is at."""
    cursor.execute(
        "SELECT to_regclass('public.alembic_version') IS NOT NULL, to_regclass('public.schema_migrations') "
        "IS NOT NULL"
    )
    has_alembic, has_golang = cursor.fetchone() or (False, False)
    if has_alembic:
        cursor.execute("SELECT version_num FROM public.alembic_version")
        if row := cursor.fetchone():
            return str(row[0])
    if has_golang:
        cursor.execute("SELECT version FROM public.schema_migrations WHERE version > 0")
        if row := cursor.fetchone():
            return f"{row[0]:03d}"
    return None


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


@contextlib.contextmanager
def beside(live: Connection, shadow_dsn: str | None) -> Iterator[Connection]:
    """Choose where the expected schema is built: on the live database, or on another server.

    :raises ShadowUnavailableError: when the other server prints like another major version.
    """
    if shadow_dsn is None:
        yield live
        return
    with closing(connect(shadow_dsn, purpose="schema shadow")) as side:
        if side.server_version // 10000 != live.server_version // 10000:
            raise ShadowUnavailableError(
                f"The shadow server is PostgreSQL {side.server_version // 10000}, the database is on "
                f"{live.server_version // 10000}: they print some "
                "expressions differently, so both must be of one major."
            )
        yield side


def _expected(models: MetaData | None, revision: str | None) -> str:
    if models is not None:
        return "the models"
    return f"revision {revision}" if revision and revision != "base" else "an empty database"
