"""The transaction of a revision, known by its id: whether the revision's own SQL has ended it, and how.

A COMMIT or ROLLBACK in a revision leaves the driver in a transaction or out of one, as its author chose; the
id tells in any case whether it is still the transaction that this tool began (PostgreSQL documentation,
"Transaction ID and Snapshot Information Functions").
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Any

import psycopg2
from psycopg2 import extensions

from guvnor import typed
from guvnor.errors import GuvnorError
from guvnor.postgres import Connection, scalar
from guvnor.postgres.excerpt import redacted

_POLL = 0.05  # seconds
_PATIENCE = 2.0  # seconds that the server may take to end the transaction of a lost connection

# A lock must not be held while a standby is waited for; see guvnor.bookkeeping.confirmation.
COMMIT_LOCALLY = "SET LOCAL synchronous_commit = local"

UNCLEAR = (
    "It is not known what the revision did outside of the tool's transaction; that may be in the database. "
    "The rest was rolled back."
)
STILL_OPEN = (
    "The server has not ended the revision's transaction yet. It rolls it back once it notices that the "
    "connection is gone; until then it holds its locks."
)


class Fate(Enum):
    """What became of a transaction, as the server says it."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    IN_PROGRESS = "in progress"
    UNKNOWN = "unknown"


class EndedByItselfError(GuvnorError):
    """A revision ended its transaction by itself, with a COMMIT or ROLLBACK."""

    def __init__(self, revision: str, statement: str | None = None, *, known: bool = False) -> None:
        """Name the revision, and the last statement that was seen.

        :param known: whether it is known what became of all that the revision did.
        """
        last = f" Last statement: {' '.join(redacted(statement).split())[:200]}" if statement else ""
        super().__init__(
            f"Revision {revision} ended its transaction by itself, with a COMMIT or ROLLBACK.{last}",
            state=None if known else UNCLEAR,
            next_step=None
            if known
            else "guvnor schema check   # which of its objects are in the database\n"
            f"{typed.again(when='once COMMIT and ROLLBACK are deleted from the revision')}",
        )


class OwnTransaction:
    """The transaction that runs a revision, or one part of it.

    :ivar id: as the server knows it; None while there is none.
    :ivar committing: whether the tool commits it.
    """

    def __init__(self) -> None:
        """Know of no transaction yet."""
        self.id: str | None = None
        self.committing = False

    def begin(self, cursor: Any) -> None:
        """Take the id of the cursor's transaction, which has just begun."""
        cursor.execute(f"{COMMIT_LOCALLY}; SELECT pg_current_xact_id()::text")
        (self.id,) = cursor.fetchone()
        self.committing = False

    def is_open(self, driver: Connection) -> bool:
        """Tell whether the driver is still in this transaction; after an error in it, the error itself tells.

        :param driver: of the session that began it.
        """
        if self.id is None or driver.closed or not _can_be_asked(driver):
            return True
        return bool(scalar(driver, "SELECT pg_current_xact_id_if_assigned()::text") == self.id)

    def fate(self, connection: Connection) -> Fate:
        """Ask another session what became of it.

        :param connection: in autocommit mode. The server may take a moment to notice that a session is gone.
        """
        deadline = time.monotonic() + _PATIENCE
        fate = Fate.UNKNOWN
        while time.monotonic() < deadline:
            try:
                fate = Fate(scalar(connection, "SELECT pg_xact_status(%s::xid8)", (self.id,)))
            except psycopg2.errors.QueryCanceled:  # by the signal that ended the try
                continue
            except (psycopg2.Error, ValueError):
                return Fate.UNKNOWN
            if fate is not Fate.IN_PROGRESS:
                break
            time.sleep(_POLL)
        return fate


def _can_be_asked(driver: Connection) -> bool:
    status = driver.info.transaction_status
    return status not in (extensions.TRANSACTION_STATUS_INERROR, extensions.TRANSACTION_STATUS_UNKNOWN)
