"""The standard streams: written in signs that they can show, and closed or full ones endured."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TextIO

_PLAIN = {"✅": "[ok]", "❌": "[failed]", "⚠️": "[warning]", "→": "->", "…": "...", "—": "-"}


def plain(text: str, encoding: str | None) -> str:
    """Replace signs that a terminal of this encoding cannot show."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        for sign, replacement in _PLAIN.items():
            text = text.replace(sign, replacement)
        return text.encode(encoding or "ascii", "replace").decode(encoding or "ascii")
    return text


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Write a line to standard output (or another stream), in signs that it can show."""
    stream = stream or sys.stdout
    try:
        print(plain(text, _encoding(stream)), file=stream, flush=True)
    except OSError as error:
        _give_up(stream, error)


def open_closed_streams() -> None:
    """Let the streams that the caller has closed (``>&-``) lead nowhere; Python has None in their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def _give_up(stream: TextIO, error: OSError) -> None:
    """Let a stream lead nowhere from now on, after a write to it has failed; the migration goes on.

    A reader that has seen enough (``| head -1``) is no news; a full disk is told on standard error.

    :param stream: one with a file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if error.errno != errno.EPIPE and stream is not sys.stderr:
        say(f"⚠️  WARNING: the output cannot be written and is lost: {error.strerror}.", sys.stderr)


def result_kept_clean() -> contextlib.AbstractContextManager[object]:
    """Send what revisions print to standard error: standard output is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


def _encoding(stream: TextIO) -> str:
    """Return what a stream can show. In the C locale Python writes UTF-8 all the same (PEP 540)."""
    if sys.flags.utf8_mode and not {"PYTHONUTF8", "PYTHONIOENCODING"} & set(os.environ):
        import locale

        return locale.getencoding()
    return stream.encoding
