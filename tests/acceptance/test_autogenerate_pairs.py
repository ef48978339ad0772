"""What pairs of schemas have shown: each kind of fault that the fuzzer found, as a small example."""

from __future__ import annotations

import ast
import re

import pytest

from guvnor.autogenerate import plugin
from tests.schema_pairs import answers
from tests.support.command import Command
from tests.support.example import Example
from tests.support.project import Project
from tests.support.server import Server

NEEDS_18 = "PostgreSQL 18 has it first"


@pytest.fixture
def example(server: Server, _tidy: None, project: Project, guvnor: Command, alembic: Command) -> Example:
    return Example(server.create_database(), project, guvnor, alembic)


def test_autogenerate_runs_twice_in_one_process() -> None:
    plugin.register()
    plugin.register()


def test_the_backfill_that_a_person_completes_is_python(example: Example) -> None:
    example.begin(
        'CREATE TABLE "it\'s" (id int)', "", 'CREATE TABLE "it\'s" (id int, "say ""hi""" int NOT NULL)'
    )
    example.generate()
    (todo,) = answers.find(example.text)
    snippet = re.search(r"op\.backfill(\(.*?\)), and make sure", todo.said)
    assert snippet
    assert ast.literal_eval(snippet[1]) == ("it's", '"say ""hi""" = ...', '"say ""hi""" IS NULL')


def test_a_renamed_column_that_is_not_null_is_renamed(example: Example) -> None:
    """PostgreSQL 18 names the constraint after the column."""
    example.begin(
        "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL)",
        "INSERT INTO t VALUES (1, 'a')",
        "CREATE TABLE t (id int PRIMARY KEY, title text NOT NULL)",
    )
    assert "RENAME COLUMN name TO title" in example.generate()
    assert "TODO" not in example.text
    assert example.there_and_back()["t"] == [{"id": 1, "title": "a"}]


def test_the_order_of_columns_is_said_beside_another_todo(example: Example) -> None:
    example.begin("CREATE TABLE t (a int, b int)", "", "CREATE TABLE t (a int, n int NOT NULL, b int)")
    example.generate()
    said = " ".join(todo.said for todo in answers.find(example.text))
    assert "t.n is NOT NULL and has no default" in said
    assert "move them in the models to the order a, b, n" in said


def test_the_target_of_statistics_survives_another_type(example: Example) -> None:
    def schema(kind: str) -> str:
        return (
            f"CREATE TABLE t (a {kind}, b int); CREATE STATISTICS s ON a, b FROM t; "
            "ALTER STATISTICS s SET STATISTICS 40"
        )

    example.begin(schema("varchar(20)"), "INSERT INTO t VALUES ('x', 1)", schema("varchar(40)"))
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_column_that_is_left_to_a_person_has_its_comment(example: Example) -> None:
    table = "CREATE TABLE t (a int{})"
    example.begin(
        table.format(""),
        "INSERT INTO t VALUES (1)",
        table.format(", b int GENERATED ALWAYS AS IDENTITY") + "; COMMENT ON COLUMN t.b IS 'number'",
    )
    example.generate()
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_a_sequence_that_counts_down_from_now_on(example: Example) -> None:
    example.begin(
        "CREATE SEQUENCE s", "SELECT nextval('s'), nextval('s')", "CREATE SEQUENCE s INCREMENT BY -1"
    )
    assert "TODO" not in example.generate()
    example.there_and_back()
    assert example.database.execute("SELECT nextval('s')") == [(-1,)]


def test_a_function_that_names_a_renamed_table_is_made_after_the_rename(example: Example) -> None:
    def schema(table: str) -> str:
        return (
            f"CREATE TABLE {table} (a int); CREATE FUNCTION f() RETURNS SETOF {table} LANGUAGE sql STABLE "
            f"AS 'SELECT * FROM {table}'"
        )

    example.begin(schema("old"), "INSERT INTO old VALUES (1)", schema("new"))
    assert "TODO" not in example.generate()
    example.there_and_back()
    assert example.database.execute("SELECT * FROM f()") == [(1,)]


def test_a_virtual_column_that_is_no_longer_computed_keeps_its_values(
    example: Example, server: Server
) -> None:
    if server.major < 18:
        pytest.skip(NEEDS_18)
    table = "CREATE TABLE t (a int, b int{} NOT NULL); CREATE VIEW v AS SELECT b FROM t"
    example.begin(
        table.format(" GENERATED ALWAYS AS (a * 2) VIRTUAL"),
        "INSERT INTO t VALUES (1), (2)",
        table.format(""),
    )
    assert "TODO: t.b is no longer computed when it is read" in example.generate()
    example.path.write_text(answers.used(example.text))
    assert example.there_and_back()["t"] == [{"a": 1, "b": 2}, {"a": 2, "b": 4}]


