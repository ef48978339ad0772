"""Renders a review for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from guvnor import __version__
from guvnor.review.changes import Change
from guvnor.review.effects import DirectionEffects, RevisionEffects
from guvnor.review.review import Review


def as_json(review: Review) -> dict[str, Any]:
    """Return the review."""
    return {
        "tool": f"guvnor {__version__}",
        "exit_code": int(review.exit_code),
        "main": review.main,
        "new": list(review.new),
        "checks": [
            {
                "name": check.name,
                "verdict": check.verdict,
                "count": check.count,
                "summary": check.summary,
                "next": check.next_step,
                "exit_code": int(check.exit_code),
            }
            for check in review.checks
        ],
        "renumberings": [
            {"old": item.old, "new": item.new, "edits": [list(edit) for edit in item.edits]}
            for item in review.renumberings
        ],
        "renumbered": review.renumbered,
        "differences": [vars(f) for f in review.drift.findings] if review.drift else None,
        "problems": [asdict(problem) for problem in review.lint.problems] if review.lint else None,
        "round_trip": _trip(review),
        "wrong_comments": list(review.faults),
        "revisions": [_revision(part) for part in review.parts],
    }


def _trip(review: Review) -> dict[str, Any] | None:
    trip = review.trip
    if trip is None:
        return None
    return {
        "rows": dict(trip.filled.rows),
        "empty": dict(trip.filled.empty),
        "problems": [{"after": problem.after, "lines": list(problem.lines)} for problem in trip.problems],
        "dropped": trip.dropped,
        "notes": trip.notes,
    }


def _revision(part: RevisionEffects) -> dict[str, Any]:
    return {
        "revision": part.revision,
        "description": part.description,
        "file": part.file,
        "max_stall": {"seconds": said.seconds, "reason": said.reason} if (said := part.max_stall) else None,
        "up": _direction(part.up),
        "down": _direction(part.down),
    }


def _direction(direction: DirectionEffects) -> dict[str, Any]:
    return {
        "sql": list(direction.sql),
        "changes": [_change(change) for change in direction.changes],
        "lost": [
            {"kind": loss.kind, "name": loss.name, "how": loss.how, "accepted": loss.accepted}
            for loss in direction.lost
        ],
        "rows_locked": list(direction.rows_locked),
        "constraints": [
            {"constraint": str(item.constraint), "query": item.constraint.query}
            for item in direction.constraints
        ],
        "statements": None
        if direction.seen is None
        else [
            {
                "sql": seen.sql,
                "online": seen.online,
                "locks": {lock.table: lock.mode for lock in seen.locks},
                "rewrites": list(seen.rewrites),
                "scans": list(seen.scans),
            }
            for seen in direction.seen
        ],
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "sign": change.sign,
        "kind": change.object.kind,
        "object": change.object.identity,
        "meaning": change.meaning,
        "parts": dict(change.parts),
        "attributes": [
            {"name": name, "before": before, "after": after} for name, before, after in change.attributes
        ],
    }
