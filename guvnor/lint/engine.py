"""Runs the rules over the new revision files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guvnor.lint import files, ignores, squawk
from guvnor.lint.problem import Problem, Report
from guvnor.lint.revision import Revision
from guvnor.lint.rules import FILES_RULES, READABLE, REVISION_RULES, names
from guvnor.lint.source import Source


def lint(configuration_file: Path, since: str | None = None) -> Report:
    """Look at the new revision files.

    :param configuration_file: the ``alembic.ini``.
    :param since: the last revision that is not new (``base``: all are new); when left out, new is what is
        not on the main branch.
    :raises guvnor.revisions.branch.BranchError: when Git does not tell what is new.
    :raises guvnor.errors.UsageError: when there is no such revision.
    :raises guvnor.lint.parsing.MissingToolError: when squawk or the parser is not installed.
    """
    found = files.of_branch(configuration_file) if since is None else files.after(configuration_file, since)
    problems = [problem for source in found.new for problem in _in_file(source)]
    problems += [problem for rule in FILES_RULES for problem in rule.check(found)]
    in_order = sorted(problems, key=lambda problem: (problem.file, problem.line or 0))
    # What a loop runs several times is one problem.
    return Report(tuple(source.name for source in found.new), tuple(dict.fromkeys(in_order)))


def _in_file(source: Source) -> Iterator[Problem]:
    """Look at one file; an ignore in it may let a problem pass."""
    try:
        _ = source.module
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a file may fail in any way when it is run
        message = f"The file cannot be read: {type(error).__name__}: {error}"
        line = getattr(error, "lineno", None)
        yield Problem(READABLE.name, source.shown, line, None, message, "Correct it: Alembic cannot run it.")
        return
    revision = Revision(source)
    problems = [
        Problem(rule.name, source.shown, finding.line, finding.direction, finding.message, rule.instead)
        for rule in REVISION_RULES
        for finding in rule.check(revision)
    ]
    yield from ignores.apply([*problems, *squawk.check(revision)], source, names())
