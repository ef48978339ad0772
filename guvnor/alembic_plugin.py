"""Takes part in plain ``alembic`` beyond ``env.py``: errors without a traceback, and records instead of text.

``alembic heads``, ``show`` and ``revision`` load the revision files without or before ``env.py``, and what is
wrong with a command line is said before, too. Alembic imports this module by its entry point
(``alembic.plugins``) while it is being imported itself, so nothing that imports it may be imported at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

# Commands whose output is a document: it is asked for, and stays as it is.
_DOCUMENTS = {"branches", "current", "heads", "history", "list_templates", "show"}
_DOCUMENT_FLAGS = {"--help", "--sql", "--version", "-h"}
_WITH_VALUE = ("-c", "--config", "-n", "--name", "-x")
_FAILED = 255  # Alembic's own errors
_STATE = "No revision was being run."


def setup(_plugin: Any) -> None:
    """Take part in what is shown of an error that nobody has handled."""
    before = sys.excepthook

    def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _is_alembic():  # and in no other program
            from guvnor import records
            from guvnor.cli import console
            from guvnor.revisions import loading

            if (problem := loading.explained(error)) is not None:
                console.error(problem)
                raise SystemExit(problem.exit_code)
            if records.on():
                unforeseen, more = console.unexpected(error)
                console.error(unforeseen, **more)
                return
        before(kind, error, trace)

    sys.excepthook = explain
    if _is_alembic():
        _speak_json(sys.argv[1:])


def _is_alembic() -> bool:
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # Python has yet to find the module
        return sys.orig_argv[len(sys.orig_argv) - len(sys.argv) :][:1] == ["alembic"]
    return "alembic" in Path(program).parts[-2:]


def _speak_json(words: Sequence[str]) -> None:
    """Make records of what Alembic says, where everything is one, see :mod:`guvnor.records`."""
    from guvnor import logs, records

    records.open_closed_streams()
    settings = [after for word, after in pairwise(words) if word == "-x"]
    flags = dict(text.partition("=")[::2] for text in settings)
    if not logs.everything_in_json({name.replace("_", ".", 1): value for name, value in flags.items()}):
        return
    records.begin(document=_command(words) in _DOCUMENTS or not _DOCUMENT_FLAGS.isdisjoint(words))
    argparse.ArgumentParser.error = _wrong_usage  # type: ignore[method-assign, assignment]
    sys.modules["alembic.util"].err = _failed  # type: ignore[attr-defined]


def _command(words: Sequence[str]) -> str:
    """Return the command among the words of a call."""
    found = (
        word
        for before, word in zip(("", *words), words, strict=False)
        if not word.startswith("-") and before not in _WITH_VALUE
    )
    return next(found, "")


def _wrong_usage(_parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say what is wrong with the command line, in the place of :meth:`argparse.ArgumentParser.error`."""
    from guvnor import records

    records.say("ERROR", message, sys.stderr, exit_code=2, state=_STATE, next="alembic --help")
    raise SystemExit(2)


def _failed(message: str, **_quiet: bool) -> NoReturn:
    """Say that a command has failed, in the place of Alembic's function, which prints it."""
    from guvnor import records

    records.say("ERROR", message, sys.stderr, exit_code=_FAILED, state=_STATE, next="alembic history")
    raise SystemExit(_FAILED)
