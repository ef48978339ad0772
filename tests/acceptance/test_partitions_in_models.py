"""Models name the partitioned table alone: its partitions, known or not, are never a change of their own."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.command import Command
from tests.support.example import Example
from tests.support.expect import succeeds
from tests.support.project import Project
from tests.support.server import Server

TABLE = "CREATE TABLE ticks (at date NOT NULL, n int, team int{}) PARTITION BY RANGE (at); "
TEAMS = "CREATE TABLE teams (id int PRIMARY KEY); "
KNOWN = "CREATE TABLE ticks_1 PARTITION OF ticks FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); "
MADE = """
    CREATE TABLE ticks_2 PARTITION OF ticks FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')
        PARTITION BY RANGE (at);
    CREATE TABLE ticks_2a PARTITION OF ticks_2 FOR VALUES FROM ('2021-01-01') TO ('2021-07-01');
    INSERT INTO teams VALUES (1);
    INSERT INTO ticks VALUES ('2020-05-05', 1, 1), ('2021-05-05', 2, 1)
"""

# What the models add to the table, by the name of the case.
ADDED = {
    "column": TABLE.format(", b text"),
    "column with a default": TABLE.format(", b int NOT NULL DEFAULT 7"),
    "check": TABLE.format(", CONSTRAINT c CHECK (n > 0)"),
    "not null": TABLE.format("").replace("n int", "n int NOT NULL"),
    "default": TABLE.format("").replace("n int", "n int DEFAULT 3"),
    "type": TABLE.format("").replace("n int", "n bigint"),
    "column less": TABLE.format("").replace("n int, ", ""),
    "trigger": TABLE.format("")
    + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER t BEFORE UPDATE ON ticks FOR EACH ROW EXECUTE FUNCTION f()",
    "unique": TABLE.format(", CONSTRAINT u UNIQUE (at, n)"),
    "foreign key": TABLE.format(", CONSTRAINT k FOREIGN KEY (team) REFERENCES teams"),
}


@pytest.fixture
def example(server: Server, _tidy: None, project: Project, guvnor: Command, alembic: Command) -> Example:
    return Example(server.create_database(), project, guvnor, alembic)


def begun(example: Example, models: str) -> Example:
    return example.begin(TEAMS + TABLE.format("") + KNOWN, MADE, TEAMS + models)


def test_nothing_is_to_be_written_where_only_partitions_differ(example: Example) -> None:
    begun(example, TABLE.format(""))
    assert example.generate() == ""
    assert not example.path.exists()
    succeeds(example.run("check"), "No new upgrade operations detected.")
    for name in ("ticks_1", "ticks_2", "ticks_2a"):
        assert (
            f"Left out: table {name}, a partition of ticks that the models do not know" in example.result.err
        )


@pytest.mark.usefixtures("_tidy")
def test_the_check_lists_them(server: Server, project: Project, guvnor: Command) -> None:
    database = server.create_database()
    project.add_revision(TEAMS + TABLE.format("") + KNOWN.rstrip("; "), "DROP TABLE ticks; DROP TABLE teams")
    succeeds(guvnor("migrate", "up", database=database, cwd=project.directory))
    database.execute(MADE)
    said = succeeds(guvnor("schema", "check", database=database, cwd=project.directory))
    assert "No drift" in said.out
    assert "Unknown to revision 003, no difference: 2 partitions of ticks: ticks_2, ticks_2a" in said.out
    said = succeeds(guvnor("schema", "check", "--json", database=database, cwd=project.directory))
    found = json.loads(said.out)
    assert (found["clean"], found["findings"]) == (True, [])
    made = [{"table": "ticks_2", "of": "ticks"}, {"table": "ticks_2a", "of": "ticks"}]
    assert found["partitions"] == made
    listed = succeeds(guvnor("schema", "show", database=database, cwd=project.directory)).out.splitlines()
    assert [line for line in listed if "ticks_2" in line] == ["table ticks_2", "table ticks_2a"]
    database.execute("ALTER TABLE ticks ADD COLUMN b int")
    drift = guvnor("schema", "check", database=database, cwd=project.directory)
    assert drift.code == 6
    assert "column ticks.b is unexpected" in drift.out
    assert "1 difference" in drift.out
    assert "2 partitions of ticks" in drift.out


@pytest.mark.parametrize("case", ADDED)
def test_a_change_is_written_once_for_the_table(example: Example, server: Server, case: str) -> None:
    begun(example, ADDED[case])
    text = example.generate()
    if case == "foreign key" and server.major < 18:
        pytest.skip("before PostgreSQL 18, a partitioned table takes no NOT VALID foreign key")
    assert "ticks_" not in text
    assert "DROP TABLE" not in text
    if case in ("type", "unique"):  # a person has to decide, on the table
        assert len(re.findall("TODO", text)) == 1
        assert ("op.add_unique_constraint" in text) == (case == "unique")
        return
    assert "TODO" not in text
    example.there_and_back()


def test_an_index_is_built_and_dropped_by_its_operation(example: Example) -> None:
    begun(example, TABLE.format("") + "CREATE INDEX i ON ticks (n) WHERE n > 0")
    text = example.generate()
    assert "TODO" not in text
    up, down = text.split("def downgrade")
    assert re.search(r'op\.create_index_concurrently\(\s*"i",', up)
    assert "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON ticks (n) WHERE n > 0" in " ".join(up.split())
    assert 'op.drop_index_concurrently("i")' in down
    assert example.problems == ()
    assert "index ticks.i is missing" in example.result.err
    assert "ticks_" not in text
    example.there_and_back()


def test_a_view_on_a_partition_is_in_the_way(example: Example) -> None:
    begun(example, TABLE.format("").replace("n int, ", ""))
    example.database.execute("CREATE VIEW theirs AS SELECT n FROM ticks_2a")
    assert "the view theirs depends on the column ticks.n" in " ".join(
        line.strip(" -#") for line in example.generate().splitlines()
    )


@pytest.mark.usefixtures("_tidy")
def test_the_plan_names_the_table_and_not_each_partition(
    server: Server, project: Project, guvnor: Command
) -> None:
    database = server.create_database()
    project.add_revision(TEAMS + TABLE.format("") + KNOWN.rstrip("; "), "DROP TABLE ticks; DROP TABLE teams")
    succeeds(guvnor("migrate", "up", database=database, cwd=project.directory))
    project.add_revision(
        "ALTER TABLE ticks ADD COLUMN b int; ALTER TABLE ticks ALTER n TYPE bigint; "
        "ALTER TABLE ticks ADD CONSTRAINT u UNIQUE (at, n)",
        "ALTER TABLE ticks DROP CONSTRAINT u; ALTER TABLE ticks DROP COLUMN b",
    )
    plan = succeeds(guvnor("migrate", "plan", database=database, cwd=project.directory)).out
    for line in (
        "+ column ticks.b", "~ table ticks", "column n", "+ constraint ticks.u",
        "locks ticks: ACCESS EXCLUSIVE", "rewrites ticks as a whole",
    ):  # fmt: skip
        assert line in plan
    assert "ticks_1" not in plan