def test_a_column_that_became_virtual_keeps_what_was_computed_on_the_way_back(
    example: Example, server: Server
) -> None:
    if server.major < 18:
        pytest.skip(NEEDS_18)
    table = "CREATE TABLE t (a int, b int{})"
    example.begin(
        table.format(""), "INSERT INTO t VALUES (1, 5)", table.format(" GENERATED ALWAYS AS (a * 2) VIRTUAL")
    )
    example.generate()
    example.path.write_text(answers.used(example.text))
    example.there_and_back()
    example.down()
    assert example.rows()["t"] == [{"a": 1, "b": 2}]


def test_names_of_two_lines(example: Example) -> None:
    def schema(more: str) -> str:
        return (
            'CREATE TABLE "two\ntables" ("two\nlines" int); '
            f'CREATE VIEW "a\nview" AS SELECT * FROM "two\ntables"; {more}'
        )

    example.begin(
        schema("CREATE TYPE \"old\nname\" AS ENUM ('x')"),
        'INSERT INTO "two\ntables" VALUES (1)',
        schema(
            "CREATE TYPE \"new\nname\" AS ENUM ('x'); COMMENT ON VIEW \"a\nview\" IS 'of\ntwo lines'; "
            'CREATE RULE "the\nrule" AS ON DELETE TO "two\ntables" DO ALSO NOTHING'
        ),
    )
    assert "TODO" not in example.generate()
    example.there_and_back()


KEYED = "CREATE TABLE t (a int, b int, CONSTRAINT u UNIQUE ({}))"
CHILD = "; ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES t ({})"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (KEYED.format("a") + CHILD.format("a"), KEYED.format("b")),
        (KEYED.format("a"), KEYED.format("b") + CHILD.format("b")),
        (KEYED.format("a") + CHILD.format("a"), KEYED.format("b") + CHILD.format("b")),
        (
            KEYED.format("a") + CHILD.format("a"),
            KEYED.format("a").replace("(a))", "(a) INCLUDE (b))") + CHILD.format("a"),
        ),
    ],
    ids=["the key goes", "the key comes", "the key moves", "the key stays"],
)
def test_a_foreign_key_and_a_unique_constraint_that_makes_place_for_another(
    example: Example, first: str, second: str
) -> None:
    example.begin(first, "INSERT INTO t VALUES (1, 1), (2, 2)", second)
    assert "TODO" not in example.generate()
    assert example.rules == set()
    rows = example.there_and_back()
    assert example.rows() == rows


def test_sql_of_the_newest_server_carries_no_needless_ignore(example: Example, server: Server) -> None:
    if server.major < 18:
        pytest.skip(NEEDS_18)
    table = "CREATE TABLE t (a int CONSTRAINT c CHECK (a > 0) NOT ENFORCED); CREATE INDEX i ON t (a)"
    example.begin(table + "; CREATE TABLE u (a int)", "", "CREATE TABLE u (a int)")
    example.generate()
    assert "require-concurrent-index-creation" not in example.text


def test_a_function_with_a_bracket_in_its_name_is_renamed(example: Example) -> None:
    function = "CREATE FUNCTION \"{}\"() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    example.begin(function.format("f(x) 1"), "", function.format("g(x) 2"))
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_another_policy_of_the_same_name_can_be_made_again(example: Example) -> None:
    table = "CREATE TABLE t (a int); CREATE POLICY p ON t USING (a > {})"
    example.begin(table.format(0), "", table.format(1))
    assert "TODO" not in example.generate()
    assert example.rules == set()
    example.there_and_back()


def test_a_partitioned_table_is_renamed_and_said_once(example: Example) -> None:
    def schema(table: str) -> str:
        return (
            f"CREATE TABLE {table} (a int NOT NULL) PARTITION BY RANGE (a); "
            f"CREATE TABLE part PARTITION OF {table} FOR VALUES FROM (0) TO (9)"
        )

    example.begin(schema("old"), "INSERT INTO old VALUES (1)", schema("new"))
    assert "TODO" not in example.generate()
    said = [line for line in example.result.err.splitlines() if "Detected: " in line]
    assert [line.partition("Detected: ")[2].partition('"')[0] for line in said] == ["table new is different"]
    example.there_and_back()


