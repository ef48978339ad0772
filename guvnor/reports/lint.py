"""Renders a lint report: terminal, JSON, Markdown, GitHub annotations."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from guvnor.lint.problem import LintReport
from guvnor.reports.drift import code, escaped

if TYPE_CHECKING:
    from rich.console import Group


def summary(report: LintReport) -> str:
    """Return the result in one line."""
    if not report.revisions and report.clean:
        return "Lint: no new revision."
    count = len(report.revisions)
    where = f"{count} new {'revision' if count == 1 else 'revisions'}"
    if report.clean:
        return f"Lint: no problem in {where}."
    problems = len(report.problems)
    return f"Lint: {problems} {'problem' if problems == 1 else 'problems'} in {where}."


def as_terminal(report: LintReport) -> Group:
    """Return the report for a terminal, as rich shows it."""
    from rich.console import Group
    from rich.text import Text

    parts = [Text(("✅ " if report.clean else "❌ ") + summary(report))]
    for problem in report.problems:
        parts.append(Text(f"\n{problem.place} ").append(problem.rule, style="bold red"))
        parts.append(Text(f"    {problem.message}"))
        parts += [Text(f"    {line}", style="cyan") for line in problem.help.splitlines()]
    return Group(*parts)


def as_json(report: LintReport) -> str:
    """Return the report as one JSON document."""
    return json.dumps(
        {
            "clean": report.clean,
            "revisions": list(report.revisions),
            "problems": [asdict(problem) for problem in report.problems],
        },
        indent=2,
        ensure_ascii=False,
    )


def as_markdown(report: LintReport) -> str:
    """Return the report as Markdown, as a pull request shows it."""
    lines = [f"### {'✅' if report.clean else '❌'} {summary(report)}"]
    for problem in report.problems:
        lines += [
            "",
            f"#### {code(problem.rule)} in {code(problem.place)}",
            "",
            escape(problem.message, quote=False),
            "",
            "Instead: " + "<br>".join(escape(problem.help, quote=False).splitlines()),
        ]
    return "\n".join(lines) + "\n"


def as_github(report: LintReport) -> str:
    """Return the report as annotations of GitHub Actions, one a line (see its "Workflow commands")."""
    lines = []
    for problem in report.problems:
        where = {"file": problem.file, "line": problem.line, "title": f"Lint: {problem.rule}"}
        properties = ",".join(
            f"{name}={escaped(str(value)).replace(':', '%3A').replace(',', '%2C')}"
            for name, value in where.items()
            if value is not None
        )
        text = escaped(f"{problem.message}\n{problem.help}")
        lines.append(f"::error {properties}::{text}")
    if report.clean:
        lines.append(f"::notice title=Lint::{escaped(summary(report))}")
    return "\n".join(lines) + "\n"
