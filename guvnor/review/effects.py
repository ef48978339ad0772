"""What the new revisions do, both ways: their SQL, the objects that change, the locks that are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guvnor import postgres
from guvnor.database import Database
from guvnor.review import changes, scratch
from guvnor.review.changes import Change
from guvnor.review.files import Tree
from guvnor.revisions import files as revision_files, plan
from guvnor.revisions.direction import Direction
from guvnor.revisions.plan import Step
from guvnor.revisions.script import find_steps
from guvnor.schema import rehearsal
from guvnor.schema.rehearsal import StatementEffect
from guvnor.schema.snapshot import Object

# PostgreSQL documentation, "Explicit Locking": who has to wait for a holder of the lock.
_STOPS_WRITERS = ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE")
_STOPS_ALL = "ACCESS EXCLUSIVE"


@dataclass(frozen=True)
class DirectionEffects:
    """One way of a revision.

    :ivar sql: its statements, online operations between COMMIT and BEGIN.
    :ivar changes: what it does to the schema.
    :ivar lost: tables and columns that it drops, with what they hold.
    :ivar seen: what each statement did to tables that were there before; None where that was not looked at.
    """

    sql: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    lost: tuple[Object, ...] = ()
    seen: tuple[StatementEffect, ...] | None = None


@dataclass(frozen=True)
class RevisionEffects:
    """One new revision."""

    revision: str
    description: str
    file: str
    up: DirectionEffects
    down: DirectionEffects


@dataclass(frozen=True)
class Range:
    """From the last revision of the main branch to the last one of the branch, and back.

    :ivar base: the revision before the first new one; None when there is none.
    """

    tree: Tree
    base: str | None
    head: str
    ups: tuple[Step, ...]
    downs: tuple[Step, ...]
    files: tuple[str, ...]


def range_of(tree: Tree, new: Sequence[str]) -> Range:
    """Find the way that the new files take.

    :param tree: files that have been proved to be one line.
    :param new: names of the new ones among them; at least one.
    """
    found = revision_files.read(revision_files.directory(tree.configuration))
    first = next(place for place, file in enumerate(found) if file.path.name in new)
    base, head = found[first - 1].identifier if first else None, found[-1].identifier
    at_base, at_head = (base,) if base else (), (head,)
    nowhere = postgres.Identity("", 0, "", "", 0, "", 0, None, in_recovery=False, read_only=False)
    ups = plan.make(nowhere, base, find_steps(tree.script, Direction.UP, at_base, head)).steps
    downs = plan.make(nowhere, head, find_steps(tree.script, Direction.DOWN, at_head, base)).steps
    return Range(tree, base, head, ups, downs, tuple(file.path.name for file in found[first:]))


def written(found: Range) -> tuple[RevisionEffects, ...]:
    """Write down the SQL of each revision; no database is needed."""
    return tuple(
        RevisionEffects(
            up.revision,
            up.description,
            file,
            DirectionEffects(up.statements),
            DirectionEffects(down.statements),
        )
        for up, down, file in zip(found.ups, reversed(found.downs), found.files, strict=True)
    )


def with_changes(dsn: str, found: Range, parts: Sequence[RevisionEffects]) -> tuple[RevisionEffects, ...]:
    """Add what each revision does to the schema, seen in a shadow.

    :param dsn: of any database of the server; nothing in it is changed.
    """
    with postgres.closing(postgres.connect(dsn, purpose="review")) as connection:
        effects = rehearsal.effects(connection, found.tree.script, found.base, [*found.ups, *found.downs])
    by_key = {(effect.step.direction, effect.step.revision): effect for effect in effects}
    created_here: set[str] = set()  # what the branch has made itself holds nothing when the upgrade drops it
    done = []
    for part in parts:
        up, down = by_key[Direction.UP, part.revision], by_key[Direction.DOWN, part.revision]
        old = [item for item in up.dropped if item.handle not in created_here]
        done.append(
            replace(
                part,
                up=replace(part.up, changes=changes.of_effect(up), lost=changes.stored(old)),
                down=replace(part.down, changes=changes.of_effect(down), lost=changes.stored(down.dropped)),
            )
        )
        created_here |= {item.handle for item in up.added}
    return tuple(done)


def with_locks(dsn: str, found: Range, parts: Sequence[RevisionEffects]) -> tuple[RevisionEffects, ...]:
    """Add what each statement locks, rewrites and reads as a whole, seen in a scratch database.

    :param dsn: of any database of the server, with a role that may make databases.
    """
    with scratch.database(dsn) as place:
        seen = rehearsal.statements(
            Database(place), found.tree.script, found.base, [*found.ups, *found.downs]
        )
    ups, downs = seen[: len(parts)], seen[: len(parts) - 1 : -1]
    return tuple(
        replace(part, up=replace(part.up, seen=tuple(up)), down=replace(part.down, seen=tuple(down)))
        for part, up, down in zip(parts, ups, downs, strict=True)
    )


def stops(seen: Sequence[StatementEffect]) -> list[tuple[str, str]]:
    """Find what makes the application wait for as long as a whole table takes.

    :param seen: the statements of one way of a revision.
    :returns: pairs of table and reason.
    """
    found: list[tuple[str, str]] = []
    held: dict[str, set[str]] = {}
    for statement in seen:
        if statement.online:
            held = {}  # the transaction before it is committed
            continue
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
        found += [(table, f"is written anew under {_STOPS_ALL}") for table in statement.rewrites]
        for table in dict.fromkeys((*statement.scans, *_building(statement))):
            modes = held.get(table, set())
            mode = next((m for m in (_STOPS_ALL, *reversed(_STOPS_WRITERS)) if m in modes), None)
            if mode and table not in statement.rewrites:
                found.append((table, f"is read as a whole under {mode}"))
    return list(dict.fromkeys(found))


def _building(statement: StatementEffect) -> list[str]:
    """Return the tables that an index is built on: what that reads is not counted, but its lock is SHARE."""
    return [lock.table for lock in statement.locks if lock.mode == "SHARE"]
