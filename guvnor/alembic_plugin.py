"""Explains a revision file that cannot be loaded where plain ``alembic`` would show a traceback.

``alembic heads``, ``show`` and ``revision`` load the revision files without or before ``env.py``. Alembic
imports this module by its entry point (``alembic.plugins``), so nothing else may be imported at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any


def setup(_plugin: Any) -> None:
    """Take part in what is shown of an error that nobody has handled."""
    before = sys.excepthook

    def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if "alembic" in Path(sys.argv[0] if sys.argv else "").parts[-2:]:  # and in no other program
            from guvnor.cli.console import error as show
            from guvnor.revisions import loading

            if (problem := loading.explained(error)) is not None:
                show(problem)
                raise SystemExit(problem.exit_code)
        before(kind, error, trace)

    sys.excepthook = explain
