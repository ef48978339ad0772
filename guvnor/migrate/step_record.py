"""What a step writes into the bookkeeping: its version, the dirty mark, and its events in the history."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

from guvnor.bookkeeping import history, state, versions
from guvnor.migrate.retries import Retries
from guvnor.migrate.stage import Stage
from guvnor.migrate.stalls import Stall
from guvnor.postgres import Connection
from guvnor.postgres.excerpt import excerpt
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import Step

log = logging.getLogger(__name__)


@dataclass
class StepRecord:
    """Writes into the bookkeeping what becomes of a step.

    :ivar attempt: what every event of it has in common in the history.
    :ivar golang_migrate: whether golang-migrate's table is kept in step.
    :ivar lock_wait: seconds waited for locks, over all tries.
    :ivar stalled_ms: the longest that a session of the application waited behind the step.
    :ivar stalled_sessions: how many sessions waited behind it.
    :ivar stalled_statement: the statement that the longest wait was for; only an excerpt of it is recorded.
    """

    step: Step
    attempt: history.Attempt
    golang_migrate: bool
    retries: Retries
    lock_wait: float = field(default=0.0, init=False)
    stalled_ms: int = field(default=0, init=False)
    stalled_sessions: int = field(default=0, init=False)
    stalled_statement: str | None = field(default=None, init=False)

    def figures(self) -> dict[str, int | str | None]:
        """Return the figures that are recorded at the end."""
        return {
            "duration_ms": round((time.monotonic() - self.retries.began) * 1000),
            "lock_wait_ms": round(self.lock_wait * 1000),
            "tries": self.retries.count,
            "stalled_ms": self.stalled_ms,
            "stalled_sessions": self.stalled_sessions,
            "stalled_statement": self.stalled_statement and excerpt(self.stalled_statement),
        }

    def stalled(self, stall: Stall) -> None:
        """Take note of the longest wait of the application because of the step."""
        self.stalled_ms = round(stall.seconds * 1000)
        self.stalled_sessions, self.stalled_statement = stall.sessions, stall.statement

    def standby_stalled(self, seconds: float) -> None:
        """Take note of readers on a standby, who wait for the replay of a lock that was held for so long."""
        what = f"ACCESS EXCLUSIVE was held for {seconds:.1f} s: readers on a standby wait for its replay"
        self.attempt = replace(self.attempt, note="; ".join(filter(None, (self.attempt.note, what))))
        log.warning(what, extra={"revision": self.step.revision})

    def measured(self, connection: Connection, event: str) -> None:
        """Write an event with the size of the database."""
        with connection.cursor() as cursor:
            history.record(cursor, self.attempt, event, database_bytes=history.database_size(connection))

    def half_done(self, cursor: Any, stage: Stage) -> None:
        """Write, before a commit that is not the last one, that the database is dirty from here on."""
        if self.golang_migrate and not stage.committed:
            versions.write_golang(cursor, number(self.step.to_version) or state.NO_VERSION, dirty=True)
        history.record(
            cursor,
            self.attempt,
            "online",
            step=stage.online_step or "a part outside a transaction",
            resumable=stage.online_step is not None,
        )

    def succeeded(self, cursor: Any) -> None:
        """Write that the step is done, in the transaction that writes Alembic's version."""
        if self.golang_migrate:
            versions.write_golang(cursor, number(self.step.to_version) or None, dirty=False)
        history.record(cursor, self.attempt, "succeeded", **self.figures())

    def failed(self, connection: Connection, outcome: str, message: str, sqlstate: str | None) -> None:
        """Write how the step has ended instead."""
        with connection.cursor() as cursor:
            history.record(cursor, self.attempt, outcome, sqlstate=sqlstate, error=message, **self.figures())
