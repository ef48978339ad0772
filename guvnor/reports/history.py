"""``guvnor migrate history`` as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from guvnor.bookkeeping.history import Entry

_SIGNS = {"succeeded": "green", "failed": "red", "interrupted": "yellow", "killed": "red", "running": "cyan"}


def as_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the attempts for programs, times in ISO 8601."""
    return [{**dataclasses.asdict(entry), "at": entry.at.isoformat()} for entry in entries]


def as_table(entries: Sequence[Entry]) -> Table:
    """Return the attempts for a terminal, the oldest first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("started", "what", "version", "outcome"):
        table.add_column(heading, no_wrap=True)
    for heading in ("took", "waited", "tries", "stalled", "size", "who", "tool", "remark"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        who = f"{entry.os_user or '?'}@{entry.host or '?'} as {entry.database_role}"
        table.add_row(
            f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{entry.direction} {entry.revision or ''}".strip(),
            f"{entry.from_version or 'none'} -> {entry.to_version or 'none'}",
            Text(entry.outcome, _SIGNS[entry.outcome]),
            _duration(entry.duration_ms),
            _duration(entry.lock_wait_ms),
            str(entry.tries or ""),
            _stalled(entry),
            _size(entry.size_change),
            f"{who}, {entry.job}" if entry.job else who,
            entry.tool,
            "; ".join(filter(None, (entry.note, (entry.error or "").partition("\n")[0]))),
        )
    return table


def _duration(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.2f} s"


def _stalled(entry: Entry) -> str:
    """Say for how long the application waited at most, and in how many sessions."""
    if not entry.stalled_sessions:
        return ""
    return f"{_duration(entry.stalled_ms)} ({entry.stalled_sessions})"


def _size(change: int | None) -> str:
    return "" if change is None else f"{change / 1024:+.0f} kB"
