"""Renders revisions a second time: in another process, at another time and place, with other surroundings.

The SQL of a revision is rendered at each run. It must be the same each time: by its checksum the history says
what was run, and by its hash production confirms a plan.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import datetime
import io
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import guvnor
from guvnor.lint.revision import RevisionSource

Rendered = dict[str, tuple[tuple[str, ...], bool]]
"""For ``up`` and ``down``, the statements, and whether the function failed after them."""

_LIMIT = 60.0  # seconds for all revisions together
_LATER = datetime.timedelta(days=4 * 365 + 38, hours=5, minutes=7, seconds=11)


def rendered(source: RevisionSource) -> Rendered:
    """Return the SQL of a revision, rendered in this process."""
    return {
        each.direction: (tuple(call.sql for call in each.calls), each.failure is not None)
        for each in source.directions
    }


def again(sources: Sequence[RevisionSource]) -> dict[str, Rendered]:
    """Render revisions in another process, and return their SQL by the name of the file.

    A file is left out where the process gives no answer.
    """
    sources = [source for source in sources if _may_differ(source)]
    if not sources:
        return {}
    packages = [str(Path(folder).parent) for folder in guvnor.__path__]
    path = [*packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Sets of strings have an order that this seed decides.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with tempfile.TemporaryDirectory(prefix="guvnor-lint-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "guvnor.lint.second_rendering"],
                input=json.dumps([(source.name, source.shown, source.text) for source in sources]),
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path),
                    "PYTHONHASHSEED": seed,
                    "PYTHONUTF8": "1",
                },
                capture_output=True,
                encoding="utf-8",
                timeout=_LIMIT,
                check=True,
            )
            found: dict[str, dict[str, Any]] = json.loads(done.stdout)
        except (subprocess.SubprocessError, ValueError):
            return {}
    return {
        name: {direction: (tuple(texts), failed) for direction, (texts, failed) in each.items()}
        for name, each in found.items()
    }


# Modules that tell nothing of the surroundings, and the builtins that do.
_PURE_MODULES = (
    "__future__",
    "alembic",
    "sqlalchemy",
    "textwrap",
    "json",
    "collections",
    "itertools",
    "typing",
)
_IMPURE_NAMES = frozenset({"open", "set", "frozenset", "hash", "id", "input", "eval", "exec", "context"})


def _may_differ(source: RevisionSource) -> bool:
    """Tell whether anything in a file could make its SQL differ; most files have nothing of it."""
    try:
        found = list(ast.walk(source.tree))
    except (SyntaxError, ValueError):
        return False
    for node in found:
        match node:
            case ast.Import(names=names) if any(name.name not in _PURE_MODULES for name in names):
                return True
            case ast.ImportFrom(module=module) if (module or "").split(".")[0] not in _PURE_MODULES:
                return True
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name) if name in _IMPURE_NAMES or name.startswith("__"):
                return True
            case ast.alias(name=name) if name in _IMPURE_NAMES:
                return True
    return False


class _OtherValue(str):
    """The value of an environment variable elsewhere: equal to whatever it is not equal to here."""

    here: str | None = None

    def __eq__(self, other: object) -> bool:
        return self.here != other

    def __ne__(self, other: object) -> bool:
        return self.here == other

    def __hash__(self) -> int:
        return super().__hash__()


class _OtherEnvironment(dict[str, str]):
    """An environment in which every variable is set that is not set here, and has another value."""

    def __getitem__(self, name: str) -> str:
        value = _OtherValue("" if super().get(name) else "elsewhere")
        value.here = super().get(name)
        return value

    def __contains__(self, name: object) -> bool:
        return not super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - it is set elsewhere
        return self[name]


class _LaterDate(datetime.date):
    @classmethod
    def today(cls) -> Any:
        return super().today() + _LATER


class _LaterTime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return super().now(tz) + _LATER

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)


def _change_surroundings() -> None:
    """Change what a revision must not depend on, for the rest of this process."""
    seconds = _LATER.total_seconds()
    clock, clock_ns, local, utc, written = time.time, time.time_ns, time.localtime, time.gmtime, time.strftime

    def elsewhere(*_: object, **__: object) -> Any:
        raise FileNotFoundError("the file is not there on another machine")

    later: dict[tuple[Any, str], Any] = {
        (time, "time"): lambda: clock() + seconds,
        (time, "time_ns"): lambda: clock_ns() + int(seconds) * 10**9,
        (time, "localtime"): lambda at=None: local(clock() + seconds if at is None else at),
        (time, "gmtime"): lambda at=None: utc(clock() + seconds if at is None else at),
        (time, "strftime"): lambda form, at=None: written(form, at or local(clock() + seconds)),
        (datetime, "datetime"): _LaterTime,
        (datetime, "date"): _LaterDate,
        (os, "environ"): _OtherEnvironment(os.environ),
        (socket, "gethostname"): lambda: "elsewhere",
        (platform, "node"): lambda: "elsewhere",
        (builtins, "open"): elsewhere,
        (io, "open"): elsewhere,
    }
    for owner, names in (
        (os.path, ("exists", "isfile", "isdir")),
        (pathlib.Path, ("exists", "is_file", "is_dir")),
    ):
        for name in names:
            here = getattr(owner, name)
            later[owner, name] = lambda *given, here=here: not here(*given)
    for (owner, name), changed in later.items():
        setattr(owner, name, changed)


def main() -> None:
    """Render the revisions of standard input, and write their SQL to standard output."""
    answer, given = sys.stdout, json.load(sys.stdin)
    _change_surroundings()
    found = {}
    with contextlib.redirect_stdout(sys.stderr):
        for name, shown, text in given:
            try:
                found[name] = rendered(RevisionSource(name, shown, text))
            except (Exception, SystemExit):  # noqa: BLE001 - a revision can raise anything
                found[name] = dict.fromkeys(("up", "down"), ((), True))
    answer.write(json.dumps(found))


if __name__ == "__main__":
    main()
