"""The standard streams: only characters that a stream can show; a closed or full stream stops nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from guvnor import records, terminal
from guvnor.terminal import Line

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
    """Write a document or a line of one to standard output (or another stream), as it is.

    Only characters that the stream cannot show are replaced.
    """
    stream = stream or sys.stdout
    if isinstance(stream, records.Printed) and stream.result:
        stream = stream.actual
    try:
        print(plain(text, _encoding(stream)), file=stream, flush=True)
    except OSError as error:
        _give_up(stream, error)


def tell(text: str, stream: TextIO | None = None, *, style: str = "", code: bool = False) -> None:
    """Write a line for a person, wrapped to the width of the terminal.

    :param style: see :class:`guvnor.terminal.Line`, as for ``code``.
    """
    stream = stream or sys.stdout
    lines = terminal.laid_out(text, terminal.columns(stream), code=code)
    say(terminal.styled(lines, style, stream), stream)


def tell_lines(lines: Iterable[Line | str]) -> None:
    """Write the lines of a report to standard output."""
    for line in lines:
        if isinstance(line, str):
            tell(line)
        else:
            tell(line.text, style=line.style, code=line.code)


def at_terminal() -> bool:
    """Tell whether a person runs this: some stream is a terminal, and no CI system says that it is one."""
    return not os.environ.get("CI") and any(
        stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr) if stream is not None
    )


def on_one_terminal() -> bool:
    """Tell whether standard output and standard error are read by the same person."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def _give_up(stream: TextIO, error: OSError) -> None:
    """After a failed write, let a stream lead nowhere; the migration goes on.

    A reader that has seen enough (``| head -1``) is normal; a full disk is reported on standard error.

    :param stream: a stream with a file descriptor.
    """
    records.lead_nowhere(stream)
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
