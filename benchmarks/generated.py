"""How long the application stalls while a revision is applied that autogenerate has written.

The models are changed in many ways at once, `alembic revision --autogenerate` writes a revision, and it is
run under the load of benchmarks/stall.py: columns (one with another default for each row, so that all rows
are written), a foreign key, a check, NOT NULL, a unique constraint, indexes, a value of an enum, a table.
Another type of a column is not among them: prepared statements that select it fail, whoever changes it.

    python benchmarks/generated.py [--incidents N] [--rate N] [--seconds N] [--rounds N]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from setting import PROJECT, call, introduce, local_server, median, script, table
from stall import GUVNOR, NONE, SETTINGS, Benchmark, Run

ENVIRONMENT = """
from alembic import context
from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import UUID

from guvnor.cli.plain_alembic import run
from guvnor.models import incident_severity, metadata

incidents, schedules = metadata.tables["incidents"], metadata.tables["schedules"]
incidents.append_column(Column("region", String(50), nullable=False, server_default="eu"))
incidents.append_column(Column("token", UUID, nullable=False, server_default=text("uuid_generate_v4()")))
incidents.append_column(Column("cause_id", UUID, ForeignKey("signals.id")))
incidents.append_constraint(CheckConstraint("length(title) < 1000", name="incident_title_short"))
incidents.append_constraint(UniqueConstraint("team_id", "id", name="incidents_team_id_id_key"))
incidents.c.labels.nullable = False
Index("idx_incidents_region", incidents.c.region, incidents.c.created_at)
Index("idx_incidents_cause", incidents.c.cause_id, postgresql_where=text("cause_id IS NOT NULL"))
incident_severity.enums.insert(1, "urgent")
Table("teams", metadata, Column("id", UUID, primary_key=True), Column("first", ForeignKey("incidents.id")))

run(context)
"""


class Generated(Benchmark):
    """The load of the stall benchmark on version 2, and the revision that is written for it."""

    def prepare(self) -> None:
        """Bring the database to version 2, change the models and let the revision be written."""
        super().prepare()
        self._migrate("version_1")
        self._server.execute("VACUUM (ANALYZE)", "version_1")
        self.project = self._scratch / "project"
        shutil.copytree(PROJECT / "alembic", self.project / "alembic")
        shutil.copy(PROJECT / "alembic.ini", self.project)
        (self.project / "alembic" / "env.py").write_text(ENVIRONMENT)
        generate = [script("alembic"), "revision", "--autogenerate", "-m", "generated"]
        call(generate, self._server.dsn("version_1"), self.project)

    def _migrate(self, database: str, *arguments: str) -> None:
        directory = self.project if database == "run" else PROJECT
        call([script("guvnor"), "migrate", "up", *arguments], self._server.dsn(database), directory)

    def _locked(self, position: int) -> float:  # noqa: ARG002 - there is no one statement that locks
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the stalls of a generated revision.")
    parser.add_argument("--incidents", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=300, help="transactions per second")
    parser.add_argument("--seconds", type=int, default=60, help="of load in each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; medians are shown")
    options = parser.parse_args()
    with (
        local_server(**SETTINGS) as server,
        tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as scratch,
    ):
        introduce(server)
        benchmark = Generated(server, Path(scratch), options)
        benchmark.prepare()
        runs: dict[str, list[Run]] = {NONE: [], GUVNOR: []}
        for number in range(1, options.rounds + 1):
            for way, results in runs.items():
                results.append(benchmark.run(way, report=False, number=number))
    quiet = median([run.longest for run in runs[NONE]])
    rows = [("", "longest stall", "of no migration", "p99", "migration took")]
    for way, results in runs.items():
        longest = median([run.longest for run in results])
        p99 = f"{median([run.p99 for run in results]) * 1000:,.0f} ms"
        took = f"{median([run.took for run in results]):.1f} s" if way == GUVNOR else ""
        name = "a generated revision" if way == GUVNOR else way
        rows.append((name, f"{longest * 1000:,.0f} ms", f"{longest / quiet:.2f}", p99, took))
    table(rows)
    print(
        f"Medians of {options.rounds} runs of {options.seconds} s each, {options.incidents:,} incidents, "
        f"{options.rate} transactions/s. No transaction of the application failed."
    )


if __name__ == "__main__":
    main()
