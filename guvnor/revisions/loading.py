"""Why a revision file cannot be loaded: which file, which line, and what Python says of it."""

from __future__ import annotations

import shlex
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from guvnor.revisions.files import RevisionFilesError

# Alembic's functions that load a file and look into it. It loads env.py, too; what fails in there is no fault
# of a revision.
_LOADERS, _ENVIRONMENT = ("load_python_file", "_from_path"), "env.py"


def explained(error: BaseException) -> RevisionFilesError | None:
    """Return the error to show when Alembic could not load a revision file; None for every other error.

    :param error: as it was raised, with its traceback.
    """
    path = _loaded(error.__traceback__)
    return unreadable(error, path) if path is not None else None


def unreadable(error: BaseException, path: Path | None) -> RevisionFilesError:
    """Return the error to show for what loading a revision file raised.

    :param path: the file; None where it is unknown.
    """
    kind, said = type(error).__name__, error.msg if isinstance(error, SyntaxError) else str(error)
    reason = f"A migration file cannot be read: {kind}: {said}".rstrip(": ")
    if path is None:
        return RevisionFilesError(reason)
    line, shown = _place(error, path)
    return RevisionFilesError(
        f"{reason} ({path.name}{f', line {line}' if line else ''})"
        + "".join(f"\n    {each}" for each in shown),
        next_step=f"$EDITOR {shlex.quote(str(path))}" + (f"   # line {line}" if line else ""),
    )


def _place(error: BaseException, path: Path) -> tuple[int | None, list[str]]:
    """Return the line of a file that is at fault, and how to show it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        text = (error.text or "").rstrip("\n")
        start = len(text) - len(text.lstrip())
        mark = " " * max((error.offset or 1) - 1 - start, 0) + "^"
        return error.lineno, [text.strip(), mark] if text.strip() else []
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1].lineno, [lines[-1].line] if lines[-1].line else []) if lines else (None, [])


def _loaded(trace: TracebackType | None) -> Path | None:
    """Return the revision file that was being loaded when an error was raised; None for none."""
    found: Path | None = None
    while trace is not None:
        if (path := _argument(trace.tb_frame)) is not None:
            found = path if path.name != _ENVIRONMENT else None
        trace = trace.tb_next
    return found


def _argument(frame: FrameType) -> Path | None:
    if frame.f_code.co_name not in _LOADERS or not frame.f_globals.get("__name__", "").startswith("alembic."):
        return None
    return Path(str(frame.f_locals.get("dir_", "")), str(frame.f_locals.get("filename", "")))
