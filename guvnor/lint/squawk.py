"""Runs squawk, which knows what a statement does to a busy table, over the SQL of a revision."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guvnor.errors import GuvnorError
from guvnor.lint.parsing import MissingToolError
from guvnor.lint.problem import Problem
from guvnor.lint.revision import Revision, Way
from guvnor.lint.squawk_rules import EXCLUDED, RULES
from guvnor.migrate.preflight import OLDEST_SERVER


class SquawkError(GuvnorError):
    """squawk did not say what it found."""

    state = "Nothing was changed."
    next_step = "squawk --version"


def check(revision: Revision) -> Iterator[Problem]:
    """Return what squawk finds in both ways of a revision.

    :raises MissingToolError: when squawk is not installed.
    """
    program = _program()
    helps = {rule.name: rule.instead for rule in RULES}
    excluded = {(rule.name, direction) for rule in EXCLUDED for direction in rule.directions}
    for way in revision.ways:
        sql, lines = _script(way)
        for found in _run(program, sql) if sql else ():
            rule = found["rule_name"]
            if (rule, way.direction) not in excluded:
                help_ = helps.get(rule) or found["help"] or ""
                line = lines[found["line"]]
                yield Problem(rule, revision.source.shown, line, way.direction, found["message"], help_)


def _program() -> str:
    """Find the program: the one beside this Python first, as the wheel puts it there."""
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    program = shutil.which("squawk", path=places)
    if program is None:
        raise MissingToolError("The program squawk is not installed.")
    return program


def _script(way: Way) -> tuple[str, list[int]]:
    """Write one direction as a script, and say of each of its lines where it stands in the revision file.

    What runs in a transaction stands between BEGIN and COMMIT, so that squawk knows.
    """
    texts: list[tuple[str, int]] = []
    in_transaction = False
    for placed in way.statements:
        if placed.call.in_transaction != in_transaction:
            in_transaction = placed.call.in_transaction
            texts.append(("BEGIN" if in_transaction else "COMMIT", placed.line))
        texts.append((placed.parsed.sql, placed.line))
    if in_transaction:
        texts.append(("COMMIT", texts[-1][1]))
    script, lines = "", []
    for sql, first in texts:
        script += f"{sql}\n;\n"
        lines += [first + number for number in range(sql.count("\n") + 1)] + [first]
    return script, lines


def _run(program: str, sql: str) -> list[dict[str, Any]]:
    """Return what squawk says of a script.

    What is excluded is left out afterwards: squawk refuses to exclude a rule that its version does not know.
    It looks for a configuration of its own from the current directory upward; ours stands in this package.
    """
    done = subprocess.run(
        [program, "--reporter=json", f"--pg-version={OLDEST_SERVER}.0"],
        input=sql,
        cwd=Path(program).parent,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "SQUAWK_DISABLE_GITHUB_ANNOTATIONS": "1"},
        check=False,
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        raise SquawkError(f"squawk did not say what it found: {done.stderr.strip()}") from None
    return found
