"""``guvnor migrate history`` as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from guvnor.bookkeeping.history import Entry
from guvnor.terminal import Line, cells

_COLORS = {
    "succeeded": "",
    "accepted": "",
    "failed": "red",
    "interrupted": "yellow",
    "killed": "red",
    "running": "cyan",
}
_HEADINGS = ("started", "what", "version", "outcome", "took", "waited")
_MORE = ("tries", "stalled", "size", "who", "tool", "remark")


def as_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the attempts for programs, times in ISO 8601."""
    return [
        {**dataclasses.asdict(entry), "at": entry.at.isoformat(), "size_change": entry.size_change}
        for entry in entries
    ]


def as_terminal(entries: Sequence[Entry], width: int | None) -> Iterator[Line]:
    """Yield the attempts, the oldest first: a table where it fits, else the rest of each below its row.

    :param width: of the terminal, in columns; None for a pipe or a file.
    """
    rows = [(*_row(entry), *_rest(entry)) for entry in entries]
    whole = _table((*_HEADINGS, *_MORE), rows)
    if width is None or all(cells(line) <= width for line in whole):
        yield Line(whole[0], "bold")
        yield from (Line(line, _COLORS[e.outcome]) for line, e in zip(whole[1:], entries, strict=True))
        return
    heading, *lines = _table(_HEADINGS, [row[: len(_HEADINGS)] for row in rows])
    yield Line(heading, "bold")
    for line, entry in zip(lines, entries, strict=True):
        yield Line(line, _COLORS[entry.outcome])
        yield Line(f"    {', '.join((_who(entry), entry.tool, *_said(entry)))}", "dim")
        if entry.note or entry.error:
            yield Line(f"    {_remark(entry)}")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(cells, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(
            text + " " * (width - cells(text)) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in (headings, *rows)
    ]


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
        f"{entry.direction} {entry.revision or ''}".strip(),
        f"{entry.from_version or 'none'} -> {entry.to_version or 'none'}",
        entry.outcome,
        _duration(entry.duration_ms),
        _duration(entry.lock_wait_ms),
    )


def _rest(entry: Entry) -> tuple[str, ...]:
    stalled = f"{_duration(entry.stalled_ms)} ({entry.stalled_sessions})" if entry.stalled_sessions else ""
    size = _size(entry.size_change)
    return (str(entry.tries or ""), stalled, size, _who(entry), entry.tool, _remark(entry))


def _said(entry: Entry) -> Iterator[str]:
    """Yield what is worth a word: several tries, an application that waited, a change of the size."""
    if (entry.tries or 0) > 1:
        yield f"{entry.tries} tries"
    if entry.stalled_sessions:
        sessions = f"{entry.stalled_sessions} session{'s' if entry.stalled_sessions > 1 else ''}"
        yield f"stalled {sessions} for {_duration(entry.stalled_ms)}"
    if entry.size_change:
        yield f"size {_size(entry.size_change)}"


def _who(entry: Entry) -> str:
    who = f"{entry.os_user or '?'}@{entry.host or '?'} as {entry.database_role}"
    return f"{who}, {entry.job}" if entry.job else who


def _remark(entry: Entry) -> str:
    return "; ".join(filter(None, (entry.note, (entry.error or "").partition("\n")[0])))


def _duration(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.2f} s"


def _size(change: int | None) -> str:
    return "" if change is None else f"{change / 1024:+.0f} kB"
