"""Standard output and standard error that nobody takes: a migration does not fail for them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TextIO


def open_closed() -> None:
    """Let the streams that the caller has closed (``>&-``) lead nowhere; Python has None in their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for the rest of the process


def give_up(stream: TextIO, error: OSError) -> None:
    """Let a stream lead nowhere from now on, after a write to it has failed.

    A reader that has seen enough (``| head -1``) is no news; a full disk is told on standard error.

    :param stream: one with a file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if error.errno != errno.EPIPE and stream is not sys.stderr:
        from guvnor.console import say

        say(f"⚠️  WARNING: the output cannot be written and is lost: {error.strerror}.", sys.stderr)
