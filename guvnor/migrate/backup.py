"""Backups before a migration: the whole database, what a rollback drops, or what the user's command saves."""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from guvnor import postgres
from guvnor.bookkeeping import state
from guvnor.database import Database
from guvnor.embedded.programs import last_lines
from guvnor.migrate import backup_columns, backup_file, pg_dump
from guvnor.migrate.backup_columns import Column
from guvnor.migrate.backup_file import BackupCheckError, BackupError, Output
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, scalar
from guvnor.schema.snapshot import Object

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]
_INTERVAL = 0.5  # seconds between two reports
_KEPT = 4000  # characters of what a command has said
_STORED = ("table", "materialized view", "sequence")


@dataclass(frozen=True)
class Options:
    """Where and how a backup is taken.

    :ivar directory: for the backup's file.
    :ivar recipients: public keys to encrypt it for, of age or SSH; none: it is not encrypted.
    :ivar command: the user's own, instead of a file in the directory.
    :ivar require_encryption: whether a backup that is not encrypted is refused. What a command does cannot be
        seen from here.
    """

    directory: Path | None
    recipients: tuple[str, ...] = ()
    command: str | None = None
    require_encryption: bool = False


@dataclass(frozen=True)
class Backup:
    """A backup that was taken.

    :ivar path: its file; None when a command has taken it, as with the next two.
    :ivar bytes: the size of the file.
    :ivar sha256: the checksum of the file.
    :ivar encrypted: whether the file is; False for a command.
    :ivar program: which has written it, such as ``pg_dump 15.18``; None for a command.
    :ivar what: what is in it, in words.
    :ivar seconds: how long it took.
    """

    path: Path | None
    bytes: int | None
    sha256: str | None
    encrypted: bool
    program: str | None
    what: str
    seconds: float


def check(database: Database, options: Options) -> str:
    """Find out before anything starts whether a backup can be taken.

    :returns: how it will be taken, for the log.
    :raises BackupCheckError: when it cannot: no fitting pg_dump, a directory that cannot be written to, a
        recipient that is no key, no encryption where it is required (exit code 3).
    """
    if options.command is not None:
        return "by the command that was given"
    directory = _directory(options)
    backup_file.parse_recipients(options.recipients)
    backup_file.check_directory(directory)
    with postgres.closing(database.connect("backup")) as connection:
        tools = _tools(connection)
        pg_dump.try_out(tools, connection)
    count = len(options.recipients)
    how = f"encrypted for {count} recipient{'' if count == 1 else 's'}" if count else "not encrypted"
    return f"with pg_dump {tools.version} of {tools.directory} to {directory}, {how}"


@postgres.explained()
def whole(database: Database, options: Options, report: Report) -> Backup:
    """Back up the whole database: an archive of pg_dump in custom format.

    :param report: is told how far it is: bytes written, of the database's size (an upper bound).
    :raises BackupError: when it fails; nothing is left of it then (exit code 1).
    """
    began = time.monotonic()
    directory = _directory(options)
    with postgres.closing(database.connect("backup")) as connection:
        tools = _tools(connection)
        name = f"{_stem(connection)}.dump"
        size = scalar(connection, "SELECT pg_database_size(current_database())")
        what = f"database {connection.info.dbname}"
        with (
            _snapshot(connection) as snapshot,
            backup_file.written(directory, name, options.recipients) as output,
        ):
            tables = _tables(connection)
            metered = _Metered(output, report, f"backup of {what}", size)
            _expect(pg_dump.archive(tools, connection, snapshot, [], metered.write), tables)
    return _taken(output, options, tools, what, began)


