"""``guvnor migrate plan`` in words and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from guvnor.commands.preview import Preview
from guvnor.schema.rehearsal import ONLINE, StatementEffect
from guvnor.schema.snapshot import Object


def lines(preview: Preview) -> Iterator[str]:
    """Yield the lines that a person reads."""
    plan = preview.plan
    if not plan.steps:
        yield f"Nothing to do: the database is at version {plan.current or 'none'}"
        return
    database = plan.database
    yield f"Plan: {plan.current or 'none'} → {plan.target or 'none'} on {database.database} ({database.host})"
    for number, step in enumerate(plan.steps):
        yield ""
        yield f"{step.direction} {step.revision} {step.description}"
        if preview.effects:
            effect = preview.effects[number]
            for sign, objects in (("+", effect.added), ("~", effect.changed), ("-", effect.dropped)):
                for item in roots(objects):
                    yield f"  {sign} {item}"
        for sql, seen in _statements(preview, number):
            yield ""
            yield from (f"    {line}" for line in dedented(sql))
            yield from (f"    -- {note}" for note in (notes(seen) if seen else ()))
    yield ""
    if preview.losses:
        yield "⚠️  Data that would be lost:"
        yield from (f"  - {loss}" for loss in preview.losses)
    elif preview.effects:
        yield "No data would be lost."
    if preview.unknown:
        yield preview.unknown
    yield f"Plan hash: {plan.hash}"


def roots(objects: Sequence[Object]) -> list[Object]:
    """Leave out what only comes or goes with another object of the list."""
    there = {item.handle for item in objects}
    return [item for item in objects if not any(parent in there for parent in item.parents)]


def dedented(sql: str) -> list[str]:
    """Take off the indentation that a statement has in its revision file."""
    first, *rest = sql.splitlines() or [""]
    return [first, *textwrap.dedent("\n".join(rest)).splitlines()]


def _statements(preview: Preview, number: int) -> Iterator[tuple[str, StatementEffect | None]]:
    if preview.statements is None:
        yield from ((sql, None) for sql in preview.plan.steps[number].statements)
    else:
        yield from ((effect.sql, effect) for effect in preview.statements[number])


def notes(effect: StatementEffect) -> Iterator[str]:
    """Yield what a statement does to tables that existed before it."""
    if effect.online:
        yield f"online: {ONLINE}"
    yield from (f"locks {lock.table}: {lock.mode}" for lock in effect.locks)
    yield from (f"rewrites {table} as a whole" for table in effect.rewrites)
    yield from (f"reads {table} as a whole" for table in effect.scans)


def as_json(preview: Preview) -> dict[str, Any]:
    """Return the same for programs."""
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
                "statements": [
                    {
                        "sql": sql,
                        "online": seen.online if seen else None,
                        "locks": {lock.table: lock.mode for lock in seen.locks} if seen else None,
                        "rewrites": list(seen.rewrites) if seen else None,
                        "scans": list(seen.scans) if seen else None,
                    }
                    for sql, seen in _statements(preview, number)
                ],
                **(
                    {
                        "added": [str(item) for item in preview.effects[number].added],
                        "changed": [str(item) for item in preview.effects[number].changed],
                        "dropped": [str(item) for item in preview.effects[number].dropped],
                    }
                    if preview.effects
                    else {}
                ),
            }
            for number, step in enumerate(plan.steps)
        ],
        "losses": [
            {"kind": loss.kind, "name": loss.name, "count": loss.count, "exact": loss.exact}
            for loss in preview.losses
        ],
        "unknown": preview.unknown,
    }