def test_another_type_under_a_view_and_a_policy_is_said_once(example: Example) -> None:
    schema = (
        "CREATE TABLE t (a varchar({}), CONSTRAINT c CHECK (a <> 'x')); CREATE VIEW v AS SELECT a FROM t; "
        "CREATE VIEW w AS SELECT a FROM v WHERE a <> 'y'; CREATE POLICY p ON t USING (a <> 'z')"
    )
    example.begin(schema.format(10), "INSERT INTO t VALUES ('a')", schema.format(20))
    assert "TODO" not in example.generate()
    said = [line for line in example.result.err.splitlines() if "Detected: " in line]
    assert [line.partition("Detected: ")[2].partition('"')[0] for line in said] == ["column t.a is different"]
    example.there_and_back()


def test_long_names_that_begin_in_the_same_way(example: Example) -> None:
    one, other = f"{'n' * 62}1", f"{'n' * 62}2"
    keys = (
        f"CREATE TABLE t (a int, b int, c int, CONSTRAINT {one} UNIQUE ({{}}), "
        f"CONSTRAINT {other} UNIQUE ({{}}))"
    )
    example.begin(keys.format("a", "b"), "INSERT INTO t VALUES (1, 2, 3)", keys.format("b", "c"))
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_new_column_and_one_of_another_type_keep_their_storage(example: Example) -> None:
    kept = "; ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER a SET COMPRESSION pglz"
    example.begin(
        f"CREATE TABLE t (a varchar(20)){kept}",
        "INSERT INTO t VALUES ('x')",
        f"""
        CREATE TABLE t (a varchar(40), b text){kept};
        ALTER TABLE t ALTER b SET STORAGE MAIN;
        CREATE TABLE u (c text);
        ALTER TABLE u ALTER c SET STORAGE EXTERNAL
        """,
    )
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_new_table_keeps_its_unvalidated_constraints_so(example: Example) -> None:
    example.begin(
        "CREATE TABLE t (a int PRIMARY KEY)",
        "",
        """
        CREATE TABLE t (a int PRIMARY KEY);
        CREATE TABLE u (b int, CONSTRAINT valid CHECK (b > 0));
        ALTER TABLE u ADD CONSTRAINT later CHECK (b > 5) NOT VALID;
        ALTER TABLE u ADD CONSTRAINT key FOREIGN KEY (b) REFERENCES t NOT VALID
        """,
    )
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_what_belongs_to_a_renamed_table_is_renamed_before_it(example: Example) -> None:
    schema = (
        "CREATE TABLE {0} (a int4range, b int, CONSTRAINT {1} EXCLUDE USING gist (a WITH &&)); "
        "CREATE POLICY {1} ON {0} USING (b > 0); CREATE RULE {1} AS ON DELETE TO {0} DO ALSO NOTHING"
    )
    example.begin(schema.format("t", "one"), "INSERT INTO t VALUES ('[1,2)', 1)", schema.format("u", "two"))
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_name_of_two_lines_stays_as_it_is(example: Example) -> None:
    key = "CREATE TABLE t (a int PRIMARY KEY, b int{}); {}; CREATE TABLE u (c int)"
    added = (
        'ALTER TABLE t ADD CONSTRAINT "two\nlines" FOREIGN KEY (b) REFERENCES t; '
        'ALTER TABLE u ADD CONSTRAINT " of\n\n  three " CHECK (c > 0)'
    )
    example.begin(key.format("", ""), "INSERT INTO t VALUES (1, 1)", f"{key.format('', '')}; {added}")
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_column_of_a_partitioned_table_is_said_once(example: Example) -> None:
    schema = (
        "CREATE TABLE t (a int NOT NULL{}) PARTITION BY RANGE (a); "
        "CREATE TABLE half PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (a); "
        'CREATE TABLE "table" PARTITION OF half FOR VALUES FROM (0) TO (9)'
    )
    example.begin(schema.format(""), "INSERT INTO t VALUES (1)", schema.format(", b text"))
    assert "TODO" not in example.generate()
    said = [line for line in example.result.err.splitlines() if "Detected: " in line]
    assert [line.partition("Detected: ")[2].partition('"')[0] for line in said] == ["column t.b is missing"]
    example.there_and_back()


