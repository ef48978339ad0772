"""Backups before a migration: the whole database, what a rollback drops, or what the user's command saves."""

from __future__ import annotations

import gzip
import logging
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from guvnor import __version__, config, postgres, typed
from guvnor.backup import dropped as dropped_data, file as backup_file, pg_dump
from guvnor.backup.file import BackupCheckError, BackupError, Output
from guvnor.bookkeeping import state
from guvnor.database import Database
from guvnor.errors import last_lines
from guvnor.online.progress import Progress
from guvnor.postgres import Connection, row_security, scalar
from guvnor.schema.snapshot import Object

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

log = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
_INTERVAL = 0.5  # seconds between two reports of progress
_KEPT = 4000  # bytes of a command's output that are kept for an error


@dataclass(frozen=True)
class BackupOptions:
    """Where and how a backup is taken.

    :ivar directory: for the backup's file.
    :ivar recipients: public keys of age or SSH to encrypt it for; without any it is not encrypted.
    :ivar command: the user's own command, run instead of writing a file.
    :ivar require_encryption: whether an unencrypted file is refused; what a command writes is not known here.
    """

    directory: Path | None
    recipients: tuple[str, ...] = ()
    command: str | None = None
    require_encryption: bool = False


@dataclass(frozen=True)
class TakenBackup:
    """A backup that was taken.

    :ivar path: its file; None when a command took it.
    :ivar bytes: the size of the file; None for a command.
    :ivar sha256: the checksum of the file; None for a command.
    :ivar encrypted: whether the file is encrypted; False for a command.
    :ivar program: the program that wrote the file, such as ``pg_dump 15.18``; None for a command.
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


def check_backup(database: Database, options: BackupOptions, *, whole: bool) -> str:
    """Check before the migration starts that a backup can be taken.

    :param whole: whether it is of the whole database, which needs pg_dump.
    :returns: how it will be taken, for the log.
    :raises BackupCheckError: when it cannot: no fitting pg_dump, a directory that cannot be written to, a
        recipient that is not a public key, no encryption where it is required (exit code 3).
    """
    if options.command is not None:
        return "by the command that was given"
    directory = _directory(options)
    backup_file.parse_recipients(options.recipients)
    backup_file.check_directory(directory)
    count = len(options.recipients)
    how = f"encrypted for {count} recipient{'' if count == 1 else 's'}" if count else "not encrypted"
    if not whole:
        return f"to {directory}, {how}"
    with postgres.closing(database.connect("backup")) as connection:
        check_readable(connection)
        tools = pg_dump.find_tools(connection.info.server_version // 10000)
        pg_dump.try_out(tools, connection)
    return f"with pg_dump {tools.version} of {tools.directory} to {directory}, {how}"


def check_readable(connection: Connection, tables: Sequence[str] | None = None) -> None:
    """Check that row security hides no row that is to be backed up.

    :param tables: those that are read, as SQL writes them; None for all of the database.
    :raises BackupCheckError: when it may hide some (exit code 3).
    """
    hidden = row_security.hidden_tables(connection, tables, schema=None)
    if hidden:
        raise BackupCheckError(
            f"Row security hides rows from role {row_security.acting_role(connection)}, so these tables "
            f"cannot be backed up: {', '.join(hidden)}.",
            next_step=f"{row_security.bypass(connection)}\n{typed.again(when='then')}",
        )


@postgres.explained()
def back_up_database(database: Database, options: BackupOptions, report: OnProgress) -> TakenBackup:
    """Back up the whole database: an archive of pg_dump in custom format.

    :param report: is called with the bytes written; the total is the database's size, an upper bound.
    :raises BackupError: when it fails; no part of the backup is left then (exit code 1).
    """
    began = time.monotonic()
    directory = _directory(options)
    with postgres.closing(database.connect("backup")) as connection:
        tools = pg_dump.find_tools(connection.info.server_version // 10000)
        what = f"database {connection.info.dbname}"
        size = scalar(connection, "SELECT pg_database_size(current_database())")
        name = f"{_stem(connection)}.dump"
        with backup_file.new_file(directory, name, options.recipients) as (output, plain):
            metered = _Metered(plain, report, f"backup of {what}", size)
            pg_dump.archive(tools, connection, metered.write)
    return _taken(output, options, f"pg_dump {tools.version}", what, began)


@postgres.explained()
def back_up_dropped(
    connection: Connection, objects: Sequence[Object], options: BackupOptions, report: OnProgress
) -> TakenBackup | None:
    """Back up what a rollback drops, as of one moment: a compressed script for psql that puts it back.

    :param connection: in autocommit mode.
    :param objects: what the plan drops; see :func:`guvnor.schema.rehearsal.effects`. Objects that the live
        database lacks are skipped.
    :param report: is called with the bytes written; the total is the size of the dropped tables.
    :returns: None when no data is dropped.
    :raises BackupError: when it fails; no part of the backup is left then (exit code 1).
    """
    began = time.monotonic()
    directory = _directory(options)
    name = f"{_stem(connection)}-dropped.sql.gz"
    with postgres.snapshot(connection, pg_dump.LOCK_WAIT):
        dropped = dropped_data.find_dropped(connection, objects)
        if not dropped:
            return None
        tables = [data.table for data in dropped if data.table == data.name]
        sql = "SELECT sum(pg_table_size(name))::bigint FROM unnest(%s::regclass[]) AS name"
        size = scalar(connection, sql, (tables,))
        with (
            backup_file.new_file(directory, name, options.recipients) as (output, plain),
            gzip.GzipFile(fileobj=plain, mode="wb") as script,
        ):
            metered = _Metered(script, report, "backup of what is dropped", size)
            dropped_data.write_script(connection, dropped, metered)
    what = ", ".join(data.name for data in dropped)
    return _taken(output, options, f"guvnor {__version__}", what, began)


@postgres.explained()
def run_backup_command(database: Database, command: str, report: OnProgress) -> TakenBackup:
    """Run the user's own backup command through the shell.

    The command finds the connection in libpq's variables (PGHOST, PGPASSWORD, ...), and in GUVNOR_BACKUP_NAME
    a name without a suffix, made of database, time and version. What it prints goes to the log.

    :raises BackupError: when its exit code is not 0 (exit code 1).
    """
    began = time.monotonic()
    with postgres.closing(database.connect("backup")) as connection:
        environment = pg_dump.connection_environment(connection) | {"GUVNOR_BACKUP_NAME": _stem(connection)}
    report(Progress("backup", "the backup command runs"))
    printed = ""
    with pg_dump.running(command, environment, stderr=subprocess.STDOUT) as process:
        for line in process.stdout or ():
            text = line.decode(errors="replace").rstrip()
            log.info("backup command: %s", text)
            printed = f"{printed}{text}\n"[-_KEPT:]
        code = process.wait()
    if code != 0:
        raise BackupError(
            f"The backup command ended with exit code {code}:\n{last_lines(printed)}",
            state="The database is unchanged. What the command has left behind is not known here.",
        )
    seconds = round(time.monotonic() - began, 3)
    return TakenBackup(None, None, None, False, None, "what the backup command saves", seconds)


def _directory(options: BackupOptions) -> Path:
    """Return where the backup goes, as an absolute path: the history names it, and may be read elsewhere.

    :raises BackupCheckError: when no directory is named, or when encryption is required and impossible.
    """
    if options.directory is None:
        raise BackupCheckError(
            "No directory is named for the backup.", next_step="guvnor migrate deploy --backup DIR"
        )
    if options.require_encryption and not options.recipients:
        raise BackupCheckError(
            "The backup has to be encrypted, but no recipient is named.",
            next_step="age-keygen -o KEY_FILE   # keep it elsewhere\n"
            "guvnor migrate deploy --backup DIR --backup-recipient age1...",
        )
    return options.directory.absolute()


def _stem(connection: Connection) -> str:
    """Name a backup: database, UTC time, version."""
    database = re.sub(r"[^\w-]+", "_", connection.info.dbname)
    # The name takes Alembic's version alone; another tool may own a table schema_migrations.
    patience = config.seconds(pg_dump.LOCK_WAIT)
    version = state.read(connection, max_wait=patience, golang_migrate=False).version or "base"
    return f"{database}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + f"Z-{version}"


@dataclass
class _Metered:
    """Passes on what is written, and reports how much it was."""

    file: SupportsWrite[bytes]
    report: OnProgress
    what: str
    total: int | None
    done: int = 0
    next_report: float = 0.0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.done += len(data)
        if (now := time.monotonic()) >= self.next_report:
            self.next_report = now + _INTERVAL
            # Data is mostly smaller than the tables that hold it; where it is not, the total says nothing.
            total = self.total if self.done <= (self.total or 0) else None
            self.report(Progress(self.what, f"{self.done / 1e6:,.1f} MB written", self.done, total))


def _taken(output: Output, options: BackupOptions, program: str, what: str, began: float) -> TakenBackup:
    seconds = round(time.monotonic() - began, 3)
    encrypted = bool(options.recipients)
    return TakenBackup(output.path, output.size, output.digest.hexdigest(), encrypted, program, what, seconds)
