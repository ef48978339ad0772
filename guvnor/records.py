"""Standard output and standard error as streams of records: each line is one JSON object.

What a command says is written by :func:`say`. What a revision or a library prints becomes records, too.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

_SIGNS = {"⚠️  WARNING: ": "WARN", "⚠️  ": "WARN", "❌ ": "WARN", "✅ ": "INFO"}
_SECRET = re.compile(
    r"""(://)[^\s/@]*:\S*@|\b(\w*password\w*['"]?\s*[=:]\s*)('[^']*'|"[^"]*"|\S+)""", re.IGNORECASE
)


def as_line(content: dict[str, Any], stream: TextIO | None = None) -> str:
    """Return a record as one line, in characters that the stream can show."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    text = json.dumps(content, ensure_ascii=encoding != "utf8", default=str)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair, as JSON escapes it


def levelled(text: str) -> tuple[str, str]:
    """Return the level that the sign before a text stands for, and the text without it."""
    for sign, level in _SIGNS.items():
        if text.startswith(sign):
            return level, text.removeprefix(sign)
    return "INFO", text


def without_secrets(text: str) -> str:
    """Mask what looks like a password in a text that is not ours."""
    return _SECRET.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


class Printed(io.TextIOBase):
    """Stands for a standard stream: each line that is printed to it becomes a record.

    :ivar actual: the stream behind it.
    :ivar result: whether that is standard output.
    :ivar document: whether a document was asked for: its lines pass as they are.
    """

    def __init__(self, actual: TextIO, *, result: bool, document: bool = False) -> None:
        """Stand before a stream."""
        self.actual, self.result, self.document = actual, result, document
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write a record for each line that is complete."""
        if self.document:
            return self.actual.write(text)
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._record(line)
        return len(text)

    def _record(self, line: str) -> None:
        if line.strip():
            level, said = levelled(without_secrets(line.rstrip()))
            say(level, said, self.actual, logger="stdout" if self.result else "stderr")

    def flush(self) -> None:
        """Flush the stream behind it; a line that is not complete waits for its end."""
        with contextlib.suppress(OSError, ValueError):
            self.actual.flush()

    def end(self) -> None:
        """Write the line that never came to its end."""
        with self._lock:
            rest, self._rest = self._rest, ""
        self._record(rest)

    def close(self) -> None:
        """Leave the stream open, which belongs to the process."""

    def isatty(self) -> bool:
        """Tell whether the stream behind it is a terminal."""
        return self.actual.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream behind it."""
        return self.actual.fileno()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it."""
        return self.actual.encoding

    @property
    def buffer(self) -> _Bytes:
        """Takes bytes."""
        return _Bytes(self)


class _Bytes(io.RawIOBase):
    """Takes the bytes that are written beside the text, as ``sys.stdout.buffer`` does."""

    def __init__(self, printed: Printed) -> None:
        self._printed = printed

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._printed.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


def on() -> bool:
    """Tell whether everything that is said is a record."""
    return isinstance(sys.stderr, Printed)


def actual(stream: TextIO) -> TextIO:
    """Return the stream behind one that makes records."""
    return stream.actual if isinstance(stream, Printed) else stream


def say(level: str, msg: str, stream: TextIO | None = None, **fields: Any) -> None:
    """Write a record to standard output, or to another stream.

    :param level: INFO, WARN or ERROR.
    """
    stream = actual(stream or sys.stdout)
    content = {"time": datetime.now(UTC).isoformat(), "level": level, "msg": msg, **fields}
    try:
        print(as_line(content, stream), file=stream, flush=True)
    except OSError:
        lead_nowhere(stream)


def open_closed_streams() -> None:
    """Open the null device for each stream that the caller has closed (``>&-``) and Python set to None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def begin(*, document: bool = False) -> None:
    """Make records of everything that is said, from here to the end of the process.

    :param document: whether standard output is for a document, which stays as it is.
    """
    if not on():
        sys.stdout = Printed(sys.stdout, result=True, document=document)
        sys.stderr = Printed(sys.stderr, result=False)
        logging.captureWarnings(True)


@contextlib.contextmanager
def spoken(*, wanted: bool, document: bool = False) -> Iterator[None]:
    """Make records of everything that is said in the body, where that is wanted; see :func:`begin`."""
    before = sys.stdout, sys.stderr
    if wanted:
        begin(document=document)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if wanted and isinstance(stream, Printed):
                stream.end()
        sys.stdout, sys.stderr = before


def lead_nowhere(stream: TextIO) -> None:
    """After a failed write, redirect a stream to the null device; the migration goes on.

    :param stream: a stream with a file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
