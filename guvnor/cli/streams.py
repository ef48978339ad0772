"""The standard streams: only characters that a stream can show; a closed or full stream stops nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TextIO

_PLAIN = {"✅": "[ok]", "❌": "[failed]", "⚠️": "[warning]", "→": "->", "…": "...", "—": "-"}


def plain(text: str, encoding: str | None) -> str:
    """Replace characters that a terminal of this encoding cannot show."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        for sign, replacement in _PLAIN.items():
            text = text.replace(sign, replacement)
        return text.encode(encoding or "ascii", "replace").decode(encoding or "ascii")
    return text


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Write a line to standard output (or another stream), in characters that it can show."""
    stream = stream or sys.stdout
    try:
        print(plain(text, _encoding(stream)), file=stream, flush=True)
    except OSError as error:
        _give_up(stream, error)


def open_closed_streams() -> None:
    """Open the null device for each stream that the caller has closed (``>&-``) and Python set to None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def _give_up(stream: TextIO, error: OSError) -> None:
    """After a failed write, redirect a stream to the null device; the migration goes on.

    A reader that has seen enough (``| head -1``) is normal; a full disk is reported on standard error.

    :param stream: a stream with a file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if error.errno != errno.EPIPE and stream is not sys.stderr:
        say(f"⚠️  WARNING: the output cannot be written and is lost: {error.strerror}.", sys.stderr)


def result_kept_clean() -> contextlib.AbstractContextManager[object]:
    """Redirect what revisions print to standard error: standard output is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


def _encoding(stream: TextIO) -> str:
    """Return the encoding that a stream can show; in the C locale, Python would write UTF-8 (PEP 540)."""
    if sys.flags.utf8_mode and not {"PYTHONUTF8", "PYTHONIOENCODING"} & set(os.environ):
        import locale

        return locale.getencoding()
    return stream.encoding
