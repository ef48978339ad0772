"""Runs the rules over the new revision files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from guvnor.errors import GuvnorError
from guvnor.lint import (
    data_rules,
    enum_rules,
    files,
    files_rules,
    ignores,
    kept_rules,
    lock_rules,
    protection_rules,
    python_rules,
    second_rendering,
    sql_rules,
    squawk,
)
from guvnor.lint.files import NewRevisions
from guvnor.lint.problem import LintProblem, LintReport
from guvnor.lint.revision import RevisionSource
from guvnor.lint.second_rendering import Rendered
from guvnor.lint.server_parser import ServerParser
from guvnor.lint.squawk_rules import ENFORCED

REVISION_RULES = (
    *sql_rules.RULES,
    *data_rules.RULES,
    *kept_rules.RULES,
    *enum_rules.RULES,
    *python_rules.RULES,
    *lock_rules.RULES,
    *protection_rules.RULES,
)
FILES_RULES = files_rules.RULES

_NAMES = {rule.name for rule in (*REVISION_RULES, *FILES_RULES, ignores.UNUSED)} | set(ENFORCED)


def lint_revisions(configuration_file: Path, since: str | None = None, *, dsn: str = "") -> LintReport:
    """Check the new revision files.

    :param since: the last revision that is not new (``base``: all are new); when left out, the revisions that
        are not on the main branch are new.
    :param dsn: the connection string of a server that reads SQL which the parser does not know yet, and runs
        nothing of it; empty where there is none.
    :raises guvnor.revisions.branch.BranchError: when Git cannot tell which revisions are new.
    :raises guvnor.errors.UsageError: when there is no such revision.
    :raises guvnor.lint.parsing.MissingToolError: when squawk or the parser is not installed.
    """
    found = files.of_branch(configuration_file) if since is None else files.after(configuration_file, since)
    return lint_files(found, second_rendering.again(found.new), dsn)


def lint_files(found: NewRevisions, renderings: Mapping[str, Rendered], dsn: str = "") -> LintReport:
    """Check new revision files that have been read.

    :param renderings: what a second rendering made of them, by the name of the file.
    :param dsn: see :func:`lint_revisions`.
    """
    server = ServerParser(dsn) if dsn else None
    problems, earlier = list[LintProblem](), found.earlier
    for source in found.new:
        again = renderings.get(source.name, {})
        problems += _problems(replace(source, earlier=earlier, server=server, again=again))
        earlier = (*earlier, source)
    if server is not None:
        server.close()
    problems += [problem for rule in FILES_RULES for problem in rule.problems(found)]
    in_order = sorted(problems, key=lambda problem: (problem.file, problem.line or 0))
    # Report a statement in a loop only once.
    return LintReport(tuple(source.name for source in found.new), tuple(dict.fromkeys(in_order)))


def instead(file: Path, direction: str) -> tuple[str, ...]:
    """Return what to write instead of what one direction of a revision does to busy tables, a line each.

    :returns: nothing where no rule knows, or the tools of lint are not installed.
    """
    source = RevisionSource(file.name, file.name, file.read_text("utf-8"))
    try:
        found = [problem for problem in squawk.problems(source) if problem.direction == direction]
    except (GuvnorError, SyntaxError):
        return ()
    return tuple(dict.fromkeys(f"Line {problem.line} of {problem.file}: {problem.help}" for problem in found))


def _problems(source: RevisionSource) -> Iterator[LintProblem]:
    """Yield the problems of one file, except ignored ones."""
    try:
        _ = source.module
    except (Exception, SystemExit) as error:  # noqa: BLE001 - running a file can raise anything
        message = f"The file cannot be imported: {type(error).__name__}: {error}"
        line = getattr(error, "lineno", None)
        help_ = "Correct it: Alembic cannot run it either."
        yield LintProblem(sql_rules.READABLE.name, source.shown, line, None, message, help_)
        return
    problems = [
        LintProblem(rule.name, source.shown, found.line, found.direction, found.message, rule.instead)
        for rule in REVISION_RULES
        for found in rule.violations(source)
    ]
    yield from ignores.apply([*problems, *squawk.problems(source)], source, _NAMES)
