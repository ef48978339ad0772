"""``guvnor restore --into``: restores the whole database into a new one, and compares it row by row.

pg_restore works in one transaction: after a failure or a kill the new database is as empty as before, and the
same command begins again. A schema of ours marks it as the restore's until every row has been compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO, cast

import psycopg2
from psycopg2 import errorcodes, extensions

from guvnor import postgres, typed
from guvnor.backup import pg_dump, staged
from guvnor.backup.file import BackupCheckError
from guvnor.backup.opened import Backup
from guvnor.backup.pg_dump import Tools
from guvnor.backup.script import copied
from guvnor.bookkeeping import state
from guvnor.commands.restored import Report, RestoredPart, RestoreError, chunks, failures
from guvnor.config import MASK, Settings
from guvnor.database import Database
from guvnor.errors import PreflightError, last_lines
from guvnor.migrate import guard, heartbeat, locks, signals
from guvnor.migrate.locks import RUN_LOCK, AdvisoryLock
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, row, rows, scalar
from guvnor.postgres.quoting import constant, quoted

_MARK = "guvnor_restoring"
_PROGRAM = "guvnor pg_restore"  # as others see it
_POLL = 0.5  # seconds
_UNDER_WAY = (
    "The configured database is unchanged. The new one is restored in one transaction, then compared: until "
    "the command says that all rows are equal, do not use it."
)
_PATIENCE_WITH_GHOST = 60.0  # seconds

# What a new database does not have, extensions apart.
_OBJECTS = """
SELECT array_agg(name ORDER BY name) FROM (
    SELECT oid::regclass::text FROM pg_catalog.pg_class AS o
    WHERE relnamespace = ANY (%(schemas)s) AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = o.oid AND d.deptype = 'e')
    UNION ALL
    SELECT concat(oid::regproc, '()') FROM pg_catalog.pg_proc AS o
    WHERE pronamespace = ANY (%(schemas)s)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = o.oid AND d.deptype = 'e')
    UNION ALL
    SELECT format_type(oid, NULL) FROM pg_catalog.pg_type AS o
    WHERE typnamespace = ANY (%(schemas)s) AND typtype IN ('e', 'd', 'r')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = o.oid AND d.deptype = 'e')
) AS found (name)
"""
_SCHEMAS = """
SELECT array_agg(oid::bigint) FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', %s)
"""
# The same encoding and locale as the configured database has.
_CREATE = """
SELECT concat(format('CREATE DATABASE %%I', %(name)s::text), owner, ' TEMPLATE template0',
    format(' ENCODING %%L LC_COLLATE %%L LC_CTYPE %%L',
           pg_encoding_to_char(d.encoding), d.datcollate, d.datctype),
    CASE to_jsonb(d) ->> 'datlocprovider'
         WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %%L', locale)
         WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %%L', locale) END)
FROM pg_catalog.pg_database AS d,
     LATERAL (SELECT COALESCE(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) AS l (locale),
     LATERAL (SELECT CASE WHEN %(owned)s THEN format(' OWNER %%I', current_user) END) AS o (owner)
WHERE d.datname = current_database()
"""
# Rows are compared as text, in one session, so no setting matters.
_COMPARE = """
WITH lacking AS (
    SELECT s::text AS line FROM saved AS s EXCEPT ALL
    SELECT t::text FROM (SELECT {columns} FROM ONLY {table}) AS t
)
SELECT saved.rows, live.rows, l.rows, live.rows - (saved.rows - l.rows), l.some
FROM (SELECT count(*) AS rows FROM saved) AS saved, (SELECT count(*) AS rows FROM ONLY {table}) AS live,
     (SELECT count(*) AS rows, (array_agg(left(line, 60)))[1:3] AS some FROM lacking) AS l
"""


class NewDatabaseError(PreflightError):
    """The new database cannot be used."""

    state = "Nothing was restored; nothing was changed."


def restore_whole(
    settings: Settings, backup: Backup, into: str, ask: guard.Ask, report: Report, *, owners: bool
) -> list[RestoredPart]:
    """Restore the whole database into a new one, which is made where the role may do that.

    :param into: the name of the new database, on the server of the configured one.
    :param owners: whether objects get their owners and privileges back.
    :raises NewDatabaseError: when the new database is not empty, or cannot be made (exit code 3).
    :raises RefusedError: when it is production and not confirmed (exit code 4).
    :raises RestoreError: when it fails (exit code 1).
    """
    database = Database.of(settings)
    with signals.interruptible(_UNDER_WAY) as canceller, failures(canceller, _MARK, _UNDER_WAY):
        with postgres.closing(database.connect("restore")) as control:
            canceller.connections.append(control)
            identity, seen = postgres.identify(control), state.read(control, max_wait=settings.max_wait)
            tools = _find_tools(backup, identity.major)
            if owners:
                _check_owners(control, tools, backup)
            details = (f"make database {into} of {backup.path}",)
            hashed = ("restore", backup.sha256, into)
            guard.confirm(settings, ask, identity, seen, guard.RESTORE, seen.version, details, hashed)
            if scalar(control, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (into,)) is None:
                _create(control, into)
        fields = {**postgres.parse(database.dsn), "dbname": into}
        new = replace(database, dsn=extensions.make_dsn(**fields))
        with (
            postgres.closing(new.connect("restore")) as connection,
            postgres.closing(new.connect("restore rows")) as worker,
        ):
            canceller.connections += [connection, worker]
            lock = AdvisoryLock(connection, RUN_LOCK, "another restore")
            lock.take(settings.lock_wait)
            with heartbeat.beating(connection):
                _await_ghost(connection)
                _mark(connection, into, backup)
                if _objects(connection) is None:
                    _run(tools, connection, backup, report, owners=owners)
                with worker.cursor() as cursor:
                    cursor.execute(staged.SETTINGS)
                    locks.mark_revision_session(cursor, scalar(connection, "SELECT pg_backend_pid()"))
                results = list(_compared(tools, worker, backup, report))
                if not any(result.different for result in results):
                    with connection.cursor() as cursor:
                        cursor.execute(f"DROP SCHEMA {_MARK} CASCADE")
            return results


def _find_tools(backup: Backup, major: int) -> Tools:
    """Find a pg_restore that fits the server and can read the archive.

    :raises NewDatabaseError: when there is none.
    """
    printed = ""
    try:
        for tools in pg_dump.fitting_tools(major):
            code, _, printed = _listed(tools, backup)
            if code == 0:
                return tools
    except BackupCheckError as error:
        raise NewDatabaseError(error.message, next_step=error.next_step) from None
    raise NewDatabaseError(
        "No pg_restore that is here can read the backup; the log of the backup names its release:\n"
        f"{printed}",
        next_step="apt-get install postgresql-client-RELEASE\n"
        "export GUVNOR_PG_BIN=DIRECTORY   # the one that holds pg_dump and pg_restore",
    )


def _listed(tools: Tools, backup: Backup) -> tuple[int, str, str]:
    """Return the exit code, the list of contents, and what was wrong."""
    with _restoring(tools, ["--list"], os.environ, backup, None) as output:
        text = b"".join(output).decode(errors="replace")
    return output.code, text, last_lines(output.errors)


def _check_owners(connection: Connection, tools: Tools, backup: Backup) -> None:
    """Check that the roles exist that own the objects of the backup.

    :raises NewDatabaseError: when some are missing, as on another server.
    """
    known = [name for (name,) in rows(connection, "SELECT rolname FROM pg_catalog.pg_roles")]
    _, listed, _ = _listed(tools, backup)
    entries = [line for line in listed.splitlines() if re.match(r"\d+; ", line) and not line.endswith(" ")]
    strange = [line for line in entries if not any(line.endswith(f" {name}") for name in known)]
    if missing := sorted({line.rpartition(" ")[2] for line in strange}):
        names = ", ".join(missing)
        raise NewDatabaseError(
            f"The roles that own objects of the backup do not exist on this server: {names}.",
            next_step="\n".join(f"CREATE ROLE {quoted(name)};   -- as an administrator" for name in missing)
            + f"\n{typed.again_with_flag('--no-owner', 'guvnor restore FILE --no-owner')}   "
            "# or: everything belongs to the role that restores",
        )


def _create(connection: Connection, into: str) -> None:
    """Make the new database.

    :raises NewDatabaseError: when the role may not.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(scalar(connection, _CREATE, {"name": into, "owned": False}))
    except psycopg2.Error as error:
        if error.pgcode != errorcodes.INSUFFICIENT_PRIVILEGE:
            raise
        by_hand = scalar(connection, _CREATE, {"name": into, "owned": True})
        raise NewDatabaseError(
            f"The role {scalar(connection, 'SELECT current_user::text')} may not make database {into}.",
            next_step=f"{by_hand};   -- as an administrator\n{typed.again(when='then')}",
        ) from None


def _objects(connection: Connection) -> list[str] | None:
    """Return what is in the new database, our mark apart; None for nothing."""
    schemas = scalar(connection, _SCHEMAS, (_MARK,))
    found: list[str] | None = scalar(connection, _OBJECTS, {"schemas": schemas or []})
    return found


def _mark(connection: Connection, into: str, backup: Backup) -> None:
    """Mark the new database as that of this backup, where it is empty.

    :raises NewDatabaseError: when it has objects that are not of an earlier run.
    """
    mark = f"{_MARK}.backup"
    marked = scalar(connection, "SELECT to_regclass(%s) IS NOT NULL", (mark,))
    of = scalar(connection, f"SELECT sha256 FROM {mark}") if marked else None
    found = _objects(connection)
    if found and of != backup.sha256:
        some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        whose = " of the restore of another backup" if of else ""
        raise NewDatabaseError(
            f"Database {into} has {len(found)} objects{whose}: {some}. A backup of the whole database is "
            "restored into an empty one only.",
            next_step=typed.again_with(
                "into", "DATABASE", when="another name; it is made if it does not exist"
            ),
        )
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE SCHEMA IF NOT EXISTS {_MARK}; "
            f"CREATE TABLE IF NOT EXISTS {mark} (sha256 text, file text); "
            f"TRUNCATE {mark}; INSERT INTO {mark} VALUES (%s, %s)",
            (backup.sha256, str(backup.path)),
        )


def _await_ghost(connection: Connection) -> None:
    """Wait for the pg_restore of a killed run, which ends by itself: its input has ended."""
    sql = """
        SELECT pid FROM pg_catalog.pg_stat_activity
        WHERE datname = current_database() AND application_name = %s
    """
    deadline = time.monotonic() + _PATIENCE_WITH_GHOST
    while (found := row(connection, sql, (_PROGRAM,))) is not None:
        if time.monotonic() > deadline:
            raise RestoreError(
                f"A pg_restore of an earlier run is still at work in the new database (pid {found[0]}).",
                state=_UNDER_WAY,
                next_step=f"SELECT pg_terminate_backend({found[0]});\n{typed.again(when='then')}",
            )
        time.sleep(_POLL)


class _Output:
    """Lines that a program prints.

    :ivar code: its exit code, once it has ended.
    :ivar errors: what it said on standard error.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.code, self.errors = 0, ""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._lines)


@contextlib.contextmanager
def _restoring(
    tools: Tools, words: Sequence[str], environment: Mapping[str, str], backup: Backup, report: Report | None
) -> Iterator[_Output]:
    """Run pg_restore, which a thread feeds the backup, decrypted; its end is known after the body."""
    command = [str(tools.directory / "pg_restore"), *words]
    with (
        ThreadPoolExecutor(2) as threads,
        pg_dump.running(command, environment, stdin=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        fed = threads.submit(_feed, backup, process.stdin, report)
        errors = threads.submit(process.stderr.read)
        output = _Output(io.BufferedReader(cast(io.RawIOBase, process.stdout)))
        yield output
        for _ in output:  # else it would wait to print
            pass
        fed.exception()
        output.errors = errors.result().decode(errors="replace")
        output.code = process.wait()
        if password := environment.get("PGPASSWORD"):
            output.errors = output.errors.replace(password, MASK)


def _feed(backup: Backup, stdin: IO[bytes], report: Report | None) -> None:
    """Write a backup to a program, which may have read enough before its end."""
    size, done, told = backup.path.stat().st_size, 0, 0.0
    with backup.plain() as plain, contextlib.suppress(BrokenPipeError):
        while chunk := plain.read(1 << 16):
            rest = memoryview(chunk)
            while rest:
                rest = rest[stdin.write(rest) :]
            done += len(chunk)
            if report is not None and time.monotonic() - told > _POLL:
                told = time.monotonic()
                report(Progress("restoring the database", f"{done / 1e6:,.1f} MB", min(done, size), size))
    with contextlib.suppress(BrokenPipeError):
        stdin.close()


def _run(tools: Tools, connection: Connection, backup: Backup, report: Report, *, owners: bool) -> None:
    """Restore everything in one transaction, as the role that the connection acts as.

    :raises RestoreError: when pg_restore fails; nothing is left of it then.
    """
    # It connects as its environment says, so that the process list shows no connection.
    words = ["--single-transaction", "--exit-on-error", "--no-password", "--dbname="]
    words += [] if owners else ["--no-owner", "--no-privileges"]
    if role := scalar(connection, "SELECT NULLIF(current_user, session_user)::text"):
        words.append(f"--role={role}")
    environment = pg_dump.connection_environment(connection) | {"PGAPPNAME": _PROGRAM}
    with _restoring(tools, words, environment, backup, report) as output:
        pass
    if output.code != 0:
        how = f"was killed by signal {-output.code}" if output.code < 0 else "failed"
        raise RestoreError(
            f"pg_restore {tools.version} of {tools.directory} {how}:\n{last_lines(output.errors)}",
            state="The new database is as empty as before: the restore is one transaction. The configured "
            "database is unchanged.",
            next_step=f"{typed.again(when='after fixing the cause')}\n"
            "export GUVNOR_PG_BIN=DIRECTORY   # where it lacks TLS: the directory of another pg_restore",
        )


def _compared(tools: Tools, connection: Connection, backup: Backup, report: Report) -> Iterator[RestoredPart]:
    """Compare each row of the backup with the new database.

    :raises RestoreError: when the rows of the backup cannot be read.
    """
    with _restoring(tools, ["--data-only", "--file=-"], os.environ, backup, None) as output:
        for found in copied(output):
            table, columns = found.table, found.columns
            report(Progress("comparing", table))
            with connection.cursor() as cursor:
                cursor.execute(
                    f"CREATE TEMPORARY TABLE saved AS SELECT {columns} FROM ONLY {table} WITH NO DATA"
                )
                for chunk in chunks(found.lines):
                    copy = f"COPY saved ({columns}) FROM STDIN WITH (ENCODING {constant(found.encoding)})"
                    cursor.copy_expert(copy, io.BytesIO(chunk))
                cursor.execute(_COMPARE.format(columns=columns, table=table))
                saved, live, lacking, added, some = cursor.fetchall()[0]
                cursor.execute("DROP TABLE saved")
            different = []
            if lacking:
                different.append(f"{lacking:,} of the backup are not there: {'; '.join(some)}")
            if added:
                different.append(f"{added:,} are there that the backup does not hold")
            yield RestoredPart(table, "rows", max(saved, live), saved - lacking, 0, tuple(different))
    if output.code != 0:
        raise RestoreError(
            f"pg_restore could not read the rows again:\n{last_lines(output.errors)}", state=_UNDER_WAY
        )
