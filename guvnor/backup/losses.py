"""The data that a plan would lose: what it drops, truncates, deletes, overwrites, or cuts by a cast.

This is the one place that says what counts as a loss; the plan, the production guard, the backup, the deploy
job and the report ask it. What the statements do is seen in a shadow; how much that can be, the live database
says. A view holds no data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
from psycopg2 import errorcodes

from guvnor.postgres import Connection, scalar, snapshot
from guvnor.postgres.quoting import constant
from guvnor.revisions import acceptances
from guvnor.schema.data_changes import DataChange
from guvnor.schema.rehearsal import Effect
from guvnor.schema.snapshot import Object

_PATIENCE = "3s"  # for counting in one table; after that the estimate is taken, where there is one

_FIRST_NAME = re.compile(r'"(?:[^"]|"")+"|[^".]+')

UNKNOWN = ("unknown",)
"""What a confirmation covers where the shadow cannot say what is lost."""

_GRAVITY = ("drop", "truncate", "delete", "unseen", "rewrite", "attribute", "cast", "update")
WORDS = {
    "drop": "drops",
    "truncate": "truncates",
    "delete": "deletes rows of",
    "update": "overwrites",
    "cast": "cuts, rounds or narrows",
    "attribute": "drops an attribute of",
    "rewrite": "overwrites",
    "unseen": "may change",
    "insert": "adds rows to",
}
_VERBS = {
    "drop": "drops",
    "attribute": "drops",
    "truncate": "deletes",
    "delete": "deletes",
    "rewrite": "overwrites",
    "update": "overwrites",
    "cast": "cuts",
    "unseen": "may change",
}
# What may be done to some of the rows or values alone.
_PARTS = {
    "delete": "from which {some} {are} deleted",
    "update": "of which {some} {are} overwritten",
    "rewrite": "of which {some} {are} overwritten",
    "unseen": "whose triggers are switched off: {some} may be changed",
}


@dataclass(frozen=True)
class Loss:
    """Data that a plan may lose.

    :ivar kind: ``table`` for rows or ``column`` for values.
    :ivar name: as SQL writes it, with its table before a column.
    :ivar count: rows of a table, values that are not NULL of a column, values that a cast changes; None where
        they could not be counted and the planner has no estimate: row security hides them, or counting takes
        too long.
    :ivar exact: whether it was counted; otherwise it is the planner's estimate.
    :ivar at_most: whether fewer may be lost: it is not known which rows are meant.
    :ivar how: what is done: see :data:`guvnor.schema.stored_data.How`.
    :ivar revision: the revision that does it.
    :ivar direction: ``up`` or ``down``.
    :ivar accepted: why the revision accepts it; None where it does not.
    :ivar type: the type that a cast ends with.
    """

    kind: str
    name: str
    count: int | None = None
    exact: bool = False
    how: str = "drop"
    revision: str = ""
    direction: str = ""
    accepted: str | None = None
    type: str | None = None
    at_most: bool = False

    def __str__(self) -> str:
        """Describe the loss in one phrase."""
        what = f"{self.kind} {self.name}"
        if self.how == "cast":
            if self.count is None:
                return (
                    f"{what}, whose type becomes {self.type}: how many values that changes cannot be counted"
                )
            unit = "value" if self.count == 1 else "values"
            return f"{what} with {self.count:,} {unit} that the type {self.type} cuts, rounds or refuses"
        noun = "row" if self.kind == "table" else "value"
        unit = noun if self.count == 1 else f"{noun}s"
        count = None if self.count is None else f"{'' if self.exact else 'about '}{self.count:,} {unit}"
        if self.how in _PARTS:
            some = f"{'up to ' if self.at_most else ''}{count}" if count else f"an unknown number of {unit}"
            return f"{what}, {_PARTS[self.how].format(some=some, are='is' if self.count == 1 else 'are')}"
        done = {"truncate": "is truncated", "attribute": "loses an attribute of its type"}.get(self.how)
        if count is None:
            return f"{what}, which could not be counted{f' and {done}' if done else ''}"
        return f"{what} with {count}{f', which {done}' if done else ''}"

    @property
    def table(self) -> str:
        """The table, as SQL writes it; both names may hold a dot in quotes."""
        found = _FIRST_NAME.match(self.name)
        return self.name if self.kind == "table" or found is None else found.group()

    @property
    def hashed(self) -> str:
        """What a confirmation covers of it."""
        return f"{self.revision} {self.direction} {WORDS[self.how]} {self.kind} {self.name} {self.type or ''}"


def possible(effects: Iterable[Effect]) -> tuple[Loss, ...]:
    """Return what a plan may lose, before anybody counts what the live database holds."""
    return _gravest(loss for loss, change in _possible(effects) if not change.harmless)


def hashed(effects: Iterable[Effect]) -> tuple[str, ...]:
    """Return what a confirmation covers: the kinds and names of all that may be lost, without numbers."""
    return tuple(sorted({loss.hashed for loss, _ in _possible(effects)}))


def read(connection: Connection, effects: Iterable[Effect]) -> tuple[Loss, ...]:
    """Count what a plan may lose and the live database has.

    :param connection: in autocommit mode.
    :returns: what is lost, and what is dropped without anything in it.
    """
    counted = (_count(connection, loss, change) for loss, change in _possible(effects))
    return _gravest(loss for loss in counted if loss is not None and (loss.count != 0 or loss.how == "drop"))


def in_words(losses: Iterable[Loss]) -> str:
    """Say what a direction of a revision does: ``drops table a and column b.c, truncates table d``."""
    said: dict[str, list[str]] = {}
    for loss in losses:
        said.setdefault(WORDS[loss.how], []).append(f"{loss.kind} {loss.name}")
    return "; ".join(f"{verb} {', '.join(dict.fromkeys(names))}" for verb, names in said.items())


def verbs(losses: Iterable[Loss]) -> str:
    """Say what is done to data, in verbs alone: ``drops, deletes and overwrites``."""
    found = list(losses)
    said = list(dict.fromkeys(_VERBS[how] for how in _VERBS if any(loss.how == how for loss in found)))
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or "may lose"


def objects(effects: Iterable[Effect]) -> tuple[Object, ...]:
    """Return the objects whose data a backup of what a plan loses has to hold.

    A table that is emptied counts as a whole; a column that is overwritten or cast, by its values. What is
    not lost but goes along is among them: the state of a sequence, the refresh of a materialized view.
    """
    effects = list(effects)  # the backup takes tables that inherit one by one
    along = [i for e in effects for i in e.dropped if i.kind in ("sequence", "materialized view")]
    found = {item.handle: item for item in along}
    said: dict[str, dict[str, Any]] = {}
    for loss, change in _possible(effects, along=True):
        table = f"relation:{change.table}"
        attributes: dict[str, Any] = {"revisions": [], "along": True}  # those that lose its data
        if change.column is None:
            attributes["emptied"] = change.how if change.how != "drop" else None
            item = Object("table", change.table, attributes)
        else:
            item = Object("column", change.name, attributes, (table,))
        found.setdefault(item.handle, item)
        attributes = said.setdefault(item.handle, attributes)
        attributes["revisions"].append(loss.revision)
        attributes["along"] &= change.along
        if change.column is not None and attributes.get("how") != "drop":
            attributes["how"] = change.how
    return tuple(found.values())


def _possible(effects: Iterable[Effect], *, along: bool = False) -> Iterator[tuple[Loss, DataChange]]:
    """Find all that is lost; what happens to a table or column twice is named twice.

    :param along: also name tables whose rows count with those of another one.
    """
    found: list[tuple[Loss, DataChange]] = []
    for effect in effects:
        step = effect.step
        for change in effect.data:
            if change.kept or change.how == "insert" or (change.harmless and change.how == "update"):
                continue  # a cast is judged by the values that there are
            if change.along and not along:
                continue
            accepted = acceptances.covering(step.acceptances, *change.here)
            loss = Loss(
                "table" if change.column is None else "column",
                change.name,
                how=change.how,
                revision=step.revision,
                direction=str(step.direction),
                accepted=accepted.reason if accepted else None,
                type=change.types[-1].name if change.types else None,
            )
            found.append((loss, change))
    yield from dict.fromkeys(found)


def _gravest(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Name each table and column once, with the gravest that happens to it.

    A loss that is accepted does not hide one that is not.
    """
    found = list(losses)
    ranked = sorted(found, key=lambda loss: (loss.accepted is not None, _GRAVITY.index(loss.how)))
    kept: dict[str, Loss] = {}
    gone = {loss.name: loss for loss in ranked if loss.kind == "table" and loss.how in ("drop", "truncate")}
    for loss in ranked:
        whole = gone.get(loss.table)
        if loss.kind == "table" or whole is None or (whole.accepted and not loss.accepted):
            kept.setdefault(loss.name, loss)
    return tuple(loss for loss in dict.fromkeys(found) if kept.get(loss.name) == loss)


