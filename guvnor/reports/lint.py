"""Renders a lint report: terminal, JSON, Markdown, GitHub annotations."""

from __future__ import annotations

from dataclasses import asdict
from html import escape

from guvnor.lint.problem import LintReport
from guvnor.reports.formats import annotation, as_document, code, counted, titled
from guvnor.terminal import Line


def summary(report: LintReport) -> str:
    """Return the result in one line."""
    if not report.revisions and report.clean:
        return "Lint: no new revision."
    where = counted(len(report.revisions), "new revision")
    problems = "no problem" if report.clean else counted(len(report.problems), "problem")
    return f"Lint: {problems} in {where}."


def as_terminal(report: LintReport) -> list[Line]:
    """Return the report for a terminal."""
    lines = [Line(titled(summary(report), clean=report.clean))]
    for problem in report.problems:
        lines += [Line(""), Line(f"{problem.place} {problem.rule}", "red")]
        lines.append(Line(f"    {problem.message}"))
        lines += [Line(f"    {line}", "cyan") for line in problem.help.splitlines()]
    return lines


def as_json(report: LintReport) -> str:
    """Return the report as one JSON document."""
    return as_document({"clean": report.clean, **asdict(report)})


def as_markdown(report: LintReport) -> str:
    """Return the report as Markdown for a pull request."""
    blocks = [f"### {titled(summary(report), clean=report.clean)}"]
    for problem in report.problems:
        blocks += [
            f"#### {code(problem.rule)} in {code(problem.place)}",
            escape(problem.message, quote=False),
            "Instead: " + "<br>".join(escape(problem.help, quote=False).splitlines()),
        ]
    return "\n\n".join(blocks) + "\n"


def as_github(report: LintReport) -> str:
    """Return the report as annotations of GitHub Actions, one per line."""
    lines = []
    for problem in report.problems:
        text, title = f"{problem.message}\n{problem.help}", f"Lint: {problem.rule}"
        lines.append(annotation("error", text, file=problem.file, line=problem.line, title=title))
    return "\n".join(lines or [annotation("notice", summary(report), title="Lint")]) + "\n"