@postgres.explained()
def dropped(
    connection: Connection, objects: Iterable[Object], options: Options, report: Report
) -> Backup | None:
    """Back up what a rollback drops: a zip file with tables and with the values of columns.

    It holds ``definition.sql`` and ``tables.dump`` (pg_dump's archive of the data, in an order in which
    foreign keys hold), a text file for each dropped column of a table that remains, and ``restore.sql``,
    which puts those values back. All show the database at one moment. A zip file can be written without
    knowing sizes beforehand, so nothing is kept in memory or on the disk in between.

    :param connection: in autocommit mode.
    :param objects: that are gone after the step; see :func:`guvnor.schema.rehearsal.effects`. What the live
        database does not have is passed over.
    :param report: is told how far it is: bytes written, of the size of the tables.
    :returns: None when the step drops no data.
    :raises BackupError: when it fails; nothing is left of it then (exit code 1).
    """
    began = time.monotonic()
    directory = _directory(options)
    tools = _tools(connection)
    name = f"{_stem(connection)}-dropped.zip"
    objects = list(objects)
    with _snapshot(connection) as snapshot:
        relations, columns = contents(connection, objects)
        if not relations and not columns:
            return None
        size = scalar(
            connection, "SELECT sum(pg_table_size(r))::bigint FROM unnest(%s::regclass[]) AS r", (relations,)
        )
        with backup_file.written(directory, name, options.recipients) as output:
            metered = _Metered(output, report, "backup of what is dropped", size)
            with zipfile.ZipFile(metered, "w") as container:
                if relations:
                    _save_relations(container, tools, connection, snapshot, relations)
                if columns:
                    _save_columns(container, connection, columns)
    what = ", ".join([*relations, *(f"{column.table}.{column.name}" for column in columns)])
    return _taken(output, options, tools, what, began)


def contents(connection: Connection, objects: Sequence[Object]) -> tuple[list[str], list[Column]]:
    """Return the tables and columns among some objects of which the live database holds data.

    :raises NoKeyError: when a column's values cannot be saved.
    """
    relations = _existing(connection, objects)
    return relations, backup_columns.find(connection, objects, relations)


