"""What a step does to the data that was there before its plan, by the names of then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from guvnor.schema.stored_data import ColumnType, How, Key, Ledger, Touch


@dataclass(frozen=True)
class DataChange:
    """What a step does to the rows of a table, or to the values of a column.

    :ivar table: its name before the plan, as SQL writes it.
    :ivar column: its name before the plan; None for the rows of the table.
    :ivar here: the names of table and column as the step finds them.
    :ivar type: the type of the column before the plan.
    :ivar types: those that it gets, one after the other.
    :ivar where: which rows ``op.backfill`` updates; None where that is not known.
    :ivar harmless: whether no value is lost, as far as that can be told without rows: an UPDATE writes only
        where there was none, or a cast brings back each value that was tried.
    :ivar kept: whether what was there is kept beside, or brought back from there.
    :ivar along: whether the same happens to a table that has these rows, too, as a partition's parent has, or
        a trigger may write the column of rows that are updated.
    """

    how: How
    table: str
    column: str | None = None
    here: tuple[str, str | None] = ("", None)
    type: ColumnType | None = None
    types: tuple[ColumnType, ...] = ()
    where: str | None = None
    harmless: bool = False
    kept: bool = False
    along: bool = False

    @property
    def name(self) -> str:
        """The table or column, as SQL writes it."""
        return self.table if self.column is None else f"{self.table}.{self.column}"


def summed_up(start: Ledger, before: Ledger, seen: Iterable[Touch]) -> tuple[DataChange, ...]:
    """Sum up what a step does; a table or column that the plan itself has made held no data before it.

    :param start: the tables before the plan.
    :param before: the tables before the step.
    """
    types: dict[Key, list[ColumnType]] = {}
    harmed: set[Key] = set()  # by one of several casts
    found: dict[tuple[How, Key, str | None, bool, bool, bool], None] = {}
    for touch in seen:
        oid, number = touch.key
        if oid not in start or (number and number not in start[oid].columns):
            continue
        if touch.type is not None:
            types.setdefault(touch.key, []).append(touch.type)
            harmed |= set() if touch.harmless else {touch.key}
            found["cast", touch.key, None, False, False, touch.along] = None
            continue
        found[touch.how, touch.key, touch.where, touch.harmless, touch.kept, touch.along] = None
    return tuple(
        replace(
            _change(start, before, how, key, types),
            where=where,
            harmless=key not in harmed if how == "cast" else harmless,
            kept=kept,
            along=along,
        )
        for how, key, where, harmless, kept, along in found
    )


def rows_locked(start: Ledger, before: Ledger, seen: Iterable[Touch]) -> tuple[str, ...]:
    """Name the tables in use whose rows a step changes in its transaction: they stay locked until its commit.

    Parameters are those of :func:`summed_up`.
    """
    changed = [t.key[0] for t in seen if t.how in ("update", "delete") and t.where is None and not t.kept]
    return tuple(before.get(oid, start[oid]).name for oid in dict.fromkeys(changed) if oid in start)


def _change(
    start: Ledger,
    before: Ledger,
    how: How,
    key: Key,
    types: dict[Key, list[ColumnType]],
) -> DataChange:
    (oid, number), table = key, start[key[0]]
    now = before.get(oid, table)
    if not number:
        return DataChange(how, table.name, here=(now.name, None))
    column = table.columns[number]
    here = now.columns.get(number, column).name
    got = tuple(types.get(key, ())) if how == "cast" else ()
    return DataChange(how, table.name, column.name, (now.name, here), column.type, got)
