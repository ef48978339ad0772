"""What a partition inherits is no difference of its own; what it lacks of its table is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 (a type)

from guvnor.postgres import connect
from guvnor.schema import catalog, root_causes, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.partitions import Partition
from guvnor.schema.shadow import Shadow
from tests.support.drift import Case, cases, left_after, statements
from tests.support.server import Database, Server

KNOWN = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE teams (id integer PRIMARY KEY);
CREATE TABLE parts (
    id integer NOT NULL,
    at date NOT NULL,
    team integer CONSTRAINT parts_team REFERENCES teams,
    n integer CONSTRAINT positive CHECK (n > 0),
    CONSTRAINT parts_key PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX parts_n ON parts (n);
CREATE UNIQUE INDEX parts_unique ON parts (at, n) WHERE n > 5;
CREATE TRIGGER touched BEFORE UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
GRANT SELECT ON parts, parts_1 TO PUBLIC;
CREATE TABLE secret (id integer) PARTITION BY RANGE (id);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret USING (id > 3);
GRANT SELECT ON secret TO PUBLIC;
CREATE TABLE started (n integer) PARTITION BY RANGE (n);
CREATE TABLE started_1 PARTITION OF started FOR VALUES FROM (0) TO (10);
"""

# What a job makes beside them.
MADE = """
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')
    PARTITION BY RANGE (at);
CREATE TABLE "Parts 3a" (n integer CONSTRAINT positive CHECK (n > 0), team integer, at date NOT NULL,
    id integer NOT NULL);
CREATE INDEX a_name_of_its_own ON "Parts 3a" (n);
ALTER TABLE parts_3 ATTACH PARTITION "Parts 3a" FOR VALUES FROM ('2022-01-01') TO ('2022-07-01');
GRANT SELECT ON parts_2, parts_3, "Parts 3a" TO PUBLIC;
CREATE TABLE secret_1 PARTITION OF secret FOR VALUES FROM (0) TO (10);
ALTER TABLE secret_1 ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON secret_1 TO PUBLIC;
"""

PARTITIONS = (
    Partition('"Parts 3a"', "parts"),
    Partition("parts_2", "parts"),
    Partition("parts_3", "parts"),
    Partition("secret_1", "secret"),
)

