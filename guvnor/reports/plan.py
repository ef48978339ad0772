"""``guvnor migrate plan`` as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from guvnor.commands.preview import Preview
from guvnor.online import kept_statement
from guvnor.reports.formats import counted
from guvnor.revisions import transaction_control
from guvnor.schema.rehearsal import ONLINE, Effect, StatementEffect
from guvnor.schema.snapshot import Object
from guvnor.terminal import Line

_SEEN_ON_EMPTY = "seen on empty tables: what it does only to rows that exist is not known"


def lines(preview: Preview) -> Iterator[Line]:
    """Yield the lines that a person reads."""
    plan = preview.plan
    if not plan.steps:
        at = f"the database is at version {plan.current}" if plan.current else "no migrations are applied"
        yield Line(f"Nothing to do: {at}")
        return
    database = plan.database
    where = f"{database.database} ({database.host})"
    yield Line(f"Plan: {plan.current or 'none'} → {plan.target or 'none'} on {where}", "bold")
    for number, step in enumerate(plan.steps):
        yield Line("")
        yield Line(f"{step.direction} {step.revision} {step.description}", "bold")
        if (said := step.max_stall) is not None:
            text = f"  ⚠️  may make the application wait for up to {said.text}: {said.reason}"
            yield Line(text, "yellow")
        if preview.effects:
            yield from _objects_of(preview.effects[number])
        for sql, seen in _statements(preview, number):
            yield Line("")
            yield from (Line(f"    {line}", code=True) for line in dedented(ended(sql, seen)))
            notes_ = [*notes(seen)] if seen else []
            if _seen_on_empty_tables(sql, preview.routines):
                notes_.append(_SEEN_ON_EMPTY)
            yield from (Line(f"    -- {note}", "dim", code=True) for note in notes_)
        if preview.effects and (triggered := preview.effects[number].triggered):
            yield Line("")
            yield Line(f"  ⚠️  not seen: what the triggers of {', '.join(triggered)} do", "yellow")
    yield Line("")
    asked = [loss for loss in preview.losses if loss.accepted is None]
    accepted = [loss for loss in preview.losses if loss.accepted is not None]
    if asked:
        yield Line("⚠️  Data that would be lost:", "yellow")
        yield from (Line(f"  - {loss}") for loss in asked)
    elif preview.effects:
        yield Line("No other data would be lost." if accepted else "No data would be lost.")
    if accepted:
        yield Line("⚠️  Data that would be lost, as the revisions accept:", "yellow")
        yield from (Line(f"  - {loss} ({loss.revision}: {loss.accepted})") for loss in accepted)
    if preview.unknown:
        yield Line(preview.unknown)
    yield Line(f"Plan hash: {plan.hash}")


def _objects_of(effect: Effect) -> Iterator[Line]:
    """Yield each object that a step creates, changes or drops; what comes or goes with one is below it."""
    for sign, style, objects in (
        ("+", "green", effect.added),
        ("~", "yellow", effect.changed),
        ("-", "red", effect.dropped),
    ):
        tables = {item.identity for item in objects if item.kind == "table"}
        for item in objects:
            if item.kind == "table" or item.identity.rpartition(".")[0] not in tables:
                yield Line(f"  {sign} {item}", style)
                yield from (Line(f"      {line}", code=True) for line in _parts(item, objects))


def _parts(whole: Object, objects: Sequence[Object]) -> Iterator[str]:
    """Yield the names of what comes or goes with a table, a line for each kind."""
    kinds: dict[str, list[str]] = {}
    for item in objects if whole.kind == "table" else ():
        if item.kind != "table" and item.identity.rpartition(".")[0] == whole.identity:
            kinds.setdefault(item.kind, []).append(item.identity.removeprefix(f"{whole.identity}."))
    for kind, names in kinds.items():
        yield f"{kind if len(names) == 1 else counted(2, kind)[2:]} {', '.join(names)}"


def ended(sql: str, seen: StatementEffect | None) -> str:
    """Return a statement with one semicolon at its end; an online operation is none."""
    if seen is not None and seen.online:
        return sql
    statement = sql.rstrip().rstrip(";").rstrip()
    comment = statement.rpartition("\n")[2]
    return f"{statement}\n;" if "--" in comment else f"{statement};"


def dedented(sql: str) -> list[str]:
    """Remove the indentation that a statement has in its revision file.

    Of what an operation writes that keeps rows, a comment is enough.
    """
    if said := kept_statement.summary(sql):
        return [f"-- {said}"]
    first, *rest = sql.splitlines() or [""]
    return [first, *textwrap.dedent("\n".join(rest)).splitlines()]


def _seen_on_empty_tables(sql: str, routines: Iterable[str]) -> bool:
    return kept_statement.summary(sql) is None and transaction_control.seen_on_empty_tables(sql, routines)


def _statements(preview: Preview, number: int) -> Iterator[tuple[str, StatementEffect | None]]:
    if preview.statements is None:
        yield from ((sql, None) for sql in preview.plan.steps[number].statements)
    else:
        yield from ((effect.sql, effect) for effect in preview.statements[number])


def notes(effect: StatementEffect) -> Iterator[str]:
    """Yield what a statement does to existing tables."""
    if effect.online:
        yield f"online: {ONLINE}"
    yield from (f"locks {lock.table}: {lock.mode}" for lock in effect.locks)
    yield from (f"rewrites {table} as a whole" for table in effect.rewrites)
    yield from (f"reads {table} as a whole" for table in effect.scans)


def as_json(preview: Preview) -> dict[str, Any]:
    """Return the preview for programs."""
    plan = preview.plan
    return {
        "database": plan.database.database,
        "current": plan.current,
        "target": plan.target,
        "hash": plan.hash,
        "steps": [
            {
                "direction": step.direction,
                "revision": step.revision,
                "description": step.description,
                "max_stall": {"seconds": said.seconds, "reason": said.reason}
                if (said := step.max_stall)
                else None,
                "statements": [
                    {
                        "sql": sql,
                        "online": seen.online if seen else None,
                        "locks": {lock.table: lock.mode for lock in seen.locks} if seen else None,
                        "rewrites": list(seen.rewrites) if seen else None,
                        "scans": list(seen.scans) if seen else None,
                        "seen_on_empty_tables": _seen_on_empty_tables(sql, preview.routines),
                    }
                    for sql, seen in _statements(preview, number)
                ],
                **(_objects(preview.effects[number]) if preview.effects else {}),
            }
            for number, step in enumerate(plan.steps)
        ],
        "losses": [asdict(loss) for loss in preview.losses],
        "unknown": preview.unknown,
    }


def _objects(effect: Effect) -> dict[str, list[str]]:
    found = {name: list(map(str, getattr(effect, name))) for name in ("added", "changed", "dropped")}
    return found | {"triggers_not_seen": list(effect.triggered)}