def test_a_new_table_takes_the_names_of_indexes_of_one_that_is_dropped(example: Example) -> None:
    def schema(table: str, column: str) -> str:
        return (
            f"CREATE TABLE {table} ({column} int, b int, r int4range, CONSTRAINT u UNIQUE ({column}), "
            f"CONSTRAINT x EXCLUDE USING gist (r WITH &&)); CREATE INDEX i ON {table} (b); "
            f"COMMENT ON CONSTRAINT u ON {table} IS 'a key'"
        )

    example.begin(schema("old", "a"), "", schema("new", "c"))
    example.generate()
    assert example.rules <= {"no-todo"}
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


@pytest.mark.parametrize(
    ("becomes", "said"),
    [
        ("c text", {"column t.c is different"}),
        ("c date", {"column t.b is unexpected", "column t.c is missing"}),
    ],
    ids=["renamed", "replaced"],
)
def test_a_column_of_a_view_follows_from_that_of_the_table(
    example: Example, becomes: str, said: set[str]
) -> None:
    schema = "CREATE TABLE t (a int, {}); CREATE VIEW v AS TABLE t; CREATE VIEW w AS TABLE v"
    example.begin(schema.format("b text"), "INSERT INTO t VALUES (1)", schema.format(becomes))
    example.generate()
    assert _said(example) == said


def test_what_a_partition_inherits_is_said_and_written_once(example: Example) -> None:
    schema = (
        "CREATE TABLE t (a int NOT NULL, b int {}, c int {}) PARTITION BY RANGE (a); "
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9); {}"
    )
    example.begin(
        schema.format("", "NOT NULL", ""),
        "INSERT INTO t VALUES (1, 2, 3)",
        schema.format("DEFAULT 5", "", "ALTER TABLE t ADD CONSTRAINT u UNIQUE (a, b)"),
    )
    example.generate()
    columns = {"column t.b is different", "column t.c is different"}
    assert _said(example) == columns | {"constraint t.u is missing"}
    assert "ALTER TABLE p" not in example.text
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_a_procedure_with_a_bracket_in_its_name_is_written(example: Example) -> None:
    made = "CREATE {} \"f(x) {}\"(a int) {} LANGUAGE plpgsql AS 'BEGIN NULL; END'"
    both = made.format("PROCEDURE", 1, ""), made.format("FUNCTION", 2, "RETURNS void")
    example.begin("CREATE TABLE t ()", "", f"CREATE TABLE t (); {'; '.join(both)}")
    assert "TODO" not in example.generate()
    example.there_and_back()


def test_a_computed_column_that_gets_a_type_that_takes_no_such_value(
    example: Example, server: Server
) -> None:
    if server.major < 18:
        pytest.skip(NEEDS_18)
    table = "CREATE TABLE t (a int, b {}, c {})"
    computed = "numeric GENERATED ALWAYS AS (a / 3.0) VIRTUAL"
    example.begin(
        table.format("bytea", "bytea DEFAULT 'x' NOT NULL"),
        "INSERT INTO t VALUES (1, 'x', 'y')",
        table.format(computed, computed),
    )
    example.generate()
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_another_expression_of_a_virtual_column_in_a_table_with_a_check(
    example: Example, server: Server
) -> None:
    if server.major < 18:
        pytest.skip(NEEDS_18)
    table = "CREATE TABLE t (a int, CONSTRAINT c CHECK (a > 0), b int GENERATED ALWAYS AS (a * {}) VIRTUAL)"
    example.begin(table.format(2), "INSERT INTO t (a) VALUES (1)", table.format(3))
    assert "TODO" not in example.generate()
    assert example.there_and_back()["t"] == [{"a": 1, "b": 3}]


@pytest.mark.parametrize(
    "only_old",
    [
        "ALTER TABLE t ADD CONSTRAINT c CHECK (a OR b = 7)",
        "CREATE INDEX i ON t (b) WHERE a",
        "CREATE INDEX i ON t ((NOT a))",
        "ALTER TABLE t ADD d int GENERATED ALWAYS AS (CASE WHEN a THEN 1 END) STORED, ADD CHECK (d > 0)",
        "CREATE TABLE u (c boolean, CONSTRAINT f FOREIGN KEY (c) REFERENCES t (a) ON DELETE CASCADE)",
    ],
    ids=["check", "partial index", "index on an expression", "generated column", "foreign key"],
)
@pytest.mark.parametrize("comes", [False, True], ids=["goes", "comes"])
def test_what_fits_only_one_type_of_a_column(example: Example, only_old: str, comes: bool) -> None:
    table = "CREATE TABLE t (a {} CONSTRAINT k UNIQUE, b int)"
    one, other = f"{table.format('boolean')}; {only_old}", table.format("int")
    first, second = (other, one) if comes else (one, other)
    example.begin(first, "INSERT INTO t (a, b) VALUES (NULL, 1)", second)
    example.generate()
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_a_column_that_became_generated_is_not_null_again_on_the_way_back(example: Example) -> None:
    table = "CREATE TABLE t (a int, b int {})"
    example.begin(
        table.format("NOT NULL"),
        "INSERT INTO t VALUES (1, 5)",
        table.format("GENERATED ALWAYS AS (a * 2) STORED"),
    )
    example.generate()
    assert example.rules <= {"no-todo"}
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


