"""Runs squawk, which knows what a statement does to a busy table, on the SQL of a revision."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from functools import partial
from itertools import takewhile
from typing import Any

from guvnor.config import OLDEST_SERVER
from guvnor.errors import GuvnorError
from guvnor.lint import harmless
from guvnor.lint.known_schema import KnownSchema
from guvnor.lint.parsing import MissingToolError, ParsedStatement
from guvnor.lint.problem import LintProblem
from guvnor.lint.revision import RevisionSource
from guvnor.lint.squawk_rules import ENFORCED, KEY_RULES, OFF, OFF_IN_DOWNGRADE, UNTIL_UNUSED
from guvnor.postgres.quoting import quoted


def problems(source: RevisionSource) -> Iterator[LintProblem]:
    """Return what squawk finds in both directions of a revision.

    :raises MissingToolError: when squawk is not installed.
    :raises GuvnorError: when squawk prints no result.
    """
    program = _program()
    for rendered in source.directions:
        direction = rendered.direction
        statements = [s for s in source.statements if s.call.direction == direction]
        script, origins = _script(statements)
        warnings = _run(program, script)
        keys = {warning["line"] for warning in warnings if warning["rule_name"] in KEY_RULES}
        for warning in warnings:
            rule, origin = warning["rule_name"], origins[warning["line"]]
            off = rule in OFF or (direction == "down" and rule in OFF_IN_DOWNGRADE)
            double = rule == "constraint-missing-not-valid" and warning["line"] in keys
            if origin is None or off or double:
                continue
            statement, line = origin
            before = partial(schema_before, source, statement)
            if harmless.is_harmless(rule, statement, before):
                continue
            instead = harmless.advice(rule, statement, before) or ENFORCED.get(rule)
            instead = instead or warning["help"] or UNTIL_UNUSED
            yield LintProblem(rule, source.shown, line, direction, warning["message"], instead)


def _program() -> str:
    """Find squawk, first beside this Python, where the wheel installs it."""
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    if program := shutil.which("squawk", path=places):
        return program
    raise MissingToolError("The program squawk is not installed.")


def schema_before(source: RevisionSource, statement: ParsedStatement) -> KnownSchema:
    """Return what the statements before a statement say of the schema."""
    before = list[ParsedStatement]()
    for earlier in source.earlier:
        with contextlib.suppress(Exception):  # a file that cannot be imported says nothing
            before += [found for found in earlier.statements if found.call.direction == "up"]
    return KnownSchema((*before, *takewhile(lambda found: found is not statement, source.statements)))


def _script(statements: list[ParsedStatement]) -> tuple[str, list[tuple[ParsedStatement, int] | None]]:
    """Return one direction as a script, and for each of its lines the statement and the line of the file.

    BEGIN and COMMIT tell squawk what runs in a transaction. SQL that an online operation generates is in the
    script, too, but has no line of the file: the author of the revision did not write it.
    """
    script, origins, in_transaction = "", list[tuple[ParsedStatement, int] | None](), False
    for statement in statements:
        if statement.call.in_transaction != in_transaction:
            in_transaction = statement.call.in_transaction
            script += "BEGIN;\n" if in_transaction else "COMMIT;\n"
            origins.append(None)
        if statement.kind == "CreateTableAsStmt" and statement.node.get("objtype") == "OBJECT_MATVIEW":
            # squawk knows that a new table is not busy; tell it the same of a new materialized view.
            script += f"CREATE TABLE {quoted(statement.node['into']['rel']['relname'])} ();\n"
            origins.append(None)
        script += f"{statement.sql}\n;\n"
        # The semicolon has a line of its own.
        numbers = range(statement.sql.count("\n") + 2)
        written = statement.call.is_written_out
        origins += [(statement, statement.line_of(n)) if written else None for n in numbers]
    # Ignores are Python comments; squawk's own must have no effect.
    script = script.replace("squawk-ignore", "squawk_ignore")
    return script + ("COMMIT;\n" if in_transaction else ""), [*origins, None]


def _run(program: str, sql: str) -> list[dict[str, Any]]:
    """Run squawk over a script and return its warnings.

    The caller filters out rules that are off, since squawk fails when told to exclude a rule that its version
    does not know. The empty configuration keeps squawk from reading one in the current directory.
    """
    done = subprocess.run(
        [program, f"--config={os.devnull}", "--reporter=json", f"--pg-version={OLDEST_SERVER}.0"],
        input=sql,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "SQUAWK_DISABLE_GITHUB_ANNOTATIONS": "1"},
        check=False,
    )
    try:
        warnings: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        raise GuvnorError(
            f"squawk printed no result: {done.stderr.strip()}",
            state="Nothing was changed.",
            next_step="squawk --version",
        ) from None
    return warnings
