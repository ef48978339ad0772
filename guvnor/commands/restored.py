"""What a restore has brought back, and the errors of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes

from guvnor import postgres, typed
from guvnor.backup.script import BackupPart
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate import signals
from guvnor.migrate.watch import WatchLostError
from guvnor.online.progress import Progress
from guvnor.postgres.transient import SERVER_GONE

UNDER_WAY = (
    "What is back stays back; the rest waits beside, in schema guvnor_restore. The application is not held "
    "up by that."
)
CHANGED = "changed since it was put back"
_CHUNK = 4 << 20  # bytes of rows that are copied at once

Report = Callable[[Progress], None]


class RestoreError(GuvnorError):
    """The restore failed."""

    state = UNDER_WAY
    repeat_when = "after fixing the cause: it goes on where it stopped"


class DifferencesError(GuvnorError):
    """Some rows differ from the backup."""

    exit_code = ExitCode.DRIFT


@dataclass(frozen=True)
class RestoredPart:
    """What has become of one part, as compared at the end.

    :ivar rows: how many rows or values the backup holds of it.
    :ivar equal: how many of them the table now holds as the backup does.
    :ivar gone: how many values have no row any more.
    :ivar different: how many others there are, each reason with their number and some keys.
    :ivar stage: where the rows are that are not equal.
    """

    name: str
    kind: str
    rows: int
    equal: int
    gone: int = 0
    different: tuple[str, ...] = ()
    stage: str | None = None


def chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Put lines together to what is copied at once."""
    chunk = bytearray()
    for line in lines:
        chunk += line
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def shows(part: RestoredPart) -> str:
    """Return what shows the rows of a part that differ."""
    if part.stage is None:
        return f"SELECT * FROM {part.name};   -- in the new database: what differs?"
    back = all(CHANGED in line for line in part.different)  # they were put back, and are not marked as left
    where = "" if back else " WHERE guvnor_state = 'left'"
    return f"SELECT * FROM {part.stage}{where};   -- the backup's values"


def what(part: BackupPart, count: int) -> str:
    """Say how much a part holds: ``2 rows of public.audit_logs``."""
    unit = {"rows": "row", "values": "value"}.get(part.kind)
    if unit is None:
        return f"the state of {part.name}"
    if part.name == part.table and part.kind == "values":
        return f"what was overwritten in {count:,} row{'' if count == 1 else 's'} of {part.name}"
    return f"{count:,} {unit}{'' if count == 1 else 's'} of {part.name}"


@contextlib.contextmanager
def failures(canceller: signals.Canceller, schema: str, state: str) -> Iterator[None]:
    """Explain an error of the server, unless a signal has caused it.

    :param schema: what the restore makes for itself in the database.
    :param state: what state the database is in.
    :raises RestoreError: instead of the driver's error.
    """
    try:
        yield
    except WatchLostError as error:
        raise RestoreError(error.message, state=state, next_step=typed.again()) from error
    except psycopg2.Error as error:
        canceller.check()
        code, said = error.pgcode, postgres.primary_message(error)
        if code is None or code in SERVER_GONE:
            raise RestoreError("The connection to the database was lost.", state=state) from error
        if code == errorcodes.DISK_FULL:
            raise RestoreError(
                f"The disk of the server is full: {said}.",
                state=state,
                next_step=typed.again(when="once there is room on the server: it goes on"),
            ) from error
        if code == errorcodes.INSUFFICIENT_PRIVILEGE:
            raise RestoreError(
                f"The role may not do this: {said}.",
                state=state,
                next_step="export GUVNOR_STORAGE_ROLE=OWNER   # acts as the owner of the tables\n"
                f"GRANT CREATE ON DATABASE DATABASE TO OWNER;   -- it makes schema {schema} there\n"
                f"{typed.again(when='then')}",
            ) from error
        raise RestoreError(f"The server refused: {said} (SQLSTATE {code}).", state=state) from error
