"""Is the way from any schema to any other the right one? hypothesis makes up the schemas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.schema_pairs.pairs import Pair, pairs
from tests.schema_pairs.road import Road
from tests.schema_pairs.run import try_all
from tests.schema_pairs.weights import FEW, LEAST, OF_EACH, OF_EACH_OTHER, WEIGHTS
from tests.support.server import Server


@pytest.mark.usefixtures("_tidy")
def test_a_few_pairs_of_schemas(server: Server, tmp_path: Path) -> None:
    road = Road(server, tmp_path)

    @settings(
        derandomize=True, max_examples=FEW, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(pairs(server.major))
    def go(pair: Pair) -> None:
        road.go(pair)

    go()
    assert road.tally.pairs >= FEW


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_tidy")
def test_many_pairs_of_schemas(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = server.major >= 18
    seed = int(os.environ.get("GUVNOR_PAIRS_SEED", "1"))
    result = try_all(server, tmp_path, list(WEIGHTS), seed=seed, of_each=OF_EACH if newest else OF_EACH_OTHER)
    with capsys.disabled():
        print("", *result.lines(), sep="\n")
    assert result.faults == []
    rare = {kind: result.tally.kinds[kind] for kind in WEIGHTS if result.tally.kinds[kind] < LEAST}
    assert rare == {} or not newest
