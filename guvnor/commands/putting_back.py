"""Putting back what a rollback dropped: copied beside the tables, put back in ranges, compared.

See :mod:`guvnor.backup.staged` for the statements.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from guvnor import typed
from guvnor.backup import staged
from guvnor.backup.dropped import setval
from guvnor.backup.opened import Backup
from guvnor.backup.script import parts
from guvnor.backup.staged import StagedPart
from guvnor.bookkeeping import history
from guvnor.bookkeeping.patience import AT_THE_END, wait_for_tables
from guvnor.commands.restored import CHANGED, Report, RestoredPart, RestoreError, chunks
from guvnor.config import Settings
from guvnor.errors import ExitCode, GuvnorError
from guvnor.migrate.watch import Watch
from guvnor.online import blockers
from guvnor.online.execute import OnlineStep
from guvnor.online.progress import Progress
from guvnor.online.ranges import Ranges, await_replicas
from guvnor.online.replicas import ReplicaPolicy
from guvnor.postgres import Connection, rows, scalar

log = logging.getLogger(__name__)

_BLOCKS = 1024  # blocks of rows that are compared at once
_SHORT = 0.05  # seconds that a range takes while writers wait for it
_REST = 4.0  # times that long, they are left alone
_VIEW_WAIT = "100ms"


@dataclass
class PuttingBack:
    """Puts the parts of a backup back.

    :ivar control: holds the run lock.
    :ivar worker: writes the rows.
    :ivar watch: sees who waits because of the worker.
    :ivar found: where each part goes.
    """

    settings: Settings
    backup: Backup
    control: Connection
    worker: Connection
    watch: Watch
    report: Report
    found: list[StagedPart]
    _sequences: dict[int, bytes] = field(default_factory=dict, init=False)

    def run(self) -> list[RestoredPart]:
        """Put everything back, and compare it."""
        with self.worker.cursor() as cursor:
            cursor.execute(staged.SETTINGS)
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {staged.SCHEMA}")
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {staged.OWN} (transaction xid NOT NULL)")
        self._stage()
        for one in self._staged():
            self._put_back(one)
        for one in self.found:
            if one.part.kind == "sequence":
                self._forward(one)
            elif one.part.kind == "view":
                self._refresh(one)
        results = [self._compared(one) for one in self._staged()]
        self._tidy(results)
        return results

    def _staged(self) -> list[StagedPart]:
        return [one for one in self.found if one.part.kind in ("rows", "values")]

    def _stage(self) -> None:
        """Copy the rows of each part beside its table; what an earlier run has copied is there."""
        step = self._step("copying the backup")
        with self.backup.script() as script:
            for place, (part, lines) in enumerate(parts(script)):
                one = self.found[place]
                if part.kind == "sequence":
                    self._sequences[place] = next(lines, b"")
                if part.kind not in ("rows", "values"):
                    continue
                if (
                    scalar(self.worker, "SELECT obj_description(to_regclass(%s))", (one.stage,))
                    == one.comment
                ):
                    step.execute(one.again())
                    continue
                step.execute(f"DROP TABLE IF EXISTS {one.stage}; {one.make()}")
                for chunk in chunks(lines):
                    self._copy(one, chunk)
                    self.report(Progress(step.what, part.name))
                    await_replicas(step)
                step.execute(one.complete())
                step.execute(f"ANALYZE {one.stage}")

    def _copy(self, one: StagedPart, chunk: bytes) -> None:
        copy = f"COPY {one.stage} ({one.columns}) FROM STDIN WITH (ENCODING 'UTF8')"
        with self.worker.cursor() as cursor:
            try:
                cursor.copy_expert(copy, io.BytesIO(chunk))
            except (psycopg2.DataError, psycopg2.IntegrityError) as error:
                raise RestoreError(
                    f"What the backup holds of {one.part.name} does not fit its type there: "
                    f"{error.diag.message_primary}.",
                    state=f"Nothing of {one.part.name} was put back, nor of what follows it in the backup.",
                    next_step=f"\\d {one.part.table}   -- in psql: which column has changed?\n"
                    + typed.again(when="once its type takes the values; it goes on"),
                ) from None

    def _put_back(self, one: StagedPart) -> None:
        """Put the rows of one part back, range by range, until none waits or none can be put back."""
        step, refused = self._step(f"restoring {one.part.name}"), dict[str, str]()
        patience = _Patience(self.settings.max_wait, self.watch, one.part.name)
        work = Ranges(
            step,
            one.stage,
            one.stage,
            staged.WAITING,
            patience.asked(one.change),
            refused=refused,
            doing="restoring",
        )
        if one.target.triggers:
            work.target, work.rest = _SHORT, _REST
        work.work_off(patience.count, in_vain_most=1, pause=False)
        places = [place.removesuffix("::tid").strip("'") for place in refused]
        usually = "another unique value of it is taken, or a trigger or a rule kept it out"
        step.execute("SET lock_timeout = 0")
        step.execute(one.leave(), (places, list(refused.values()), usually))
        with contextlib.suppress(psycopg2.errors.LockNotAvailable):
            step.execute(f"SET lock_timeout = '100ms'; ANALYZE {one.part.table}")
        step.execute("SET lock_timeout = 0")

    def _forward(self, one: StagedPart) -> None:
        """Put a sequence forward, never back: numbers may have been handed out since."""
        if one.target.kind is None:
            log.warning("a sequence of the backup is no longer there", extra={"sequence": one.part.name})
            return
        last, called = self._sequences[one.number].split()
        saved = f"WITH saved (last_value, is_called) AS (VALUES ({int(last)}::bigint, {called == b't'}))"
        self._step("").execute(f"{saved} {setval(one.part.table)}")

    def _refresh(self, one: StagedPart) -> None:
        """Refresh a materialized view; its readers wait for that, so it is not insisted on."""
        if one.target.kind is None:
            return
        refresh = f"REFRESH MATERIALIZED VIEW {one.part.table}"
        try:
            with self.watch.watching(refresh):
                self._step("").execute(f"SET lock_timeout = '{_VIEW_WAIT}'; {refresh}")
        except (psycopg2.errors.LockNotAvailable, psycopg2.errors.QueryCanceled) as error:
            if isinstance(error, psycopg2.errors.QueryCanceled) and not self.watch.forgive():
                raise
            log.warning(f"not refreshed, since others would have waited for it: {refresh};")
        finally:
            self.watch.forgive()
            self._step("").execute("SET lock_timeout = 0")

    def _compared(self, one: StagedPart) -> RestoredPart:
        """Compare each row of a part with the table."""
        counts: dict[tuple[str, str, str | None], tuple[int, list[str]]] = {}
        for in_range in self._ranges(one):
            for how, mark, why, count, keys in rows(self.worker, one.compare(in_range)):
                before, some = counts.get((how, mark, why), (0, []))
                counts[how, mark, why] = (before + count, [*some, *keys][:3])
            self.report(Progress(f"comparing {one.part.name}", "with the backup"))
        equal = sum(count for (how, _, _), (count, _) in counts.items() if how == "equal")
        values = one.part.kind == "values"
        gone = sum(count for (how, _, _), (count, _) in counts.items() if how == "missing" and values)
        different = tuple(
            f"{count:,} {'is' if count == 1 else 'are'} {how} ({_why(mark, why)}): {'; '.join(keys)}"
            for (how, mark, why), (count, keys) in counts.items()
            if how != "equal" and not (how == "missing" and values)
        )
        total = sum(count for count, _ in counts.values())
        kind = "values" if values and one.part.name != one.part.table else "rows"
        return RestoredPart(one.part.name, kind, total, equal, gone, different, one.stage)

    def _ranges(self, one: StagedPart) -> Iterator[str]:
        if not one.in_ranges:
            yield "true"
            return
        size = "SELECT pg_relation_size(%s) / current_setting('block_size')::bigint"
        blocks: int = scalar(self.worker, size, (one.stage,))
        for first in range(0, blocks, _BLOCKS):
            yield f"ctid >= '({first},0)'::tid AND ctid < '({first + _BLOCKS},0)'::tid"

    def _tidy(self, results: Iterable[RestoredPart]) -> None:
        """Drop what is beside, unless it holds rows that differ, and record the restore."""
        step = self._step("")
        for result in results:
            if not result.different:
                step.execute(f"DROP TABLE {result.stage}")
        rest = """
            SELECT EXISTS (SELECT FROM pg_catalog.pg_class
                           WHERE relnamespace = to_regnamespace(%s) AND oid <> to_regclass(%s))
        """
        if not scalar(self.worker, rest, (staged.SCHEMA, staged.OWN)):
            step.execute(f"DROP TABLE {staged.OWN}; DROP SCHEMA {staged.SCHEMA}")
        if not history.exists(self.control):
            return
        attempt = history.Attempt(
            "restore", None, None, None, self.backup.sha256, note=f"restored: {self.backup.path}"
        )

        def record() -> None:
            with self.control.cursor() as cursor:
                history.record(cursor, attempt, "restored")

        with contextlib.suppress(GuvnorError):
            wait_for_tables(self.control, AT_THE_END, record)

    def _step(self, what: str) -> OnlineStep:
        pid = self.worker.info.backend_pid
        policy = ReplicaPolicy(self.settings.replicas_ignore, self.settings.max_wait)
        return OnlineStep(self.worker, self.control, pid, what, self.report, policy, self.watch)


def _why(mark: str, why: str | None) -> str:
    if why is not None:
        return why
    return CHANGED if mark in (staged.BACK, staged.EQUAL) else mark


@dataclass
class _Patience:
    """Gives up when nothing could be put back for too long, since others hold the table or its rows."""

    seconds: float
    watch: Watch
    name: str
    since: float = field(default_factory=time.monotonic)

    def asked(self, change: Callable[[str], str]) -> Callable[[str], str]:
        """Return what makes the statement for a range, as long as it is worth trying."""

        def checked(in_range: str) -> str:
            if time.monotonic() - self.since > self.seconds:
                found = self.watch.blockers
                error = RestoreError(
                    f"Nothing could be put back into {self.name} for {self.seconds:.0f} s. "
                    f"In the way: {blockers.named(found)}.",
                    next_step=typed.again(when="once that has ended: it goes on where it stopped")
                    + blockers.ways_out(found),
                )
                error.exit_code = ExitCode.LOCKED
                raise error
            return change(in_range)

        return checked

    def count(self, returned: tuple[Any, ...]) -> int:
        """Count what a statement has put back."""
        self.since = time.monotonic()
        return int(returned[0])
