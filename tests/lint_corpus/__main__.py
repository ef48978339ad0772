"""``python -m tests.lint_corpus [DSN]``: prints lint's false alarms and misses over the kept revisions.

A server, for the newest SQL, is the one of the connection string, else the local server.
"""

from __future__ import annotations

import sys

from guvnor.database import local_server
from tests.lint_corpus import cases


def main() -> int:
    dsn = sys.argv[1] if len(sys.argv) > 1 else local_server()
    wrong = 0
    for kind, fault in (("good", "false alarms"), ("bad", "misses")):
        results = list(cases.found(cases.read(kind), dsn))
        faults = 0
        for case, rules in results:
            for rule in sorted(rules - case.rules):
                print(f"FALSE ALARM  {kind}: {case.name}: {rule}")
                faults += kind == "good"
                wrong += 1
            for rule in sorted(case.rules - rules):
                print(f"MISS         {kind}: {case.name}: {rule}")
                faults += kind == "bad"
                wrong += 1
        print(f"{len(results)} {kind} revisions: {faults} {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
