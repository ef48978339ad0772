"""``guvnor migrate status`` as text and as JSON."""

from __future__ import annotations

from typing import Any

from guvnor import typed
from guvnor.bookkeeping import production
from guvnor.bookkeeping.consistency import who_is_ahead
from guvnor.commands.migrate import Status
from guvnor.config import Settings
from guvnor.migrate.locks import Holder


def lines(settings: Settings, status: Status) -> list[str]:
    """Return the lines that a person reads; the first three are those of the Go application."""
    state, identity = status.state, status.identity
    why = production.reason(settings.production_environment, state.production)
    environment = f"production ({why})" if why else settings.environment
    if state.empty:
        first = "No migrations applied (empty database)"
    else:
        number = max(state.golang or 0, 0) if state.dirty or not state.alembic else state.number
        if status.ahead:
            number = state.furthest
        first = f"Version {number}{_dirty(status)}"
    result = [
        f"Migration Status: {first}",
        f"Database Type: {settings.storage_type}",
        "Connection: ✅ OK",
        f"Server: PostgreSQL {identity.version_text} on {identity.host}, port {identity.port}",
        f"Database: {identity.database}",
        f"Role: {identity.role}",
        f"Environment: {environment}",
        f"Pending Migrations: {', '.join(revision.name for revision in status.pending) or 'none'}",
    ]
    if state.dirty and not status.running:
        result += [
            "⚠️  WARNING: Database is in dirty state.",
            "   This usually means a migration failed partway through.",
        ]
        if state.unfinished and _can_be_finished(status):
            start = state.unfinished
            result += [
                f"   Revision {start.revision} (going {start.direction}) {start.ended}.",
                f"   It was started {start.at:%Y-%m-%d %H:%M:%S %Z} by {start.who}; last step: {start.step}.",
                "   Every step of it can be run again: "
                + ("once the cause is corrected, " if start.end == "failed" else "")
                + "`guvnor migrate up` finishes it.",
            ]
            result.append("   `guvnor migrate repair --back` undoes what it has committed instead.")
        else:
            result.append("   Manual intervention may be required to fix the issue.")
        result += status.known
    if status.running:
        result += _running(status.running)
    if status.ahead:
        result.append(
            f"⚠️  WARNING: the database is ahead of the migration files (newest: {status.newest.identifier})."
            + who_is_ahead(state)
        )
    if status.problem and not status.running:
        first, *rest = typed.carried(status.problem.next_step or "").splitlines()
        result += [f"⚠️  WARNING: {status.problem.message}", f"   Next: {first}"]
        result += [f"         {line}" for line in rest]
    return result


def _running(holder: Holder) -> list[str]:
    """Say who is migrating, and whether it gives a sign of life."""
    if not holder.is_gone:
        return [f"Running: {holder.what} is at work: {holder}"]
    silent = f"{holder.silent:.0f} s"
    return [
        f"⚠️  WARNING: the runner of a migration has given no sign of life for {silent}: {holder}",
        "   It is frozen, or its machine or network is gone; the server still keeps its sessions and locks.",
        f"   Next: {holder.ends_it}   -- ends its sessions; {typed.carried('then: guvnor migrate up')}",
    ]


def _dirty(status: Status) -> str:
    if not status.state.dirty:
        return ""
    if status.running:
        return " (a migration is at work)" if not status.running.is_gone else " (a migration has not ended)"
    what = "can be finished" if _can_be_finished(status) else "needs manual intervention"
    return f" (DIRTY - {what})"


def _can_be_finished(status: Status) -> bool:
    return status.state.resumable and status.problem is None


def as_json(settings: Settings, status: Status) -> dict[str, Any]:
    """Return the status for programs."""
    state, identity = status.state, status.identity
    return {
        "version": state.number,
        "revision": state.version,
        "golang_migrate_version": state.golang,
        "dirty": state.dirty,
        "resumable": _can_be_finished(status),
        "pending": [revision.name for revision in status.pending],
        "ahead": status.ahead,
        "newest": status.newest.identifier,
        "problem": status.problem.message if status.problem else None,
        "interrupted": [line.strip() for line in status.known],
        "running": str(status.running) if status.running else None,
        "production": production.reason(settings.production_environment, state.production) is not None,
        "database_type": settings.storage_type,
        "host": identity.host,
        "port": identity.port,
        "database": identity.database,
        "role": identity.role,
        "server_version": identity.version_text,
    }
