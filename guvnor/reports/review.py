"""Writes a review as Markdown, as a comment of a pull request shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from guvnor.reports import drift as drift_report, lint as lint_report
from guvnor.reports.drift import code
from guvnor.reports.plan import dedented
from guvnor.review import changes
from guvnor.review.changes import Change
from guvnor.review.effects import DirectionEffects, RevisionEffects, stops
from guvnor.review.review import Check, Review
from guvnor.review.roundtrip import RoundTrip
from guvnor.schema.rehearsal import ONLINE, StatementEffect
from guvnor.schema.snapshot import Object

MARKER = "<!-- guvnor-migrations -->"
"""By this first line, a later run finds the comment that it replaces."""

COMMENT_LIMIT = 65_000
"""Characters. GitHub takes 65,536; what reads the file may add a few."""

_SIGNS = {"passed": "✅", "warning": "⚠️", "failed": "❌", "skipped": "➖"}
_LINE_LIMIT = 400  # characters of a line in the table
# Drift speaks of a database that has left its revision; here it is two texts that disagree.
_OF_MODELS = {
    "missing": "The models have it, and no revision makes it.",
    "unexpected": "The revisions make it, and the models do not have it.",
}
_WHOLE = "the whole report: guvnor schema review"


@dataclass(frozen=True)
class _Fold:
    """A part that is folded away, and may be cut.

    :ivar language: of the code block that the lines are in; None for Markdown.
    """

    title: str
    lines: tuple[str, ...]
    language: str | None = None

    def written(self, cap: int) -> list[str]:
        """Return its lines, cut so that they are no longer than ``cap`` characters."""
        kept, length = [], 0
        for line in self.lines:
            length += len(line) + 1
            if length > cap:
                break
            kept.append(line)
        left = len(self.lines) - len(kept)
        body = _fenced(self.language, kept) if self.language else kept
        if self.language is None and (fence := _left_open(kept)):
            body = [*kept, fence]
        if left:
            body = [*body, "", f"*… {_number(left, 'more line')}: {_WHOLE}*"]
        # Without blank lines, GitHub takes what is inside for HTML.
        return ["<details>", f"<summary>{_html(self.title)}</summary>", "", *body, "", "</details>", ""]


def written(review: Review, limit: int | None = None) -> str:
    """Return the report.

    :param limit: in characters; long parts are cut evenly until it is kept. None for the whole.
    """
    head, rest = list(_head(review)), list(_body(review))
    cap = max((len("\n".join(part.lines)) + 1 for part in rest if isinstance(part, _Fold)), default=0)
    while True:
        lines = [*head]
        for part in rest:
            lines += part.written(cap) if isinstance(part, _Fold) else [part]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
        if limit is None or len(text) <= limit:
            return text
        if cap < 100:
            # There are too many parts: what comes last goes.
            note = f"\n\n*… cut here: {_WHOLE}*\n"
            return _closed(text[: limit - len(note) - len("\n</details>")]) + note
        cap //= 2


def _closed(text: str) -> str:
    """Cut at the end of a line, and outside of what is folded away."""
    text = text[: text.rfind("\n")]
    start = text.rfind("<details>")
    return text[:start].rstrip() if start > text.rfind("</details>") else text


def _head(review: Review) -> Iterator[str]:
    """Yield the verdict, the checks, and what to do."""
    failed = [check for check in review.checks if check.verdict == "failed"]
    warned = [check for check in review.checks if check.verdict == "warning"]
    what = _number(len(review.new), "new revision") if review.new else "no new revision"
    yield MARKER
    if failed:
        yield f"## ❌ Migrations: {len(failed)} of {_number(len(review.checks), 'check')} failed ({what})"
    elif warned:
        yield f"## ⚠️ Migrations: nothing failed, please look at {_and([c.name for c in warned])} ({what})"
    else:
        yield f"## ✅ Migrations: all is well ({what})"
    yield ""
    yield "| | check | result |"
    yield "| --- | --- | --- |"
    for check in review.checks:
        yield f"| {_SIGNS[check.verdict]} | {check.name} | {_cell(check.summary)} |"
    yield ""
    if review.renumbered:
        yield "The other checks looked at the revisions as they are once they are renumbered."
        yield ""
    to_do = [check for check in failed if check.next_step or check.name == "One line"]
    if to_do:
        yield "### What to do"
        yield ""
        for check in to_do:
            yield from _next_step(review, check)


def _next_step(review: Review, check: Check) -> Iterator[str]:
    if check.name == "One line" and review.moves:
        names = _and([f"`{move.old}`" for move in review.moves])
        yield f"**{check.name}.** Take in {review.main}, give {names} the next free number, and edit:"
        yield ""
        commands = [f"git merge {review.main}"]
        commands += [
            f"git mv {review.folder}/{move.old} {review.folder}/{move.new}"
            for move in review.moves
            if move.old != move.new
        ]
        yield from _fenced("console", [f"$ {command}" for command in commands])
        yield ""
        edits = []
        for move in review.moves:
            edits.append(f"  {review.folder}/{move.new}")
            edits += [line for old, new in move.edits for line in (f"- {old}", f"+ {new}")]
        yield from _fenced("diff", edits)
    elif check.next_step:
        yield f"**{check.name}.**"
        yield ""
        yield from _fenced("console", check.next_step.splitlines())
    yield ""


def _body(review: Review) -> Iterator[str | _Fold]:
    """Yield the details: findings first, then each revision."""
    if review.drift is not None and not review.drift.clean:
        findings = tuple(
            replace(f, meaning=_OF_MODELS.get(f.change, f.meaning)) for f in review.drift.findings
        )
        text = drift_report.as_markdown(replace(review.drift, findings=findings)).splitlines()
        words = (
            "Expected is what `guvnor/models.py` says; what the revisions make is there. The SQL is what a "
            "revision has to do so that the models are right."
        )
        yield _Fold(f"Models: {_number(len(review.drift.findings), 'difference')}", (words, *text[1:]))
    if review.lint is not None and not review.lint.clean:
        text = lint_report.as_markdown(review.lint).splitlines()
        yield _Fold(f"Lint: {_number(len(review.lint.problems), 'problem')}", tuple(text[2:]))
    trip = None if review.trip is None else _trip(review.trip)
    if trip is not None and review.trip is not None and review.trip.problems:
        yield trip
    for part in review.parts:
        yield from _part(part)
    if trip is not None and review.trip is not None and not review.trip.problems:
        yield trip


def _trip(trip: RoundTrip) -> _Fold:
    lines = []
    for problem in trip.problems:
        lines += [f"after {problem.after}:", *(f"    {line}" for line in problem.lines)]
    lines += trip.notes
    lines += [f"Table {name} stayed empty: {reason}" for name, reason in trip.filled.empty.items()]
    for count in sorted(set(trip.filled.rows.values())):
        names = [name for name, rows in trip.filled.rows.items() if rows == count]
        lines.append(f"{_number(count, 'row')} in each of: {', '.join(sorted(names))}")
    return _Fold(f"Round trip: rows in {_number(len(trip.filled.rows), 'table')}", tuple(lines), "text")


def _part(part: RevisionEffects) -> Iterator[str | _Fold]:
    yield f"### {part.revision} {_escaped(part.description)}"
    yield ""
    yield f"`{part.file}`"
    yield ""
    if part.up.lost:
        yield f"**⚠️ Data loss on the way up:** whatever is stored in {_and(map(_named, part.up.lost))}."
        yield ""
    if part.down.lost:
        lost = _and(map(_named, part.down.lost))
        yield f"**Data loss on the way back:** whatever is stored by then in {lost}."
        yield ""
    for change in part.up.changes:
        yield from _change(change)
    yield ""
    ways = (("up", part.up), ("down", part.down))
    waits = [
        f"- ⚠️ {title}: {code(table)} {why}"
        for title, direction in ways
        for table, why in stops(direction.seen or ())
    ]
    if waits:
        yield "The application waits for as long as this takes:"
        yield ""
        yield from waits
        yield ""
    for title, direction in ways:
        yield _Fold(
            f"SQL {title}: {_number(len(direction.sql), 'statement')}", tuple(_sql(direction.sql)), "sql"
        )
        if rows := list(_seen(direction)):
            yield _Fold(
                f"Locks {title}: {_and(dict.fromkeys(_touched(direction)))}",
                ("| statement | tables that were there before |", "| --- | --- |", *rows),
            )


def _change(change: Change) -> Iterator[str]:
    item = change.object
    parts = ", ".join(_number(count, kind) for kind, count in change.parts)
    line = f"- `{change.sign}` {_named(item)}"
    if parts:
        line += f", with {parts}"
    if change.meaning:
        line += f". {change.meaning}"
    yield line
    for name, before, after in change.attributes:
        yield f"  - {name}: {code(changes.value(before))} → {code(changes.value(after))}"


def _seen(direction: DirectionEffects) -> Iterator[str]:
    for effect in direction.seen or ():
        if notes := list(_notes(effect)):
            statement = code(_first_line(effect.sql)).replace("|", "\\|")
            yield f"| {statement} | {_cell('; '.join(notes))} |"


def _notes(effect: StatementEffect) -> Iterator[str]:
    if effect.online:
        yield f"online: {ONLINE}"
    yield from (f"locks {lock.table}: {lock.mode}" for lock in effect.locks)
    yield from (f"rewrites {table} as a whole" for table in effect.rewrites)
    yield from (f"reads {table} as a whole" for table in effect.scans)


def _touched(direction: DirectionEffects) -> Iterator[str]:
    for effect in direction.seen or ():
        if effect.online:
            yield "online"
        yield from (f"{lock.mode} on {lock.table}" for lock in effect.locks)


def _sql(statements: Sequence[str]) -> Iterator[str]:
    for number, statement in enumerate(statements):
        if number:
            yield ""
        yield from _ended(statement)


def _ended(statement: str) -> list[str]:
    """Return the lines of a statement without the indentation of its revision file, and end it."""
    lines = dedented(statement.rstrip().removesuffix(";"))
    if "--" in lines[-1]:
        return [*lines, ";"]  # it would stand in the comment
    return [*lines[:-1], f"{lines[-1]};"]


def _number(count: int, thing: str) -> str:
    return f"{count} {_plural(thing, count)}"


def _plural(kind: str, count: int) -> str:
    if count == 1:
        return kind
    if kind == "index":
        return "indexes"
    return f"{kind[:-1]}ies" if kind.endswith("cy") else f"{kind}s"


def _and(words: Sequence[str] | Iterator[str] | dict[str, None]) -> str:
    listed = list(words)
    return f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else "".join(listed)


def _first_line(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 120 else f"{text[:119]}…"


def _cell(text: str) -> str:
    """Fit a text into one cell of a table."""
    text = " ".join(text.split())
    text = text if len(text) <= _LINE_LIMIT else f"{text[: _LINE_LIMIT - 1]}…"
    return _html(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Keep what a revision says about itself from being Markdown."""
    return re.sub(r"([\\`*_\[\]|#@])", r"\\\1", _html(text))


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _named(item: Object) -> str:
    return f"{item.kind} {code(item.identity)}"


def _left_open(lines: Sequence[str]) -> str | None:
    """Return the fence that nothing closes any more after a cut."""
    fence = None
    for line in lines:
        if (run := re.match(r"`{3,}", line)) and fence in (None, line):
            fence = None if fence else run[0]
    return fence


def _fenced(language: str | None, lines: Sequence[str]) -> list[str]:
    """Fence lines with more backticks than are in any of them."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language or ''}", *lines, fence]
