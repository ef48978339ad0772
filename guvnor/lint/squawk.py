"""Runs squawk, which knows what a statement does to a busy table, over the SQL of a revision."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from typing import Any

from guvnor.errors import GuvnorError
from guvnor.lint.parsing import MissingToolError
from guvnor.lint.problem import Problem
from guvnor.lint.revision import Revision, Way
from guvnor.lint.squawk_rules import EXCLUDED, KEYS, RULES
from guvnor.migrate.preflight import OLDEST_SERVER
from guvnor.postgres.quoting import quoted


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
        told = _run(program, sql)
        keys = {found["line"] for found in told if found["rule_name"] in KEYS}
        for found in told:
            rule, line = found["rule_name"], lines[found["line"]]
            double = rule == "constraint-missing-not-valid" and found["line"] in keys
            if line is not None and not double and (rule, way.direction) not in excluded:
                help_ = helps.get(rule) or found["help"] or ""
                yield Problem(rule, revision.source.shown, line, way.direction, found["message"], help_)


def _program() -> str:
    """Find the program: the one beside this Python first, as the wheel puts it there."""
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    program = shutil.which("squawk", path=places)
    if program is None:
        raise MissingToolError("The program squawk is not installed.")
    return program


def _script(way: Way) -> tuple[str, list[int | None]]:
    """Write one direction as a script, and say of each of its lines where it stands in the revision file.

    What runs in a transaction stands between BEGIN and COMMIT, so that squawk knows. A line that an online
    operation has written has no place: squawk sees it, and what it says of it is not for the author.
    """
    script, lines, in_transaction = "", list[int | None](), False
    for placed in way.statements:
        if placed.call.in_transaction != in_transaction:
            in_transaction = placed.call.in_transaction
            script += "BEGIN;\n" if in_transaction else "COMMIT;\n"
            lines.append(None)
        if (
            placed.parsed.node.get("objtype") == "OBJECT_MATVIEW"
            and placed.parsed.kind == "CreateTableAsStmt"
        ):
            # squawk counts tables only among what is new, and so not busy.
            script += f"CREATE TABLE {quoted(placed.parsed.node['into']['rel']['relname'])} ();\n"
            lines.append(None)
        script += f"{placed.parsed.sql}\n;\n"
        # One line more than the statement has: the semicolon's.
        numbers = range(placed.parsed.sql.count("\n") + 2)
        lines += [placed.line_of(number) if placed.call.is_written_out else None for number in numbers]
    # Ignores are comments of Python; squawk's own must not work.
    script = script.replace("squawk-ignore", "squawk_ignore")
    return script + ("COMMIT;\n" if in_transaction else ""), [*lines, None]


def _run(program: str, sql: str) -> list[dict[str, Any]]:
    """Return what squawk says of a script.

    What is excluded is left out afterwards: squawk refuses to exclude a rule that its version does not know.
    An empty configuration keeps it from looking for one of its own.
    """
    done = subprocess.run(
        [program, f"--config={os.devnull}", "--reporter=json", f"--pg-version={OLDEST_SERVER}.0"],
        input=sql,
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
