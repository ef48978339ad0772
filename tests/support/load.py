"""The application at work: sessions that update single rows, and know how long each took; one that waits."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import connection

from tests.support.observe import wait_for
from tests.support.server import Target

NAME = "shop"  # what its sessions call themselves


@dataclass(frozen=True)
class Wait:
    """One statement of the application: when it began (``time.monotonic()``), and the seconds it took."""

    session: int
    began: float
    took: float


class Load:
    """Some sessions, each in a thread of its own, that run a statement again and again.

    Use it as a context manager; it fails at its end when a statement has failed.
    """

    def __init__(
        self,
        target: Target,
        statement: str = "UPDATE items SET seen = seen + 1 WHERE id = %(id)s",
        *,
        rows: int = 40,
        sessions: int = 4,
        pause: float = 0.005,
        hold: float = 0.0,
    ) -> None:
        """Connect.

        :param statement: each time with another ``id`` from 1 to ``rows``.
        :param pause: seconds between two statements of a session.
        :param hold: seconds for which each transaction stays open after its statement.
        """
        self.waits: list[Wait] = []
        self.errors: list[str] = []
        self._statement = statement
        self._rows, self._pause, self._hold = rows, pause, hold
        self._ended = threading.Event()
        self._sessions = [target.connect(application_name=NAME) for _ in range(sessions)]
        self.pids = {session.info.backend_pid for session in self._sessions}
        self._threads = [
            threading.Thread(target=self._work, args=(number, session), daemon=True)
            for number, session in enumerate(self._sessions)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        while len({wait.session for wait in list(self.waits)}) < len(self._threads):
            assert not self.errors, self.errors
            time.sleep(0.005)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        assert kind or not self.errors, self.errors

    def stop(self) -> None:
        """Let each session end what it does."""
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def close(self) -> None:
        """End the sessions; otherwise they end with the test."""
        for session in self._sessions:
            session.close()

    @property
    def longest(self) -> float:
        """The seconds that the longest statement took."""
        return max(wait.took for wait in list(self.waits))

    def counts_over(self, seconds: float, until: float) -> list[int]:
        """Count for each session, in rising order, how many statements took longer that began by a moment."""
        counts = [0] * len(self._threads)
        for wait in list(self.waits):
            counts[wait.session] += wait.took > seconds and wait.began < until
        return sorted(counts)

    def _work(self, number: int, session: connection) -> None:
        chance = random.Random(number)
        session.autocommit = not self._hold
        try:
            with session.cursor() as cursor:
                while not self._ended.is_set():
                    began = time.monotonic()
                    cursor.execute(self._statement, {"id": chance.randint(1, self._rows)})
                    self.waits.append(Wait(number, began, time.monotonic() - began))
                    if self._hold:
                        time.sleep(self._hold)
                        session.commit()
                    time.sleep(self._pause)
        except psycopg2.Error as error:
            self.errors.append(f"{type(error).__name__}: {error}")


class Waiter(threading.Thread):
    """A session that waits for a lock until it has it, or is cancelled."""

    def __init__(self, database: Target, *statements: str) -> None:
        """Return once it waits for a lock of the last of the statements, which are one transaction."""
        super().__init__(daemon=True)
        self._session = database.connect(application_name="patient")
        self._session.autocommit = False
        self._statements = statements
        self.pid = self._session.info.backend_pid
        self.began = time.monotonic()
        self.start()
        wait_for("the waiter", lambda: waits(database, self.pid))

    def run(self) -> None:
        try:
            with self._session.cursor() as cursor:
                for statement in self._statements:
                    cursor.execute(statement)
            self._session.rollback()
        except psycopg2.Error:  # the test is over
            pass


def waits(database: Target, pid: int) -> bool:
    """Whether a session waits for a lock."""
    return bool(database.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", [pid]))