@postgres.explained()
def by_command(database: Database, command: str, report: Report) -> Backup:
    """Run the user's own backup command through the shell.

    It finds the connection in libpq's variables (PGHOST, PGPASSWORD, ...), and in GUVNOR_BACKUP_NAME a name
    without ending, made of database, time and version. What it prints goes to the log.

    :raises BackupError: when it ends with another exit code than 0 (exit code 1).
    """
    began = time.monotonic()
    with postgres.closing(database.connect("backup")) as connection:
        variables = pg_dump.environment(connection) | {"GUVNOR_BACKUP_NAME": _stem(connection)}
    report(Progress("backup", "the backup command runs"))
    said = ""
    with subprocess.Popen(  # noqa: S602 - it is the user's own command line, pipes and all
        command,
        shell=True,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.info("backup command: %s", line.rstrip())
                said = (said + line)[-_KEPT:]
            code = process.wait()
        except BaseException:
            pg_dump.end(process)
            raise
    if code != 0:
        raise BackupError(
            f"The backup command ended with exit code {code}:\n{last_lines(said)}",
            state="The database is unchanged. What the command has left behind is not known here.",
        )
    return Backup(
        None, None, None, False, None, "what the backup command saves", round(time.monotonic() - began, 3)
    )


def _directory(options: Options) -> Path:
    """Return where the backup goes.

    :raises BackupCheckError: when nothing says so, or when it would have to be encrypted and is not.
    """
    if options.directory is None:
        raise BackupCheckError(
            "Nothing says where the backup goes.", next_step="guvnor migrate deploy --backup DIR"
        )
    if options.require_encryption and not options.recipients:
        raise BackupCheckError(
            "The backup has to be encrypted, but there is nobody to encrypt it for.",
            next_step="age-keygen -o KEY_FILE   # keep it elsewhere\n"
            "guvnor migrate deploy --backup DIR --backup-recipient age1...",
        )
    return options.directory.absolute()  # the history names it, wherever that is read


def _tools(connection: Connection) -> pg_dump.Tools:
    return pg_dump.find(connection.info.server_version // 10000)


def _stem(connection: Connection) -> str:
    """Name a backup: database, UTC time, version."""
    database = re.sub(r"[^\w-]+", "_", connection.info.dbname)
    version = state.read(connection).version or "base"
    return f"{database}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + f"Z-{version}"


@contextlib.contextmanager
def _snapshot(connection: Connection) -> Iterator[str]:
    """Hold a snapshot that pg_dump can take over, so that everything shows the database at one moment."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            # Rows that a policy hides would be missing without a word.
            cursor.execute(
                f"SET LOCAL row_security = off; SET LOCAL lock_timeout = '{pg_dump.LOCK_WAIT}'; "
                "SELECT pg_export_snapshot()"
            )
            (name,) = cursor.fetchone() or ("",)
            yield name
        finally:
            with contextlib.suppress(psycopg2.Error):
                cursor.execute("ROLLBACK")


def _existing(connection: Connection, objects: Sequence[Object]) -> list[str]:
    """Return those relations of the live database that hold data and are among some objects."""
    wanted = [f"public.{item.identity}" for item in objects if item.kind in _STORED]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", (wanted,)
        )
        return [name for (name,) in cursor.fetchall()]


def _tables(connection: Connection, relations: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Return schema and name of the tables that hold rows which a dump contains.

    :param relations: only of these.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT n.nspname, c.relname
            FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND c.relpersistence <> 't'
              AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
              AND (%(relations)s::regclass[] IS NULL OR c.oid = ANY (%(relations)s::regclass[]))
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            """,
            {"relations": relations},
        )
        return cursor.fetchall()


def _expect(listing: str, tables: Sequence[tuple[str, str]]) -> None:
    """Compare what pg_restore lists with the tables that there are.

    :raises BackupError: when the data of one is missing.
    """
    missing = [
        f"{schema}.{name}" for schema, name in tables if f" TABLE DATA {schema} {name} " not in listing
    ]
    if missing:
        raise BackupError(f"The backup lacks the data of {', '.join(missing)}.")


def _save_relations(
    container: zipfile.ZipFile,
    tools: pg_dump.Tools,
    connection: Connection,
    snapshot: str,
    relations: list[str],
) -> None:
    chosen = [f"--table={relation}" for relation in relations]
    with container.open("definition.sql", "w", force_zip64=True) as file:
        pg_dump.dump(tools, connection, snapshot, ["--schema-only", *chosen], file.write)
    with container.open("tables.dump", "w", force_zip64=True) as file:
        # Only a dump of the data alone is in the order of the foreign keys.
        listing = pg_dump.archive(tools, connection, snapshot, ["--data-only", *chosen], file.write)
    _expect(listing, _tables(connection, relations))


def _save_columns(container: zipfile.ZipFile, connection: Connection, columns: Sequence[Column]) -> None:
    for column in columns:
        member = zipfile.ZipInfo(column.file)
        member.compress_type = zipfile.ZIP_DEFLATED
        with container.open(member, "w", force_zip64=True) as file, connection.cursor() as cursor:
            try:
                cursor.copy_expert(column.copy, file)
            except psycopg2.Error as error:
                if error.pgcode is None:
                    raise
                raise BackupError(
                    f"The values of {column.table}.{column.name} could not be read: "
                    f"{error.diag.message_primary} (SQLSTATE {error.pgcode})."
                ) from None
    container.writestr("restore.sql", backup_columns.restore_script(columns))


class _Metered:
    """Passes on what is written and tells how much it was."""

    def __init__(self, output: Output, report: Report, what: str, total: int | None) -> None:
        self._output = output
        self._report = report
        self._what = what
        self._total = total
        self._done = 0
        self._next = 0.0

    def write(self, data: bytes) -> int:
        self._output.write(data)
        self._done += len(data)
        if (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL
            # Compressed it is mostly less than the tables' size; when it is more, that is no measure.
            total = self._total if self._total and self._done <= self._total else None
            self._report(Progress(self._what, f"{self._done / 1e6:,.1f} MB written", self._done, total))
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is finished."""

    def close(self) -> None:
        """Do nothing: who has opened the file closes it."""


def _taken(output: Output, options: Options, tools: pg_dump.Tools, what: str, began: float) -> Backup:
    seconds = round(time.monotonic() - began, 3)
    program = f"pg_dump {tools.version}"
    return Backup(output.path, output.bytes, output.sha256, bool(options.recipients), program, what, seconds)
