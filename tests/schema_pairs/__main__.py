"""``python -m tests.schema_pairs``: tries pairs of schemas, and prints every fault.

Each pair is tried, also after a fault, and none is made small, as ``test_schema_pairs.py`` does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.schema_pairs.pairs import Pair, pairs
from tests.schema_pairs.road import Fault, Road
from tests.schema_pairs.run import Result, together
from tests.schema_pairs.weights import WEIGHTS
from tests.support.choice import chosen_server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of-each", type=int, default=1, help="pairs of each kind of change")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", help="only pairs of this kind")
    parser.add_argument("--begin", type=int, default=0, help="the first pair that is tried")
    parser.add_argument("--most", type=int, default=10**9, help="how many are tried")
    parser.add_argument(
        "--show", action="store_true", help="show each pair that has a fault, and its revision"
    )
    parser.add_argument(
        "--validate", action="store_true", help="only check that the server takes the schemas"
    )
    parser.add_argument("--write", action="store_true", help="only write and lint the revisions")
    options = parser.parse_args()
    made: list[Pair] = []
    with chosen_server() as server, tempfile.TemporaryDirectory() as folder:
        for kind in [options.kind] if options.kind else WEIGHTS:

            @seed(f"{options.seed} {kind}")
            @settings(
                max_examples=options.of_each, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(pairs(server.major, together(kind)))
            def collect(pair: Pair) -> None:
                made.append(pair)

            collect()
        road = Road(server, Path(folder))
        result = Result(options.seed, server.version_name, road.tally)
        for number, pair in list(enumerate(made))[options.begin :][: options.most]:
            try:
                road.validate(pair) if options.validate else road.go(pair, only_write=options.write)
            except Fault as fault:
                result.faults.append(str(fault))
                print(f"=== {number} {pair.kinds}\n{fault}", flush=True)
                if options.show:
                    print(pair, road.text)
        print("\n".join(result.lines()) if not options.validate else f"{len(made)} pairs")
        server.drop_all()
        server.disconnect()
    return len(result.faults)


sys.exit(main())
