"""Pairs of schemas as a strategy of hypothesis."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies

from tests.schema_pairs import column_changes, makers, other_changes
from tests.schema_pairs.build import Build
from tests.schema_pairs.changes import CHANGES, NothingLeftError
from tests.schema_pairs.things import Schema
from tests.schema_pairs.weights import BASE, WEIGHTS

assert column_changes
assert other_changes  # they register their kinds
_DECK = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
_BASE = [kind for kind, weight in BASE.items() for _ in range(weight)]


@dataclass
class Pair:
    """Two schemas, and the kinds of changes that lie between them."""

    first: Schema
    second: Schema
    kinds: tuple[str, ...]

    def __repr__(self) -> str:
        return f"\n{self.kinds}\n-- FIRST\n{self.first.sql()}\n-- SECOND\n{self.second.sql()}\n"


@strategies.composite
def pairs(
    draw: Callable[[strategies.SearchStrategy[Any]], Any], major: int, kinds: tuple[str, ...] = ()
) -> Pair:
    """A pair.

    :param kinds: the kinds of changes in it; more are drawn.
    """
    b = Build(draw, major)
    wanted = [*kinds, *(b.pick(_DECK) for _ in range(b.pick((0, 1, 2, 3) if kinds else (1, 2, 4))))]
    makers.table(b, b.first)
    for made in [b.pick(_BASE) for _ in range(b.pick((3, 0, 6, 9, 12)))]:
        if made in makers.ALONE:
            makers.ALONE[made](b, b.first)
        else:
            tables = [t for t in b.first.of("table") if "partition key" not in t.facts]
            makers.ON_TABLES[made](b, b.first, b.pick(tables).number)
    b.second = copy.deepcopy(b.first)
    done = []
    for name in wanted:
        with contextlib.suppress(NothingLeftError):  # dropped by a change before
            CHANGES[name](b)
            done.append(name)
    return Pair(b.first, b.second, tuple(done))
