"""Renders a drift report: terminal, JSON, Markdown, GitHub annotations."""

from __future__ import annotations

from itertools import chain
from typing import Any

from guvnor.reports.formats import annotation, as_document, code, counted, fenced, titled
from guvnor.schema.compare import Finding
from guvnor.schema.drift import DriftReport
from guvnor.terminal import Line

_SIGNS = {"missing": "-", "unexpected": "+", "different": "~"}


def summary(report: DriftReport) -> str:
    """Return the result in one line."""
    if report.clean:
        return f"No drift: {report.actual} matches {report.expected}."
    differences = counted(len(report.findings), "difference")
    return f"Drift: {differences} between {report.actual} and {report.expected}."


def as_terminal(report: DriftReport) -> list[Line]:
    """Return the report for a terminal."""
    colors = {"missing": "red", "unexpected": "yellow", "different": "magenta"}
    lines = [Line(titled(summary(report), clean=report.clean))]
    for finding in report.findings:
        title = f"{_SIGNS[finding.change]} {finding.kind} {finding.object} is {finding.change}"
        lines += [Line(""), Line(title, colors[finding.change])]
        lines += [Line(f"    {line}") for line in _details(finding)]
        lines.append(Line(f"    {finding.meaning}", "bold"))
        if finding.with_it:
            lines.append(Line(f"    with it: {', '.join(finding.with_it)}"))
        lines += [Line(f"    {line}", "cyan", code=True) for line in (finding.sql or "").splitlines()]
    listed = partitions(report)
    return [*lines, Line(""), *(Line(line, "dim") for line in listed)] if listed else lines


def partitions(report: DriftReport) -> list[str]:
    """Return a line for each table with partitions that are not known, which are no difference."""
    of: dict[str, list[str]] = {}
    for partition in report.partitions:
        of.setdefault(partition.of, []).append(partition.table)
    return [
        f"Unknown to {report.expected}, no difference: {counted(len(names), 'partition')} of {table}: "
        f"{_short(names)}"
        for table, names in of.items()
    ]


def _short(names: list[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def as_json(report: DriftReport) -> str:
    """Return the report as one JSON document."""
    document = {
        "expected": report.expected,
        "actual": report.actual,
        "clean": report.clean,
        "seconds": round(report.seconds, 3),
        "findings": [vars(finding) for finding in report.findings],
        "partitions": [vars(partition) for partition in report.partitions],
    }
    return as_document(document)


def as_markdown(report: DriftReport) -> str:
    """Return the report as Markdown for a pull request."""
    lines = [f"### {titled(summary(report), clean=report.clean)}"]
    for finding in report.findings:
        title = f"{finding.kind} {code(finding.object)} is {finding.change}"
        lines += ["", f"#### `{_SIGNS[finding.change]}` {title}", "", finding.meaning, ""]
        lines += fenced("text", _details(finding))
        if finding.with_it:
            lines += ["", f"With it: {', '.join(map(code, finding.with_it))}"]
        if finding.sql:
            lines += ["", *fenced("sql", finding.sql.splitlines())]
    for line in partitions(report):
        lines += ["", line]
    return "\n".join(lines) + "\n"


def as_github(report: DriftReport) -> str:
    """Return the report as annotations of GitHub Actions, one per line."""
    lines = []
    for finding in report.findings:
        text = "\n".join((finding.meaning, *_details(finding), *(finding.sql or "").splitlines()))
        lines.append(annotation("error", text, title=f"Drift: {finding.title}"))
    return "\n".join(lines or [annotation("notice", summary(report), title="No drift")]) + "\n"


def _details(finding: Finding) -> list[str]:
    """Return lines with the expected and the actual value of each attribute."""
    sides = [("expected", finding.expected), ("actual", finding.actual)]
    given = [(side, values) for side, values in sides if values is not None]
    names = dict.fromkeys(name for _, values in given for name in values)
    lines = [_value(f"{side} {name}", values.get(name)) for name in names for side, values in given]
    return list(chain.from_iterable(lines))


def _value(label: str, value: Any) -> list[str]:
    if isinstance(value, list):
        text = ", ".join(map(str, value))
    elif value is None:
        text = "none"
    else:
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    first, *rest = text.splitlines() or [""]
    return [f"{label}: {first}", *(f"    {line}" for line in rest)]