# name of the case, what is done, and all that has to be found: change, kind, object
CHANGES = """
nothing | SELECT 1 |
another partition | CREATE TABLE parts_4 PARTITION OF parts DEFAULT; GRANT SELECT ON parts_4 TO PUBLIC |
an index of its own | CREATE UNIQUE INDEX own ON parts_2 (team) |
options of its own | ALTER TABLE parts_2 SET (fillfactor = 70); ALTER TABLE parts_2 REPLICA IDENTITY FULL;
    ALTER TABLE parts_2 ALTER n SET STATISTICS 100; COMMENT ON TABLE parts_2 IS 'made by a job' |
a default, a check and a trigger of its own | ALTER TABLE parts_2 ALTER n SET DEFAULT 3;
    ALTER TABLE parts_2 ADD CONSTRAINT mine CHECK (n < 100), ALTER n SET NOT NULL;
    CREATE TRIGGER mine BEFORE INSERT ON parts_2 FOR EACH ROW EXECUTE FUNCTION touch() |
more rights than the table | GRANT INSERT, SELECT (n) ON parts_2 TO {role} |
detached | ALTER TABLE parts DETACH PARTITION parts_2 | unexpected table parts_2
all below detached | ALTER TABLE parts DETACH PARTITION parts_3
    | unexpected table parts_3, unexpected table "Parts 3a"
known one detached | ALTER TABLE parts DETACH PARTITION parts_1 | different table parts_1
known one dropped | DROP TABLE parts_1 | missing table parts_1
partitions of a stray table | CREATE TABLE mine (a integer) PARTITION BY RANGE (a);
    CREATE TABLE mine_1 PARTITION OF mine DEFAULT | unexpected table mine, unexpected table mine_1
a table that inherits | CREATE TABLE child (a integer) INHERITS (teams) | unexpected table child

column added | ALTER TABLE parts ADD COLUMN extra text | unexpected column parts.extra
column dropped | ALTER TABLE parts DROP COLUMN n | missing column parts.n
column renamed | ALTER TABLE parts RENAME COLUMN n TO number | different column parts.n
table renamed | ALTER TABLE parts RENAME TO pieces | different table parts
another type | DROP TRIGGER touched ON parts; ALTER TABLE parts ALTER n TYPE bigint
    | different column parts.n, missing trigger parts.touched
default | ALTER TABLE parts ALTER n SET DEFAULT 1 | different column parts.n
default of a known one | ALTER TABLE parts_1 ALTER n SET DEFAULT 1 | different column parts_1.n
not null | ALTER TABLE parts ALTER n SET NOT NULL | different column parts.n
not null of a known one | ALTER TABLE parts_1 ALTER n SET NOT NULL | different column parts_1.n
order of the columns | ALTER TABLE parts DROP COLUMN team; ALTER TABLE parts
    ADD team integer CONSTRAINT parts_team REFERENCES teams | different table parts
check added | ALTER TABLE parts ADD CONSTRAINT more CHECK (n < 50) | unexpected constraint parts.more
check dropped | ALTER TABLE parts DROP CONSTRAINT positive | missing constraint parts.positive
check changed | ALTER TABLE parts DROP CONSTRAINT positive, ADD CONSTRAINT positive CHECK (n > 1)
    | different constraint parts.positive
foreign key added | ALTER TABLE parts ADD CONSTRAINT more FOREIGN KEY (n) REFERENCES teams
    | unexpected constraint parts.more
foreign key dropped | ALTER TABLE parts DROP CONSTRAINT parts_team | missing constraint parts.parts_team
primary key dropped | ALTER TABLE parts DROP CONSTRAINT parts_key | missing constraint parts.parts_key
unique added | ALTER TABLE parts ADD CONSTRAINT more UNIQUE (at, team) | unexpected constraint parts.more
trigger dropped | DROP TRIGGER touched ON parts | missing trigger parts.touched
trigger added | CREATE TRIGGER more AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION touch()
    | unexpected trigger parts.more
index added | CREATE INDEX more ON parts (team) | unexpected index parts.more
index dropped | DROP INDEX parts_n | missing index parts.parts_n
index changed | DROP INDEX parts_n; CREATE INDEX parts_n ON parts (n, team) | different index parts.parts_n

index without those of partitions | DROP INDEX parts_n; CREATE INDEX parts_n ON ONLY parts (n)
    | different index parts.parts_n
unique index without those of partitions | DROP INDEX parts_unique;
    CREATE UNIQUE INDEX parts_unique ON ONLY parts (at, n) WHERE n > 5 | different index parts.parts_unique
index of one that is not attached | DROP INDEX parts_n; CREATE INDEX parts_n ON ONLY parts (n);
    CREATE INDEX one ON parts_1 (n); ALTER INDEX parts_n ATTACH PARTITION one;
    CREATE INDEX two ON parts_2 (n); CREATE INDEX three ON parts_3 (n);
    ALTER INDEX parts_n ATTACH PARTITION three | different index parts.parts_n
index of a partition of a partition | DROP INDEX parts_n; CREATE INDEX parts_n ON ONLY parts (n);
    CREATE INDEX one ON parts_1 (n); ALTER INDEX parts_n ATTACH PARTITION one;
    CREATE INDEX two ON parts_2 (n); ALTER INDEX parts_n ATTACH PARTITION two;
    CREATE INDEX three ON ONLY parts_3 (n); ALTER INDEX parts_n ATTACH PARTITION three
    | different index parts.parts_n
indexes of other names | DROP INDEX parts_n; CREATE INDEX parts_n ON ONLY parts (n);
    CREATE INDEX one ON parts_1 (n); ALTER INDEX parts_n ATTACH PARTITION one;
    CREATE INDEX two ON parts_2 (n); ALTER INDEX parts_n ATTACH PARTITION two;
    CREATE INDEX three ON parts_3 (n); ALTER INDEX parts_n ATTACH PARTITION three |
primary key without those of partitions | ALTER TABLE parts DROP CONSTRAINT parts_key;
    ALTER TABLE ONLY parts ADD CONSTRAINT parts_key PRIMARY KEY (id, at)
    | different constraint parts.parts_key

trigger switched off | ALTER TABLE parts DISABLE TRIGGER touched | different trigger parts.touched
trigger of one switched off | ALTER TABLE parts_2 DISABLE TRIGGER touched | different trigger parts_2.touched
trigger of a known one switched off | ALTER TABLE parts_1 DISABLE TRIGGER touched
    | different trigger parts_1.touched
trigger of one below | ALTER TABLE "Parts 3a" DISABLE TRIGGER touched | different trigger "Parts 3a".touched
foreign key of one switched off | ALTER TABLE parts_2 DISABLE TRIGGER ALL
    | different constraint parts_2.parts_team, different trigger parts_2.touched
foreign key of a known one switched off | ALTER TABLE parts_1 DISABLE TRIGGER ALL
    | different constraint parts_1.parts_team, different trigger parts_1.touched
owner of one | ALTER TABLE parts_2 OWNER TO {role} | different table parts_2
right that one lacks | REVOKE SELECT ON parts_2 FROM PUBLIC | missing privilege table parts_2
right that all lack | REVOKE SELECT ON parts, parts_2 FROM PUBLIC
    | missing privilege table parts, missing privilege table parts_2
right that only the table has | GRANT INSERT ON parts TO {role} | unexpected privilege table parts
row security that one lacks | ALTER TABLE secret_1 DISABLE ROW LEVEL SECURITY | different table secret_1
"""


