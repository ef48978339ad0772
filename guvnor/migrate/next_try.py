"""What a step does between two tries: it finds out when the next one is promising."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg2

from guvnor import telemetry
from guvnor.migrate.session import RevisionSession
from guvnor.migrate.step_record import StepRecord
from guvnor.migrate.watch import Watch
from guvnor.online import blockers
from guvnor.online.backoff import Try
from guvnor.online.blockers import Blocker, LockHolder, Wanted
from guvnor.online.knock import Answer, Knock, RevisionStatement

log = logging.getLogger(__name__)


class TimeUpError(Exception):
    """The locks could not be had by the deadline."""


@dataclass
class NextTry:
    """Waits until the next try of a step is promising: it knocks where that is possible, else it pauses.

    :ivar ours: the sessions of this run.
    :ivar check_interrupt: raises the interrupt of a signal that has arrived.
    :ivar blockers: who was in the way at last.
    """

    session: RevisionSession
    watch: Watch
    record: StepRecord
    ours: tuple[int, ...]
    check_interrupt: Callable[[], None]
    knock: Knock = field(default_factory=Knock)
    blockers: tuple[Blocker, ...] = field(default=(), init=False)
    _why: str = field(default="", init=False)
    _told: set[int] = field(default_factory=set, init=False)

    def after(self, attempt: Try, statement: RevisionStatement | None, *, deadlock: bool) -> Try:
        """Wait, and return the next try.

        :param attempt: the try that did not get its locks.
        :param statement: of the revision that had waited or been refused; None for the tool's own.
        :raises TimeUpError: when the time is up.
        """
        retries, knock = self.record.retries, self.knock
        self._why = f"could not get a lock within {attempt.wait * 1000:.0f} ms"
        refused = knock.was_refused
        if not refused:
            self.blockers = self.watch.blockers
        if retries.remaining <= 0:
            raise TimeUpError
        answer = Answer.UNKNOWN
        if refused or (knock.learn(statement, self.watch.wanted, self.blockers) and not deadlock):
            answer = self._knock()
        if answer is Answer.TIME_UP:
            raise TimeUpError
        if answer in (Answer.FREE, Answer.AUTOVACUUM):
            return retries.next_after_knock()
        if answer is Answer.UNKNOWN:
            self._pause(attempt, deadlock=deadlock)
        return retries.next()

    def _knock(self) -> Answer:
        retries, began = self.record.retries, time.monotonic()
        try:
            return self.knock.until_free(self.session.driver, self._look, self._remaining)
        except psycopg2.Error as error:
            log.debug("cannot knock", extra={"reason": str(error).strip(), "tries": retries.count})
            self.check_interrupt()
            return Answer.UNKNOWN
        finally:
            self.record.lock_wait += time.monotonic() - began

    def _remaining(self) -> float:
        self.check_interrupt()
        return self.record.retries.remaining

    def _look(self, locks: list[Wanted]) -> list[LockHolder]:
        """Return who is in the way, and tell it when that has changed."""
        holders = blockers.holders(self.watch.connection, locks, self.ours)
        if holders:
            self.blockers = tuple(holder.blocker for holder in holders)
            self._tell(f"{self._why}, trying again and again without making others queue")
        return holders

    def _pause(self, attempt: Try, *, deadlock: bool) -> None:
        pause = self.record.retries.pause_after(attempt) or 0.0
        why = self._why
        if deadlock:
            why = "was in a deadlock"
        elif self.knock.waits_for:
            why = f"could not make the autovacuum of {self.knock.waits_for} go"
        self._told.clear()
        self._tell(f"{why}, trying again in {pause:.1f} s")
        time.sleep(pause)

    def _tell(self, what: str) -> None:
        """Log why the step waits, when somebody is in the way who was not named before."""
        pids = {blocker.pid for blocker in self.blockers}
        if self._told and pids <= self._told:
            return
        self._told |= pids
        retries, named = self.record.retries, "; ".join(map(str, self.blockers)) or None
        telemetry.event("waiting for a lock", {"guvnor.why": what, "guvnor.blockers": named})
        log.warning(
            what,
            extra={
                "revision": self.record.step.revision,
                "tries": retries.count,
                "blockers": named,
            },
        )
