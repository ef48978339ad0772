"""Renders a review as Markdown for a comment on a pull request."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import accumulate

from guvnor.backup import losses
from guvnor.online import kept_statement
from guvnor.reports import drift as drift_report, lint as lint_report
from guvnor.reports.formats import code, counted, fenced
from guvnor.reports.plan import dedented, notes
from guvnor.review import changes
from guvnor.review.changes import Change
from guvnor.review.effects import DirectionEffects, RevisionEffects, stops
from guvnor.review.review import Review, ReviewCheck
from guvnor.review.roundtrip import RoundTrip
from guvnor.schema.snapshot import Object

MARKER = "<!-- guvnor-migrations -->"
"""The first line, by which a later run finds the comment that it replaces."""

COMMENT_LIMIT = 65_000
"""Characters. GitHub takes 65,536; a tool that posts the file may add a few."""

_SIGNS = {"passed": "✅", "warning": "⚠️", "failed": "❌", "skipped": "➖"}
_CELL_LIMIT = 40  # characters: the table fits beside the margins of a comment
_EFFECT_LIMIT = 400  # characters
_SAID_LIMIT = 1000  # characters
_LONG = 8  # lines of commands
# The texts of the drift report are about a database; a review compares revisions and models.
_OF_MODELS = {
    "missing": "The models have it, but no revision creates it.",
    "unexpected": "The revisions create it, but the models do not have it.",
}
_EXPECTED = (
    "Expected is the schema of `guvnor/models.py`, actual is that of the revisions. "
    "The SQL is what a revision has to run to match the models."
)
_WHOLE = "the whole report: guvnor schema review"


@dataclass(frozen=True)
class _Fold:
    """A folded part of the report, which may be cut.

    :ivar language: the language of the code block that holds the lines; None for Markdown.
    """

    title: str
    lines: tuple[str, ...]
    language: str | None = None

    def written(self, cap: int) -> str:
        """Return the part with no more lines than fit into ``cap`` characters."""
        lengths = accumulate(len(line) + 1 for line in self.lines)
        kept = [line for line, length in zip(self.lines, lengths, strict=True) if length <= cap]
        left = len(self.lines) - len(kept)
        body = [*kept, *_unclosed(kept)] if self.language is None else fenced(self.language, kept)
        if left:
            body += ["", f"*… {counted(left, 'more line')}: {_WHOLE}*"]
        # Without blank lines, GitHub would render the content as HTML.
        title = f"<details>\n<summary>{escape(self.title, quote=False)}</summary>"
        return "\n\n".join((title, "\n".join(body).strip("\n"), "</details>"))


def _unclosed(lines: Sequence[str]) -> list[str]:
    """Return the fence that a cut has left open."""
    fence = None
    for line in lines:
        if (run := re.match(r"`{3,}", line)) and fence in (None, line):
            fence = None if fence else run[0]
    return [fence] if fence else []


def as_markdown(review: Review, limit: int | None = None) -> str:
    """Return the report.

    :param limit: in characters; None for the whole report. Long parts are cut to the same length; when there
        are too many parts, the last revisions are left out.
    """
    parts = [*_head(review), *_body(review)]
    text, cap = _joined(parts, sys.maxsize), limit or 0
    while limit and len(text) > limit and cap >= 100:
        cap //= 2
        text = _joined(parts, cap)
    if limit and len(text) > limit:
        note = f"\n*… cut here: {_WHOLE}*\n"
        return text[: text.rfind("\n### ", 0, limit - len(note))] + note
    return text


def _joined(parts: Iterable[str | _Fold], cap: int) -> str:
    return "\n\n".join(part.written(cap) if isinstance(part, _Fold) else part for part in parts) + "\n"


def _head(review: Review) -> Iterator[str | _Fold]:
    """Yield the verdict, the checks, and what to do."""
    failed = [check for check in review.checks if check.verdict == "failed"]
    warned = [check.name for check in review.checks if check.verdict == "warning"]
    what = counted(len(review.new), "new revision") if review.new else "no new revision"
    if failed:
        verdict = f"❌ Migrations: {len(failed)} of {counted(len(review.checks), 'check')} failed"
    elif warned:
        verdict = f"⚠️ Migrations: nothing failed, please look at {_and(warned)}"
    else:
        verdict = "✅ Migrations: all is well"
    yield f"{MARKER}\n## {verdict} ({what})"
    rows = [f"| {_SIGNS[check.verdict]} | {check.name} | {_cell(check.count)} |" for check in review.checks]
    yield "\n".join(("| | check | result |", "| --- | --- | --- |", *rows))
    if review.renumbered:
        yield "The other checks used the renumbered revisions."
    if steps := [step for check in failed for step in _next_step(review, check)]:
        yield "### What to do"
        yield from steps
    if looks := [check for check in review.checks if check.verdict == "warning"]:
        yield "### What to look at"
        yield from (f"**{check.name}.** {_said(check.summary)}" for check in looks)
    others = [check for check in review.checks if check.verdict in ("passed", "skipped")]
    if others and review.new:
        words = tuple(f"- **{check.name}.** {_said(check.summary)}" for check in others)
        yield _Fold("The other checks, in words", words)


def _next_step(review: Review, check: ReviewCheck) -> Iterator[str | _Fold]:
    said = f"**{check.name}.** {_said(check.summary)}"
    if check.name == "One line" and review.renumberings:
        names = _and(f"`{item.old}`" for item in review.renumberings)
        yield f"{said} {names} {'gets' if len(review.renumberings) == 1 else 'get'} the next free number:"
        first = review.renumberings[0].old
        commands = (
            f"guvnor migrate renumber {first}",
            f"git commit --all -m {shlex.quote(f'Renumber {first}')}",
        )
        yield _block("console", [f"$ {command}" for command in (*commands, f"git merge {review.main}")])
        return
    yield said
    lines = tuple((check.next_step or "").splitlines())
    if len(lines) > _LONG:
        yield _Fold("Step by step on the local server, with the rows of the check", lines, "console")
    elif lines:
        yield _block("console", lines)


def _body(review: Review) -> Iterator[str | _Fold]:
    """Yield the details: findings first, then each revision."""
    if review.drift is not None and not review.drift.clean:
        findings = tuple(
            replace(f, meaning=_OF_MODELS.get(f.change, f.meaning)) for f in review.drift.findings
        )
        text = drift_report.as_markdown(replace(review.drift, findings=findings)).splitlines()
        yield _Fold(f"Models: {counted(len(findings), 'difference')}", (_EXPECTED, *text[1:]))
    if review.lint is not None and not review.lint.clean:
        text = lint_report.as_markdown(review.lint).splitlines()
        yield _Fold(f"Lint: {counted(len(review.lint.problems), 'problem')}", tuple(text[2:]))
    if len(review.faults) > 1:
        yield "Comments that accept what the revisions do not do:"
        yield "\n".join(f"- {fault}" for fault in review.faults)
    trip = [_trip(review.trip)] if review.trip else []
    revisions = [item for part in review.parts for item in _part(part)]
    yield from (*trip, *revisions) if review.trip and review.trip.problems else (*revisions, *trip)


def _trip(trip: RoundTrip) -> _Fold:
    lines = []
    for problem in trip.problems:
        lines += [f"after {problem.after}:", *(f"    {line}" for line in problem.lines)]
    lines += trip.notes
    lines += [f"Table {name} stayed empty: {reason}" for name, reason in trip.filled.empty.items()]
    for count in sorted(set(trip.filled.rows.values())):
        names = [name for name, rows in trip.filled.rows.items() if rows == count]
        lines.append(f"{counted(count, 'row')} in each of: {', '.join(sorted(names))}")
    return _Fold(f"Round trip: rows in {counted(len(trip.filled.rows), 'table')}", tuple(lines), "text")


def _part(part: RevisionEffects) -> Iterator[str | _Fold]:
    yield f"### {part.revision} {_escaped(part.description)}"
    yield f"`{part.file}`"
    yield from _lost("**⚠️ Data loss on the way up:**", "whatever is stored in", part.up)
    yield from _lost("**Data loss on the way back:**", "whatever is stored by then in", part.down)
    for way, direction in (("up", part.up), ("back", part.down)):
        yield f"Data that changes on the way {way}: {_touches(direction)}."
    yield from _breaking(part)
    if part.max_stall:
        limit, reason = part.max_stall.text, _escaped(part.max_stall.reason)
        yield f"**⚠️ The application may wait** for up to {limit} in each direction: {reason}"
    if part.up.changes:
        yield "\n".join(line for change in part.up.changes for line in _change(change))
    ways = (("up", part.up), ("down", part.down))
    waits = [f"- ⚠️ {way}: {code(table)} {why}" for way, direction in ways for table, why in stops(direction)]
    if waits:
        yield "The application waits for as long as this takes:"
        yield "\n".join(waits)
    for way, direction in ways:
        sql = "\n\n".join(map(_ended, direction.sql)).split("\n")
        yield _Fold(f"SQL {way}: {counted(len(direction.sql), 'statement')}", tuple(sql), "sql")
        if rows := tuple(_seen(direction)):
            table = ("| statement | effect on existing tables |", "| --- | --- |", *rows)
            yield _Fold(f"Locks {way}: {_and(dict.fromkeys(_touched(direction)))}", table)


def _lost(title: str, whatever: str, direction: DirectionEffects) -> Iterator[str]:
    """Say what a direction loses: what it drops first, then what else it does to data."""
    dropped = [f"{loss.kind} {code(loss.name)}" for loss in direction.lost if loss.how == "drop"]
    if dropped:
        yield f"{title} {whatever} {_and(dropped)}."
    if others := [loss for loss in direction.lost if loss.how != "drop"]:
        said = [replace(loss, name=code(loss.name)) for loss in others]
        yield f"{title} it {losses.in_words(said)}."
    for loss in direction.lost:
        if loss.accepted:
            yield f"The revision accepts that for {code(loss.name)}: {_escaped(loss.accepted)}"


def _touches(direction: DirectionEffects) -> str:
    """Name the tables and columns in which a direction changes data."""
    said = changes.of_data(direction.touched)
    return "; ".join(f"it {does} {_and(map(code, names))}" for does, names in said.items()) or "none"


def _breaking(part: RevisionEffects) -> Iterator[str]:
    """Show which rows break the new constraints."""
    if not part.up.constraints:
        return
    yield "**⚠️ Rows of production may break what is new.** These queries show them, and pre-flight runs them:"
    lines = []
    for item in part.up.constraints:
        first = ", which are counted only, since the revision may change them first"
        lines += [f"-- {item.constraint}{first if item.mended or item.unsure else ''}"]
        lines += [f"{item.constraint.query};"]
    yield _block("sql", lines)


def _change(change: Change) -> Iterator[str]:
    line = f"- `{change.sign}` {_named(change.object)}"
    if change.parts:
        line += f", with {', '.join(counted(count, kind) for kind, count in change.parts)}"
    yield f"{line}. {change.meaning}" if change.meaning else line
    for name, before, after in change.attributes:
        yield f"  - {name}: {code(changes.value(before))} → {code(changes.value(after))}"


def _seen(direction: DirectionEffects) -> Iterator[str]:
    for effect in direction.seen or ():
        if told := "; ".join(notes(effect)):
            statement = code(_shortened("\n".join(dedented(effect.sql)), 120)).replace("|", "\\|")
            yield f"| {statement} | {_cell(told, _EFFECT_LIMIT)} |"


def _touched(direction: DirectionEffects) -> Iterator[str]:
    for effect in direction.seen or ():
        if effect.online:
            yield "online"
        yield from (f"{lock.mode} on {lock.table}" for lock in effect.locks)


def _ended(statement: str) -> str:
    """Return a statement without the indentation of its revision file, with a semicolon at the end."""
    lines = dedented(statement.rstrip().removesuffix(";"))
    if kept_statement.summary(statement):
        return lines[0]
    return "\n".join(lines) + ("\n;" if "--" in lines[-1] else ";")  # the line may end in a comment


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _shortened(text: str, limit: int) -> str:
    """Return a text on one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _cell(text: str, limit: int = _CELL_LIMIT) -> str:
    """Fit a text into one cell of a table."""
    return escape(_shortened(text, limit), quote=False).replace("|", "\\|")


def _said(text: str) -> str:
    """Return a sentence on one line."""
    return escape(_shortened(text, _SAID_LIMIT), quote=False)


def _escaped(text: str) -> str:
    """Escape Markdown in the text of a revision."""
    return re.sub(r"([\\`*_\[\]|#@])", r"\\\1", escape(text, quote=False))


def _named(item: Object) -> str:
    return f"{item.kind} {code(item.identity)}"


def _block(language: str, lines: Sequence[str]) -> str:
    return "\n".join(fenced(language, lines))
