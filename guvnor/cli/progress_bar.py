"""How far a long step is: a bar on a terminal, else a log record every few seconds."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from guvnor.online.progress import Progress

log = logging.getLogger(__name__)

_LOG_EVERY = 5.0  # seconds between two records of progress


class ProgressBar:
    """Shows one long step at a time."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._task: Any = None
        self._last_record = 0.0

    def update(self, progress: Progress) -> None:
        """Show how far the step is."""
        if not sys.stderr.isatty() or "NO_PROGRESS" in os.environ:
            now = time.monotonic()
            if now - self._last_record >= _LOG_EVERY:
                self._last_record = now
                known = {"phase": progress.phase, "done": progress.done, "total": progress.total}
                log.info(progress.what, extra=known)
            return
        if self._bar is None:
            self._begin(progress.what)
        self._bar.update(
            self._task,
            description=f"{progress.what}: {progress.phase}",
            completed=progress.done or 0,
            total=progress.total,
        )

    def _begin(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(what)
        self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
