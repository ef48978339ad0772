"""``guvnor migrate plan`` as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from guvnor.commands.preview import Preview
from guvnor.online import kept_statement
from guvnor.revisions import transaction_control
from guvnor.schema.rehearsal import ONLINE, Effect, StatementEffect

_SEEN_ON_EMPTY = "seen on empty tables: what it does only to rows that exist is not known"


def lines(preview: Preview) -> Iterator[str]:
    """Yield the lines that a person reads."""
    plan = preview.plan
    if not plan.steps:
        at = f"the database is at version {plan.current}" if plan.current else "no migrations are applied"
        yield f"Nothing to do: {at}"
        return
    database = plan.database
    yield f"Plan: {plan.current or 'none'} → {plan.target or 'none'} on {database.database} ({database.host})"
    for number, step in enumerate(plan.steps):
        yield ""
        yield f"{step.direction} {step.revision} {step.description}"
        if (said := step.max_stall) is not None:
            yield f"  ⚠️  may make the application wait for up to {said.text}: {said.reason}"
        if preview.effects:
            effect = preview.effects[number]
            for sign, objects in (("+", effect.added), ("~", effect.changed), ("-", effect.dropped)):
                # Leave out objects that only come or go with another one.
                handles = {item.handle for item in objects}
                yield from (f"  {sign} {item}" for item in objects if handles.isdisjoint(item.parents))
        for sql, seen in _statements(preview, number):
            yield ""
            yield from (f"    {line}" for line in dedented(sql))
            yield from (f"    -- {note}" for note in (notes(seen) if seen else ()))
            if _seen_on_empty_tables(sql, preview.routines):
                yield f"    -- {_SEEN_ON_EMPTY}"
    yield ""
    asked = [loss for loss in preview.losses if loss.accepted is None]
    accepted = [loss for loss in preview.losses if loss.accepted is not None]
    if asked:
        yield "⚠️  Data that would be lost:"
        yield from (f"  - {loss}" for loss in asked)
    elif preview.effects:
        yield "No other data would be lost." if accepted else "No data would be lost."
    if accepted:
        yield "⚠️  Data that would be lost, as the revisions accept:"
        yield from (f"  - {loss} ({loss.revision}: {loss.accepted})" for loss in accepted)
    if preview.unknown:
        yield preview.unknown
    yield f"Plan hash: {plan.hash}"


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
    return {name: list(map(str, getattr(effect, name))) for name in ("added", "changed", "dropped")}
