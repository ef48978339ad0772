"""What the online operations do on the server. Each inspects the database and does only what is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from guvnor.errors import GuvnorError
from guvnor.online import backoff, plain_forms, progress, remedies
from guvnor.online.progress import Progress
from guvnor.online.replicas import ReplicaPolicy
from guvnor.postgres import Connection, row, rows, scalar
from guvnor.postgres.quoting import quoted

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds
BATCH_TARGET = 0.2  # seconds that one batch of a backfill should take
_BATCH_FIRST = 32  # blocks
_BATCH_MOST = 16384  # blocks
_IN_VAIN_MOST = 3  # passes; the application may change the one row that is left at the same moment
_DROP_TRIES = 8


class OnlineStepError(GuvnorError):
    """An online step did not do what the revision says."""

    next_step = "Correct the revision, then: guvnor migrate up"


@dataclass(frozen=True)
class OnlineStep:
    """Where an online operation runs.

    :ivar connection: in autocommit mode, without a lock timeout.
    :ivar onlooker: another connection, for reading progress.
    :ivar pid: of the backend of ``connection``.
    :ivar what: the step, in words.
    :ivar report: is called with the progress of the step.
    :ivar replicas: which replicas a backfill waits for, and how long.
    """

    connection: Connection
    onlooker: Connection
    pid: int
    what: str
    report: Callable[[Progress], None]
    replicas: ReplicaPolicy = field(default_factory=ReplicaPolicy)

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
    _tune_for_index_build(step)
    for attempt in range(3):
        _await_others(step, name)
        valid = _index_is_valid(step.connection, name)
        if valid:
            log.info("index is in place", extra={"index": name, "was_there": attempt == 0})
            return
        if valid is False:
            log.warning("dropping the invalid index of an interrupted build", extra={"index": name})
            step.execute(plain_forms.drop_index(name, concurrently=True))
        try:
            step.execute(sql)
        except psycopg2.errors.DuplicateTable:
            continue  # another backend has finished the same index meanwhile
        except psycopg2.Error as error:
            remedies.note_index(step.connection, quoted(name), error)
            _drop_remains(step, name)
            raise
        if _index_is_valid(step.connection, name):
            return
    raise OnlineStepError(f"The statement for index {name} ended, but there is no valid index of that name.")


def _drop_remains(step: OnlineStep, name: str) -> None:
    """Drop what a failed build left: an invalid index slows down writes, and a unique one refuses some."""
    try:
        if _index_is_valid(step.connection, name) is False:
            step.execute(plain_forms.drop_index(name, concurrently=True))
    except psycopg2.Error:
        log.warning("the failed build left an invalid index, which the next run drops", extra={"index": name})


def drop_index(step: OnlineStep, name: str) -> None:
    """Drop an index concurrently, when it exists."""
    _await_others(step, name)
    try:
        step.execute(plain_forms.drop_index(name, concurrently=True))
    except psycopg2.Error as error:
        remedies.note_dropped_index(error)
        raise


def validate_constraint(step: OnlineStep, table: str, name: str) -> None:
    """Validate a constraint when it is not valid yet.

    :raises OnlineStepError: when there is no such constraint.
    """
    valid = constraint_is_valid(step.connection, table, name)
    if valid is None:
        raise OnlineStepError(f"Table {table} has no constraint {name} to validate.")
    if valid:
        return
    try:
        step.execute(plain_forms.validate_constraint(table, name))
    except psycopg2.Error as error:
        remedies.note_constraint(step.connection, quoted(table), name, error)
        raise


def check_not_null(step: OnlineStep, table: str, name: str) -> None:
    """Validate the check that a column holds no NULL; drop it when that fails, since it would refuse rows."""
    try:
        validate_constraint(step, table, name)
    except psycopg2.errors.CheckViolation:
        drop_constraint(step, table, name)
        raise


def drop_constraint(step: OnlineStep, table: str, name: str) -> None:
    """Drop a constraint that could not be validated, so that it refuses no row from now on.

    The statement takes ACCESS EXCLUSIVE, so each try waits briefly; if all fail, the next run drops the
    constraint.
    """
    for trial, _ in zip(backoff.tries(), range(_DROP_TRIES), strict=False):
        try:
            step.execute(f"SET lock_timeout = '{round(trial.wait * 1000)}ms'")
            step.execute(f"ALTER TABLE {quoted(table)} DROP CONSTRAINT IF EXISTS {quoted(name)}")
            return
        except psycopg2.errors.LockNotAvailable:
            time.sleep(trial.pause)
        finally:
            step.execute("SET lock_timeout = 0")
    log.warning("a constraint that was not validated remains", extra={"table": table, "constraint": name})


def backfill(step: OnlineStep, table: str, assignments: str, where: str) -> None:
    """Update the rows that a predicate names, a range of blocks at a time; see ``op.backfill``.

    A range of blocks is a TID range scan (PostgreSQL 14 and later), so that the whole takes one pass over the
    table, however small the ranges are. An UPDATE writes new row versions to other blocks, so the passes are
    repeated until one finds no row.
    """
    blocks, first = _BATCH_FIRST, True
    for relation in _leaves(step.connection, table):
        in_vain = 0  # passes, one after the other, that found rows and changed none
        while in_vain < _IN_VAIN_MOST:
            block, found_any, changed = 0, False, 0
            while (found := _next_block(step.connection, relation, where, block)) is not None:
                found_any = True
                if not first:  # so the last batch is followed by no wait
                    _await_replicas(step)
                first = False
                block, blocks, count = _update_range(step, relation, assignments, where, found, blocks)
                changed += count
            if not found_any:
                break
            in_vain = 0 if changed else in_vain + 1
        else:
            raise OnlineStepError(
                f"The backfill of {relation} would never end: a trigger or a rule keeps its UPDATE from rows "
                f"that match {where}."
            )
    step.execute(f"ANALYZE {quoted(table)}")


def _next_block(connection: Connection, relation: str, where: str, block: int) -> int | None:
    """Find the first block, from a given one on, that holds a row to update."""
    found: int | None = scalar(
        connection,
        f"SELECT (ctid::text::point)[0]::bigint FROM ONLY {relation} "
        f"WHERE ctid >= '({block},0)'::tid AND ({where}\n) LIMIT 1",  # it may end with a comment
    )
    return found


def _update_range(
    step: OnlineStep, relation: str, assignments: str, where: str, block: int, blocks: int
) -> tuple[int, int, int]:
    """Update the rows of a range of blocks.

    :returns: where the next range starts, how long it should be, and how many rows were updated.
    :raises OnlineStepError: when the predicate still holds for an updated row: the backfill would never end.
    """
    began = time.monotonic()
    try:
        endless, updated = row(
            step.connection,
            f"WITH updated AS (UPDATE ONLY {relation} SET {assignments}\n"
            f"WHERE ctid >= '({block},0)'::tid AND ctid < '({block + blocks},0)'::tid AND ({where}\n) "
            f"RETURNING ({where}\n) AS again) SELECT bool_or(again), count(*) FROM updated",
        ) or (None, 0)
    except psycopg2.errors.DeadlockDetected:
        time.sleep(BATCH_TARGET)
        return block, blocks, 0
    if endless:
        raise OnlineStepError(
            f"The backfill of {relation} would never end: rows that it has updated still match {where}."
        )
    took = time.monotonic() - began
    size = "SELECT pg_relation_size(%s) / current_setting('block_size')::bigint"
    total: int = scalar(step.connection, size, (relation,))
    step.report(Progress(step.what, "updating", min(block + blocks, total), total))
    time.sleep(took / 4)
    change = max(0.5, min(2.0, BATCH_TARGET / max(took, 0.001)))
    return block + blocks, max(1, min(_BATCH_MOST, int(blocks * change))), updated


def _await_replicas(step: OnlineStep) -> None:
    """Wait while a replica lags far behind; see :meth:`ReplicaPolicy.wait`."""
    step.replicas.wait(step.onlooker, lambda phase: step.report(Progress(step.what, phase)))


def _leaves(connection: Connection, table: str) -> list[str]:
    """Return the tables that hold the rows: the table itself, or the leaves of a partitioned one."""
    sql = """
        SELECT COALESCE(leaf.relid, root.oid)::regclass::text
        FROM (SELECT %s::regclass::oid AS oid) AS root
        LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf) AS leaf ON true
    """
    return [name for (name,) in rows(connection, sql, (quoted(table),))]


def _await_others(step: OnlineStep, index: str) -> None:
    """Wait while another backend holds SHARE UPDATE EXCLUSIVE on the table of an invalid index.

    The build of a killed client goes on, and holds that lock until its end (PostgreSQL documentation,
    "Explicit Locking").
    """
    sql = """
        SELECT l.pid
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_locks AS l ON l.relation = i.indrelid
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid AND a.backend_type = 'client backend'
        WHERE i.indexrelid = to_regclass(%s) AND NOT i.indisvalid
          AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        LIMIT 1
    """
    told = False
    while (pid := scalar(step.connection, sql, (quoted(index),))) is not None:
        if not told:
            log.info(
                "another backend is still building this index, waiting for it",
                extra={"index": index, "pid": pid},
            )
            told = True
        seen = progress.index_build(step.onlooker, f"{step.what} (by surviving backend {pid})", pid)
        if seen:
            step.report(seen)
        time.sleep(_POLL)


def _index_is_valid(connection: Connection, name: str) -> bool | None:
    """Tell whether an index is valid; None when there is none."""
    sql = "SELECT indisvalid AND indisready FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(%s)"
    valid: bool | None = scalar(connection, sql, (quoted(name),))
    return valid


def _tune_for_index_build(step: OnlineStep) -> None:
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


def is_not_null(connection: Connection, table: str, column: str) -> bool:
    """Tell whether a column is NOT NULL."""
    sql = "SELECT attnotnull FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s"
    return bool(scalar(connection, sql, (quoted(table), column)))


def constraint_is_valid(connection: Connection, table: str, name: str) -> bool | None:
    """Tell whether a table's constraint is valid; None when there is none."""
    valid: bool | None = scalar(
        connection,
        "SELECT convalidated FROM pg_catalog.pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
        (quoted(table), name),
    )
    return valid