BESIDE = "CREATE TABLE t (a int, b int); CREATE UNIQUE INDEX i ON t ({}); ALTER TABLE t ADD UNIQUE (a)"
INDEXED = "CREATE TABLE t (a int, b int); CREATE UNIQUE INDEX i ON t (a){}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BESIDE.format("a") + CHILD.format("a"), BESIDE.format("b") + CHILD.format("a")),
        (BESIDE.format("b") + CHILD.format("a"), BESIDE.format("a") + CHILD.format("a")),
        (INDEXED.format("") + CHILD.format("a"), INDEXED.format(" INCLUDE (b)") + CHILD.format("a")),
        (INDEXED.format(""), INDEXED.format(" INCLUDE (b)") + CHILD.format("a")),
        (INDEXED.format("") + CHILD.format("a"), INDEXED.format(" INCLUDE (b)")),
        (INDEXED.format(""), INDEXED.format(" INCLUDE (b)").replace(" i ", " j ") + CHILD.format("a")),
        (INDEXED.format(""), KEYED.format("a").replace(" u ", " i ") + CHILD.format("a")),
        (KEYED.format("a"), INDEXED.format("") + CHILD.format("a")),
    ],
    ids=[
        "no longer unique",
        "unique",
        "the key stays",
        "the key comes",
        "the key goes",
        "another name",
        "a constraint of its name",
        "once a constraint",
    ],
)
def test_a_foreign_key_and_a_unique_index_that_makes_place_for_another(
    example: Example, first: str, second: str
) -> None:
    """The server ties a key to the first index that fits."""
    example.begin(first, "INSERT INTO t VALUES (1, 1), (2, 2)", second)
    assert "TODO" not in example.generate()
    assert example.rules == set()
    rows = example.there_and_back()
    assert example.rows() == rows


@pytest.mark.parametrize(
    "second",
    ["SELECT c FROM t", "SELECT a AS b FROM t WHERE a > 0"],
    ids=["of another column", "of other rows"],
)
def test_a_view_with_another_query_has_no_renamed_columns(example: Example, second: str) -> None:
    table = "CREATE TABLE t (a int, c int); CREATE VIEW v AS {}; CREATE VIEW w AS TABLE v"
    example.begin(table.format("SELECT a FROM t"), "INSERT INTO t VALUES (1, 2)", table.format(second))
    assert "RENAME" not in example.generate()
    assert "view v is different" in _said(example)
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_a_column_of_a_view_follows_from_what_is_computed_in_another_type(example: Example) -> None:
    schema = (
        "CREATE TABLE t (a text, b {}) STORED); CREATE VIEW v AS TABLE t; "
        "CREATE VIEW w AS SELECT b AS c FROM v"
    )
    example.begin(
        schema.format("int GENERATED ALWAYS AS (length(a)"),
        "INSERT INTO t VALUES ('x')",
        schema.format("tsvector GENERATED ALWAYS AS (to_tsvector('simple', a)"),
    )
    example.generate()
    assert _said(example) == {"column t.b is different"}
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def test_a_statistics_object_moves_to_another_table(example: Example) -> None:
    schema = "CREATE TABLE {0} (a int, b int); CREATE STATISTICS s ON a, b FROM {0}"
    commented = "; COMMENT ON TABLE u IS 'another'"
    example.begin(schema.format("t"), "INSERT INTO t VALUES (1)", schema.format("u") + commented)
    example.generate()
    assert _said(example) == {"table t is unexpected", "table u is missing"}
    example.path.write_text(answers.used(example.text))
    example.there_and_back()


def _said(example: Example) -> set[str]:
    """What the drift check found; each is said once."""
    lines = [line.partition("Detected: ")[2].partition('"')[0] for line in example.result.err.splitlines()]
    found = [line for line in lines if line]
    assert len(found) == len(set(found))
    return set(found)