def _count(connection: Connection, loss: Loss, change: DataChange) -> Loss | None:
    """Count what is lost; use the planner's estimate where counting takes too long.

    :returns: None when the table or column does not exist.
    """
    if change.how == "cast" and any(type_.is_nested for type_ in change.types):
        return None if change.harmless else loss  # the live database may have another type of that name
    # Identity and names come from the server, quoted where necessary.
    conditions = [f"{change.column} IS NOT NULL"] if change.column else []
    if change.how == "cast":
        conditions.append(_changed_by_cast(change))
    tries = [conditions]
    if change.where:
        tries.insert(0, [*conditions, f"({change.where}\n)"])
    if change.how == "cast":  # a type such as json has no equality
        tries.append([conditions[0], _changed_by_cast(change, text="::text")])
    for wanted in tries:
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
        try:
            with snapshot(connection, "100ms") as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}'")
                count = scalar(connection, f"SELECT count(*) FROM public.{change.table}{where}")
                at_most = loss.how in _PARTS and wanted is conditions
                return replace(loss, count=count, exact=True, at_most=at_most)
        except psycopg2.Error as error:
            code = error.pgcode
        if wanted is conditions and code in (errorcodes.UNDEFINED_TABLE, errorcodes.UNDEFINED_COLUMN):
            return None  # a predicate may name what the plan makes
        if change.how == "cast" and code != errorcodes.UNDEFINED_FUNCTION:
            return loss
    if change.how == "cast":
        return loss
    sql = """
        SELECT greatest(c.reltuples, 0)
               * (1 - COALESCE((SELECT s.null_frac FROM pg_catalog.pg_stats AS s
                                WHERE s.schemaname = 'public' AND s.tablename = c.relname
                                  AND quote_ident(s.attname) = %s), 0))
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = to_regclass(%s)
    """
    estimate = scalar(connection, sql, (change.column, f"public.{change.table}"))
    # The estimate for a table that was never analyzed is 0.
    return replace(loss, count=round(estimate or 0) or None, exact=False, at_most=loss.how in _PARTS)


def _changed_by_cast(change: DataChange, text: str = "") -> str:
    """Return the condition of a value that does not come back when its column goes through some types.

    A type that the plan makes itself is not in the live database: an enum is judged by its labels, a domain
    by the type under it.
    """
    assert change.type is not None
    value, lost = str(change.column), list[str]()
    for type_ in change.types:
        if type_.labels is not None:
            labels = ", ".join(map(constant, type_.labels))
            lost.append(f"{value}::text <> ALL (ARRAY[{labels}]::text[])")
            value = f"{value}::text"
        else:
            value = f"({value})::{type_.base}"
    same = f"({value})::{change.type.base}{text} IS NOT DISTINCT FROM {change.column}{text}"
    return f"({' OR '.join([*lost, f'NOT ({same})'])})"
