"""How far a step is with its transactions: which of them are committed, and which one is the last."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stage:
    """How far a step is with its transactions.

    :ivar committed: whether a part of it is committed and the database marked dirty.
    :ivar ended_by_itself: whether SQL of the revision has committed a part of it.
    :ivar still_open: whether the server has not ended the transaction of a try that has failed.
    :ivar resumable: whether every part that is committed can be run again.
    :ivar online_step: the online step that is about to begin.
    :ivar version_written: whether the version is written, so that the next commit is the last one.
    :ivar finished: whether that commit was made.
    """

    committed: bool = False
    ended_by_itself: bool = False
    still_open: bool = False
    resumable: bool = True
    online_step: str | None = None
    version_written: bool = False
    finished: bool = False

    def commit(self) -> bool:
        """Take note of a commit, and tell whether it marks the database dirty, as all but the last one do."""
        if self.version_written:
            self.finished = True
            return False
        self.resumable = self.resumable and self.online_step is not None
        return True

    def retry(self) -> None:
        """Begin another try; what is committed stays."""
        self.version_written = self.finished = False
