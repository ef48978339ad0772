"""Tries many pairs of schemas on a server, in one process, and sums up what it saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed as seeded, settings

from tests.schema_pairs.pairs import Pair, pairs
from tests.schema_pairs.road import Fault, Road, Tally
from tests.schema_pairs.weights import WEIGHTS
from tests.support.server import Server

# A pair is slow because a server runs it, and large because a schema is.
_EXPECTED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
_APART = (17, 41)  # the kinds that come together in the pairs of one kind


@dataclass
class Result:
    """What came out.

    :ivar faults: each with the pair that shows it.
    """

    seed: int
    server: str
    tally: Tally
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The summary, a line each."""
        tally = self.tally
        yield f"PostgreSQL {self.server}, seed {self.seed}: {tally.pairs} pairs, {len(self.faults)} faults"
        yield f"{_share(tally.with_todo, tally.pairs)} of the pairs with a TODO, by kind:"
        yield from (f"  {_share(n, tally.pairs):>4}  {kind.name}" for kind, n in tally.todos.most_common())
        yield f"{_share(tally.left_to_a_person, tally.pairs)} end at a TODO that a person has to write"
        rare = ", ".join(f"{kind} {n}" for kind, n in tally.kinds.most_common()[:-6:-1])
        yield f"{len(tally.kinds)} kinds of changes; the rarest: {rare}"
        yield "seconds: " + ", ".join(f"{what} {round(n)}" for what, n in tally.seconds.items())
        yield from self.faults


def together(kind: str) -> tuple[str, ...]:
    """The kinds of changes in the pairs of one kind: with itself, each kind comes in those of three."""
    kinds = list(WEIGHTS)
    place = kinds.index(kind)
    return (kind, *(kinds[(place + apart) % len(kinds)] for apart in _APART))


def try_all(
    server: Server, folder: Path, kinds: Sequence[str], *, seed: int, of_each: int, shrink: bool = True
) -> Result:
    """Try pairs of each kind of change; a fault ends those of its kind.

    :param of_each: pairs of each kind.
    :param shrink: whether the pair that shows a fault is made small.
    """
    road = Road(server, folder)
    result = Result(seed, server.version_name, road.tally)
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    for kind in kinds:

        @seeded(f"{seed} {kind}")
        @settings(
            max_examples=of_each, deadline=None, database=None, phases=phases, suppress_health_check=_EXPECTED
        )
        @given(pairs(server.major, together(kind)))
        def go(pair: Pair) -> None:
            road.go(pair)

        try:
            go()
        except Fault as fault:
            result.faults.append("\n".join([f"--- {kind}", str(fault), *fault.__notes__]))
    return result


def _share(number: int, of: int) -> str:
    return f"{100 * number / of:.0f}%" if of else "0%"