@pytest.fixture(scope="module")
def live(server: Server) -> Database:
    database = server.create_database(keep=True)
    database.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    database.execute(KNOWN)
    database.execute(MADE)
    return database


@pytest.fixture(scope="module")
def expected(live: Database) -> Iterator[Shadow]:
    with (
        contextlib.closing(connect(live.dsn)) as own,
        shadow.build(own, lambda made: made.execute(KNOWN)) as built,
    ):
        yield built


def found(expected: Shadow, changed: Connection) -> list[Finding]:
    with expected.undone():
        return root_causes.trace(expected, catalog.read(changed)).all_findings


def test_partitions_that_are_not_known_are_listed(expected: Shadow, changed: Connection) -> None:
    with expected.undone():
        traced = root_causes.trace(expected, catalog.read(changed))
    assert traced.all_findings == []
    assert sorted(traced.partitions, key=lambda each: each.table) == list(PARTITIONS)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases(CHANGES)])
def test_a_change_is_found_once(server: Server, expected: Shadow, changed: Connection, case: Case) -> None:
    names = {"role": server.create_role().name} if "{role}" in case.sql else {}
    with changed.cursor() as cursor:
        for statement in statements(case.sql.format_map(names)):
            cursor.execute(statement)
    findings = found(expected, changed)
    assert sorted(f"{f.change} {f.kind} {f.object}" for f in findings) == sorted(case.findings)
    assert all(finding.meaning.endswith(".") for finding in findings)
    with_it = [what for finding in findings if finding.kind != "table" for what in finding.with_it]
    assert not any(
        what.startswith(("column parts_", "constraint parts_", "trigger parts_")) for what in with_it
    )
    if all(finding.sql for finding in findings):
        assert left_after(expected, changed, findings) == set()


def test_an_index_that_the_revisions_leave_invalid_is_found(expected: Shadow, changed: Connection) -> None:
    sql = "CREATE INDEX on_n ON ONLY started (n)"
    with changed.cursor() as cursor:
        cursor.execute(sql)
    with expected.undone():
        expected.execute(sql)
        (finding,) = root_causes.trace(expected, catalog.read(changed)).all_findings
    assert (finding.kind, finding.object, finding.actual) == ("index", "started.on_n", {"valid": False})
    assert "started_1" in finding.meaning
    assert finding.with_it == ("table started_1",)
    assert (finding.sql or "").splitlines() == [
        "CREATE INDEX CONCURRENTLY started_1_on_n ON started_1 USING btree (n);",
        "ALTER INDEX on_n ATTACH PARTITION started_1_on_n;",
    ]


def test_the_indexes_of_two_levels_are_built_and_attached(expected: Shadow, changed: Connection) -> None:
    with changed.cursor() as cursor:
        cursor.execute("DROP INDEX parts_n; CREATE INDEX parts_n ON ONLY parts (n)")
        cursor.execute("CREATE INDEX there_already ON parts_2 (n)")
    (finding,) = found(expected, changed)
    assert (finding.sql or "").splitlines() == [
        "CREATE INDEX CONCURRENTLY parts_1_parts_n ON parts_1 USING btree (n);",
        "ALTER INDEX parts_n ATTACH PARTITION parts_1_parts_n;",
        "ALTER INDEX parts_n ATTACH PARTITION there_already;",
        "CREATE INDEX parts_3_parts_n ON ONLY parts_3 USING btree (n);",
        'CREATE INDEX CONCURRENTLY "Parts 3a_parts_n" ON "Parts 3a" USING btree (n);',
        'ALTER INDEX parts_3_parts_n ATTACH PARTITION "Parts 3a_parts_n";',
        "ALTER INDEX parts_n ATTACH PARTITION parts_3_parts_n;",
    ]


def test_a_primary_key_is_built_by_its_indexes(expected: Shadow, changed: Connection) -> None:
    with changed.cursor() as cursor:
        cursor.execute("ALTER TABLE parts DROP CONSTRAINT parts_key")
        cursor.execute("ALTER TABLE ONLY parts ADD CONSTRAINT parts_key PRIMARY KEY (id, at)")
    (finding,) = found(expected, changed)
    assert (finding.sql or "").splitlines()[:3] == [
        "CREATE UNIQUE INDEX CONCURRENTLY parts_1_parts_key ON parts_1 (id, at);",
        "ALTER TABLE parts_1 ADD CONSTRAINT parts_1_parts_key PRIMARY KEY USING INDEX parts_1_parts_key;",
        "ALTER INDEX parts_key ATTACH PARTITION parts_1_parts_key;",
    ]
