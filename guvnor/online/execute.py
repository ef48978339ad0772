"""What the online operations do on the server. Each inspects the database and does only what is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg2

from guvnor.errors import GuvnorError
from guvnor.online import blockers, plain_forms, progress, remedies
from guvnor.online.progress import Progress
from guvnor.online.replicas import ReplicaPolicy
from guvnor.postgres import Connection, scalar
from guvnor.postgres.quoting import quoted, unquoted

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds


class OnlineStepError(GuvnorError):
    """An online step did not do what the revision says."""

    next_step = "Correct the revision, then: guvnor migrate up"


class BatchWatch(Protocol):
    """Cancels a statement because of which the application waits for too long.

    :ivar budget: seconds that it may wait; None for no limit.
    """

    budget: float | None

    def watching(self, statement: str) -> AbstractContextManager[None]:
        """Watch while the body runs a statement (SQLSTATE 57014 when it is cancelled)."""

    def forgive(self) -> bool:
        """Tell whether the last statement was to be cancelled, and let the step go on with less at once."""


@dataclass(frozen=True)
class OnlineStep:
    """Where an online operation runs.

    :ivar connection: in autocommit mode, without a lock timeout.
    :ivar onlooker: another connection, for reading progress.
    :ivar pid: of the backend of ``connection``.
    :ivar what: the step, in words.
    :ivar report: is called with the progress of the step.
    :ivar replicas: which replicas a backfill waits for, and how long.
    :ivar watch: watches who waits because of a batch of a backfill; None for nobody.
    """

    connection: Connection
    onlooker: Connection
    pid: int
    what: str
    report: Callable[[Progress], None]
    replicas: ReplicaPolicy = field(default_factory=ReplicaPolicy)
    watch: BatchWatch | None = None

    def execute(self, sql: str, parameters: Any = None) -> None:
        """Run a statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)


def create_index(step: OnlineStep, name: str, sql: str) -> None:
    """Build an index concurrently; see ``op.create_index_concurrently``.

    An interrupted build leaves an invalid index, which CREATE INDEX IF NOT EXISTS accepts as existing
    (PostgreSQL documentation, "Building Indexes Concurrently").

    :raises OnlineStepError: when the statement ends and there is no valid index of that name.
    """
    tune_for_index_build(step)
    for attempt in range(3):
        await_builder(step, quoted(name), name)
        valid = index_is_valid(step.connection, quoted(name))
        if valid:
            log.info("index is in place", extra={"index": name, "was_there": attempt == 0})
            return
        if valid is False:
            drop_invalid(step, quoted(name))
        try:
            step.execute(sql)
        except psycopg2.errors.DuplicateTable:
            continue  # another backend has finished the same index meanwhile
        except psycopg2.Error as error:
            remedies.note_index(step.connection, quoted(name), error)
            drop_remains(step, quoted(name))
            raise
        if index_is_valid(step.connection, quoted(name)):
            return
    raise OnlineStepError(f"The statement for index {name} ended, but there is no valid index of that name.")


def drop_invalid(step: OnlineStep, index: str) -> None:
    """Drop what an interrupted build has left.

    :param index: as SQL writes it.
    """
    log.warning("dropping the invalid index of an interrupted build", extra={"index": unquoted(index)})
    step.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")


def drop_remains(step: OnlineStep, index: str) -> None:
    """Drop what a failed build left: an invalid index slows down writes, and a unique one refuses some.

    :param index: as SQL writes it.
    """
    try:
        if index_is_valid(step.connection, index) is False:
            step.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
    except psycopg2.Error:
        log.warning(
            "the failed build left an invalid index, which the next run drops", extra={"index": index}
        )


def drop_index(step: OnlineStep, name: str) -> None:
    """Drop an index concurrently, when it exists."""
    await_builder(step, quoted(name), name)
    step.execute(plain_forms.drop_index(name, concurrently=True))


def await_builder(step: OnlineStep, index: str, shown: str) -> None:
    """Wait while another backend holds SHARE UPDATE EXCLUSIVE on the table of an invalid index.

    The build of a killed client goes on, and holds that lock until its end (PostgreSQL documentation,
    "Explicit Locking").

    :param index: as SQL writes it.
    :param shown: its name as messages have it.
    """
    sql = """
        SELECT l.pid
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_locks AS l ON l.relation = i.indrelid
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid AND a.usesysid IS NOT NULL  -- no autovacuum
        WHERE i.indexrelid = to_regclass(%s) AND NOT i.indisvalid
          AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        LIMIT 1
    """
    told: int | None = None
    while (pid := scalar(step.connection, sql, (index,))) is not None:
        if told != pid:
            log.warning(
                f"waiting for another session, which still builds index {shown}: "
                f"{blockers.session(step.onlooker, pid)}",
                extra={"index": shown, "pid": pid},
            )
            told = pid
        # What that build waits for, in turn, is named, too.
        if seen := progress.step(step.onlooker, f"{step.what} (by surviving backend {pid})", pid):
            step.report(seen)
        time.sleep(_POLL)


def index_is_valid(connection: Connection, index: str) -> bool | None:
    """Tell whether an index is valid; None when there is none.

    :param index: as SQL writes it.
    """
    sql = "SELECT indisvalid AND indisready FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(%s)"
    valid: bool | None = scalar(connection, sql, (index,))
    return valid


def tune_for_index_build(step: OnlineStep) -> None:
    """Give an index build more memory and workers, for this session and within what the server allows.

    Memory: as much as the shared buffers, which the server's owner has sized for the machine, up to 1 GB.
    Workers: half of max_parallel_workers, up to four, where the owner has set it. Its default does not fit
    every machine (on two cores, four workers doubled the longest stall of the application), so it is left
    alone then. A higher setting of the session is kept.
    """
    step.execute(
        """
        SELECT
            set_config('maintenance_work_mem', greatest(
                (SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'),
                least(1048576, (SELECT setting::bigint * 8 FROM pg_settings WHERE name = 'shared_buffers'))
            )::text || 'kB', false),
            set_config('max_parallel_maintenance_workers', greatest(
                current_setting('max_parallel_maintenance_workers')::integer,
                (SELECT least(4, setting::integer / 2, current_setting('max_worker_processes')::integer)
                 FROM pg_settings WHERE name = 'max_parallel_workers' AND source <> 'default')
            )::text, false),
            -- a build goes on when its client is killed; the next run waits for it
            set_config('client_connection_check_interval', '0', false)
        """
    )
