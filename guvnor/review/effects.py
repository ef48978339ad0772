"""What the new revisions do in both directions: their SQL, the objects they change, the locks they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set as AbstractSet
from dataclasses import dataclass, replace

import psycopg2

from guvnor import postgres
from guvnor.backup import losses
from guvnor.backup.losses import Loss
from guvnor.database import Database
from guvnor.errors import GuvnorError, reason as reason_of
from guvnor.postgres import Connection
from guvnor.review import changes, expected as expectations, rows, scratch
from guvnor.review.changes import Change
from guvnor.review.files import Tree
from guvnor.revisions import acceptances, files as revision_files, plan
from guvnor.revisions.acceptances import Acceptance
from guvnor.revisions.allowances import Allowance
from guvnor.revisions.plan import Step
from guvnor.revisions.script import Direction, find_steps
from guvnor.schema import rehearsal
from guvnor.schema.constraints import NewConstraint, RowConstraint
from guvnor.schema.data_changes import DataChange
from guvnor.schema.rehearsal import Effect, StatementEffect

Fill = Callable[[Connection, str, Direction], None]

# PostgreSQL documentation, "Explicit Locking": the modes that make others wait, the strictest first.
_STOPS_ALL = "ACCESS EXCLUSIVE"
_STOPS = (_STOPS_ALL, "EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE")


@dataclass
class DirectionEffects:
    """What one direction of a revision does.

    :ivar sql: the statements, with online operations between COMMIT and BEGIN.
    :ivar changes: the changes to the schema.
    :ivar lost: the data that it drops, deletes, overwrites or cuts.
    :ivar rows_locked: the tables of which rows stay locked until its commit.
    :ivar touched: what it does to data that was there before the revision, lost or not.
    :ivar constraints: those that it makes, and that rows of before the branch have to satisfy.
    :ivar seen: what each statement did to existing tables; None where that was not observed.
    """

    sql: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    lost: tuple[Loss, ...] = ()
    rows_locked: tuple[str, ...] = ()
    touched: tuple[DataChange, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    seen: tuple[StatementEffect, ...] | None = None


@dataclass(frozen=True)
class RevisionEffects:
    """What one new revision does.

    :ivar max_stall: how long it says that it may make the application wait; None when it says nothing.
    :ivar accepts: the changes of data that it accepts.
    """

    revision: str
    description: str
    file: str
    up: DirectionEffects
    down: DirectionEffects
    max_stall: Allowance | None = None
    accepts: tuple[Acceptance, ...] = ()


@dataclass(frozen=True)
class Range:
    """The steps from the last revision of the main branch to the last one of the branch, and back.

    :ivar base: the revision before the first new one; None when there is none.
    :ivar steps: the steps all the way up, then all the way down.
    :ivar directions: what each step does, in the same order.
    :ivar parts: what each revision does.
    """

    tree: Tree
    base: str | None
    head: str
    steps: tuple[Step, ...]
    directions: tuple[DirectionEffects, ...]
    parts: tuple[RevisionEffects, ...]


def range_of(tree: Tree, new: Sequence[str]) -> Range:
    """Plan the steps up and down over the new revisions, and render their SQL; no database is needed.

    :param tree: validated revision files.
    :param new: the names of the new files; at least one.
    """
    found = revision_files.read(revision_files.directory(tree.configuration))
    first = next(place for place, file in enumerate(found) if file.path.name in new)
    base, head = found[first - 1].identifier if first else None, found[-1].identifier
    at_base, at_head = (base,) if base else (), (head,)
    nowhere = postgres.Identity("", 0, "", "", 0, "", 0, None, in_recovery=False, read_only=False)
    ups = plan.make(nowhere, base, find_steps(tree.script, Direction.UP, at_base, head)).steps
    downs = plan.make(nowhere, head, find_steps(tree.script, Direction.DOWN, at_head, base)).steps
    steps = (*ups, *downs)
    directions = tuple(DirectionEffects(step.statements) for step in steps)
    parts = tuple(
        RevisionEffects(
            step.revision,
            step.description,
            file.path.name,
            up,
            down,
            step.max_stall,
            acceptances.read(file.path.read_text("utf-8")),
        )
        for step, file, up, down in zip(ups, found[first:], directions, reversed(directions), strict=False)
    )
    return Range(tree, base, head, steps, directions, parts)


def observe(dsn: str, found: Range) -> tuple[list[Effect], str | None]:
    """Find out what each revision does to the schema and to data, observed in a shadow.

    It is run on empty tables and on filled ones: some things happen only where rows are, others only where
    none are.

    :param dsn: the connection string of any database of the server, in which nothing is changed.
    :returns: the effects of the steps, and why they were not seen with rows; None where they were.
    """
    with postgres.closing(postgres.connect(dsn, purpose="review")) as connection:

        def run(fill: Fill | None = None) -> list[Effect]:
            return rehearsal.effects(connection, found.tree.script, found.base, found.steps, fill)

        empty = run()
        expected = expectations.of_effects(empty)
        reason = ""
        for even_mended in (False, True):
            try:
                filled = run(_filling(expected.satisfied(even_mended=even_mended)))
            except (GuvnorError, psycopg2.Error) as error:  # the round trip says whether it fails with rows
                reason = reason or reason_of(error)
            else:
                return [_both(*pair) for pair in zip(empty, filled, strict=True)], None
    return empty, reason


def _filling(satisfied: Sequence[RowConstraint]) -> Fill:
    """Return what fills the tables as the round trip does."""

    def fill(connection: Connection, schema: str, direction: Direction) -> None:
        if direction is Direction.UP:
            rows.fill_schema(connection, schema, satisfying=satisfied)
        else:
            rows.fill_schema(connection, schema, first=101)

    return fill


def _both(one: Effect, other: Effect) -> Effect:
    """Put together what a step does to the data of empty and of filled tables."""
    return replace(
        one,
        data=tuple(dict.fromkeys((*one.data, *other.data))),
        rows_locked=tuple(dict.fromkeys((*one.rows_locked, *other.rows_locked))),
        changes=tuple(dict.fromkeys((*one.changes, *other.changes))),
        at_first=tuple(dict.fromkeys((*one.at_first, *other.at_first))),
        constraints=other.constraints,
    )


def add_changes(found: Range, effects: Sequence[Effect]) -> None:
    """Add what each revision does to the schema and to data; see :func:`observe`."""
    broken: Exception | None = None
    for effect, direction in zip(effects, found.directions, strict=True):
        direction.rows_locked = effect.rows_locked
        direction.touched, direction.constraints = effect.changes, effect.constraints
        try:
            direction.lost = losses.possible([effect])
            direction.changes = changes.of_effect(effect)
        except Exception as error:  # noqa: BLE001 - the other directions are listed nevertheless
            broken = broken or error
    if broken is not None:
        raise broken


def add_locks(dsn: str, found: Range) -> None:
    """Add what each statement locks, rewrites and reads in full, observed in a scratch database.

    :param dsn: the connection string of any database of the server, with a role that may create databases.
    """
    with scratch.database(dsn) as place:
        seen = rehearsal.statements(Database(place), found.tree.script, found.base, found.steps)
    for statements, direction in zip(seen, found.directions, strict=True):
        direction.seen = tuple(statements)


def stops(direction: DirectionEffects) -> list[tuple[str, str]]:
    """Find what makes the application wait while a whole table is read or written.

    :returns: pairs of table and reason.
    """
    found: list[tuple[str, str]] = []
    held: dict[str, set[str]] = {}
    for statement in direction.seen or ():
        if statement.online:
            held = {}  # the transaction before the online operation has been committed
            continue
        before = {table: _strictest(modes) for table, modes in held.items()}
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
        found += [(table, f"is rewritten under {_STOPS_ALL}") for table in statement.rewrites]
        # The server does not count the rows that an index build reads; its lock reveals the build.
        built = [lock.table for lock in statement.locks if lock.mode == "SHARE"]
        for table in sorted({*statement.scans, *built}.difference(statement.rewrites)):
            if mode := _strictest(held.get(table, set())):
                found.append((table, f"is read as a whole under {mode}"))
        busy_with = sorted({*statement.scans, *built, *statement.rewrites})
        found += [
            (table, f"stays locked under {mode} while {other} is read or written as a whole")
            for table, mode in before.items()
            for other in busy_with
            if mode and other != table
        ]
    return list(dict.fromkeys(found))


def _strictest(modes: AbstractSet[str]) -> str | None:
    """Return the strictest of some modes that make others wait; None where none does."""
    return next((mode for mode in _STOPS if mode in modes), None)
