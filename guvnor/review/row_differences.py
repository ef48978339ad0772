"""How the rows of a table differ from those that were there before, apart from what is accepted."""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from dataclasses import dataclass, field

from guvnor.postgres.quoting import unquoted
from guvnor.review.rows import Row, missing_rows


@dataclass(frozen=True)
class Tolerance:
    """What may differ in a table; names are as SQL writes them.

    :ivar rows_may_go: whether it is accepted that rows are gone.
    :ivar values: the columns of which it is accepted that values change.
    :ivar fills: the columns in which a NULL may become a value.
    """

    rows_may_go: bool = False
    values: frozenset[str] = frozenset()
    fills: frozenset[str] = frozenset()


@dataclass
class RowDifferences:
    """What was found.

    :ivar lost: how many rows are not as they were.
    :ivar columns: the columns in which they differ.
    :ivar gone: whether rows are gone, which is accepted.
    :ivar accepted: the columns that differ, which is accepted.
    :ivar filled: the columns in which a NULL has become a value.
    """

    lost: int = 0
    columns: set[str] = field(default_factory=set)
    gone: bool = False
    accepted: set[str] = field(default_factory=set)
    filled: set[str] = field(default_factory=set)


def find(
    before: Sequence[Row],
    after: Sequence[Row],
    added: Sequence[Row],
    columns: Sequence[str],
    key: Sequence[str],
    tolerance: Tolerance,
) -> RowDifferences:
    """Compare the rows of a table, each with the one of the same primary key where that can be told.

    :param added: the rows that were inserted meanwhile.
    :param columns: those that are compared.
    :param key: the columns of the primary key; none for a table without one.
    """
    kept = set(columns) - tolerance.values
    if key and kept.issuperset(key):
        return _by_key(before, after, columns, key, tolerance)
    return _as_sets(before, after, added, [name for name in columns if name in kept], columns, tolerance)


def _by_key(
    before: Sequence[Row],
    after: Sequence[Row],
    columns: Sequence[str],
    key: Sequence[str],
    tolerance: Tolerance,
) -> RowDifferences:
    found = RowDifferences()
    there = {tuple(row[name] for name in key): row for row in after}
    for old in before:
        new = there.get(tuple(old[name] for name in key))
        if new is None:
            found.gone |= tolerance.rows_may_go
            found.lost += not tolerance.rows_may_go
            continue
        differing = {name for name in columns if old[name] != new[name]}
        accepted = differing & tolerance.values
        filled = {name for name in differing - accepted if name in tolerance.fills and old[name] is None}
        found.accepted |= accepted
        found.filled |= filled
        found.columns |= differing - accepted - filled
        found.lost += bool(differing - accepted - filled)
    return found


def _as_sets(
    before: Sequence[Row],
    after: Sequence[Row],
    added: Sequence[Row],
    kept: Sequence[str],
    columns: Sequence[str],
    tolerance: Tolerance,
) -> RowDifferences:
    found = RowDifferences()
    for name in set(columns) - set(kept):
        found.accepted |= {name} if missing_rows(before, after, [name]) else set()
    whole = [name for name in kept if name not in tolerance.fills]
    if tolerance.rows_may_go:
        found.gone = missing_rows(before, after, whole) > 0 or len(after) < len(before) + len(added)
        found.lost = missing_rows(after, [*before, *added], whole)
    else:
        found.lost = missing_rows(before, after, whole)
    for name in tolerance.fills.intersection(kept):
        had = [row for row in before if row[name] is not None]
        if not tolerance.rows_may_go and (lost := missing_rows(had, after, [name])):
            found.lost = max(found.lost, lost)
        elif missing_rows(before, after, [name]):
            found.filled.add(name)
    if found.lost:
        one, other = (after, [*before, *added]) if tolerance.rows_may_go else (before, after)
        found.columns = {name for name in kept if missing_rows(one, other, [name])}
    return found


def tolerance(
    table: str,
    columns: Sequence[str],
    accepted: AbstractSet[tuple[str, str | None]],
    filled: AbstractSet[tuple[str, str | None]],
) -> Tolerance:
    """Return what may differ in a table.

    :param table: as SQL writes it, like its columns; the names in the sets have no quotes.
    """
    name = unquoted(table)
    return Tolerance(
        (name, None) in accepted,
        frozenset(column for column in columns if (name, unquoted(column)) in accepted),
        frozenset(column for column in columns if (name, unquoted(column)) in filled),
    )
