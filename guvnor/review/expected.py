"""What the revisions of a branch do to rows on purpose, so that the round trip finds it no fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from guvnor.postgres.quoting import unquoted
from guvnor.revisions import acceptances
from guvnor.revisions.acceptances import Acceptance
from guvnor.revisions.script import Direction
from guvnor.schema.constraints import NewConstraint, RowConstraint
from guvnor.schema.data_changes import DataChange
from guvnor.schema.rehearsal import Effect

Place = tuple[str, str | None]
"""A table and a column, without quotes; no column for the rows of the table."""


@dataclass(frozen=True)
class Expected:
    """What happens to rows that were there before the branch's first revision, by the names of then.

    :ivar constraints: those that the way up makes, and that these rows have to satisfy.
    :ivar accepted: what the revisions accept, with the reason.
    :ivar filled: columns in which a NULL, and no other value, is overwritten.
    """

    constraints: tuple[NewConstraint, ...] = ()
    accepted: Mapping[Place, str] = field(default_factory=dict)
    filled: frozenset[Place] = frozenset()

    def satisfied(self, *, even_mended: bool = False) -> list[RowConstraint]:
        """Return the constraints that made-up rows have to satisfy from the beginning.

        :param even_mended: also those for which the revisions change rows first, or may do so.
        """
        return [
            item.constraint for item in self.constraints if even_mended or not (item.mended or item.unsure)
        ]


def of_effects(effects: Sequence[Effect]) -> Expected:
    """Find out what the steps up and down do on purpose."""
    accepted: dict[Place, str] = {}
    filled: set[Place] = set()
    overwritten: set[Place] = set()
    for effect in effects:
        said = effect.step.acceptances
        for change in effect.at_first:
            if item := acceptances.covering(said, *change.here):
                accepted.setdefault(_place(change.table, change.column), item.reason)
            if change.column is not None:
                (filled if change.harmless else overwritten).add(_place(change.table, change.column))
        # What a trigger of the application changes along with it is seen in the round trip alone.
        for item in said:
            if item.reason and item.table:
                accepted.setdefault((item.table, item.column), item.reason)
    demanded = (c for e in effects if e.step.direction is Direction.UP for c in e.constraints)
    return Expected(tuple(demanded), accepted, frozenset(filled - overwritten))


def faults(
    said: Iterable[Acceptance],
    done: Mapping[Direction, Sequence[DataChange]],
    excused: Iterable[Place],
) -> Iterator[tuple[int, str]]:
    """Find the comments of a revision that accept what it does not do, each with its line.

    A comment that cannot be read or gives no reason accepts nothing, which lint says.

    :param done: what the revision does to data that was there before it.
    :param excused: what the round trip found changed, and accepted.
    """
    known = set(excused)
    for item in said:
        if not item.reason or not item.table:
            continue
        ways = [some for way, some in done.items() if item.direction in (None, way)]
        # What a trigger may write to the rows that are updated is said to change where the round trip saw it.
        changes = [change for some in ways for change in some if not change.along]
        if any(item.covers(change.table, change.column) for change in changes):
            continue
        if (item.table, item.column) not in known:
            yield item.line, _fault(item, changes)


def _fault(item: Acceptance, changes: Sequence[DataChange]) -> str:
    here = [change for change in changes if unquoted(change.table) == item.table]
    columns = sorted({change.name for change in here if change.column is not None})
    if item.column is None and columns:
        return (
            f"`changes data: {item.name}` is too wide: no rows go, only values of {', '.join(columns)} change"
        )
    if any(change.column is None for change in here):
        return f"`changes data: {item.name}` accepts values of a column, but rows of {item.table} change"
    way = {Direction.UP: "the upgrade", Direction.DOWN: "the downgrade"}.get(
        item.direction or Direction.STAMP, "the revision"
    )
    return f"`changes data: {item.name}` accepts nothing: {way} does not change that"


def _place(table: str, column: str | None) -> Place:
    return unquoted(table), None if column is None else unquoted(column)
