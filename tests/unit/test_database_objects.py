"""In which order, and with which statements, does create_all() create what the models declare?"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Computed,
    Index,
    Integer,
    MetaData,
    Table,
    create_mock_engine,
    text,
)

from guvnor.database_objects import function, trigger, view


def created(metadata: MetaData, *, drop: bool = False) -> list[str]:
    """Return the statements of create_all(), or of drop_all()."""
    statements: list[str] = []

    def take(sql: Any, *_: object, **__: object) -> None:
        statements.append(str(sql.compile(dialect=engine.dialect)).strip())

    engine = create_mock_engine("postgresql+psycopg2://", take)
    (metadata.drop_all if drop else metadata.create_all)(engine, checkfirst=False)
    return statements


def names(statements: list[str]) -> list[str]:
    """Return what the statements create or drop, in order."""
    kept = [line.split("\n")[0].replace("(", " ") for line in statements if not line.startswith("SET ")]
    skipped = {"CREATE", "OR", "REPLACE", "DROP", "IF", "EXISTS", "NOT", "MATERIALIZED"}
    return [" ".join([word for word in line.split() if word not in skipped][:2]) for line in kept]


def test_each_comes_after_what_it_uses_wherever_it_is_declared() -> None:
    metadata = MetaData()
    table = Table(
        "t",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer, server_default=text("next_n()")),
        Column("m", Integer, Computed("twice(n)")),
    )
    Index("by_half", text("half(n)"), _table=table)
    trigger("z", table, "BEFORE UPDATE", "note('t')")
    view(metadata, "b", "SELECT x FROM of_a()")
    view(metadata, "a", "SELECT n AS x, m AS b FROM t")
    function(metadata, "of_a()", returns="SETOF a", language="sql", body="SELECT * FROM a")
    function(metadata, "next_n()", returns="integer", body="BEGIN RETURN helper(); END")
    function(metadata, "helper()", returns="integer", language="sql", body="SELECT max(id) FROM t")
    for name in ("twice", "half"):
        function(metadata, f"{name}(n integer)", returns="integer", body="...", options="IMMUTABLE")
    function(metadata, "note()", returns="trigger", body="...")
    statements = created(metadata)
    assert names(statements) == [
        *(
            "FUNCTION helper",
            "FUNCTION next_n",
            "FUNCTION twice",
            "FUNCTION half",
            "TABLE t",
            "INDEX by_half",
        ),
        *("VIEW a", "FUNCTION of_a", "VIEW b", "FUNCTION note", "TRIGGER z"),
    ]
    # The body of helper() reads a table that comes later.
    assert statements[0] == "SET check_function_bodies = off"
    assert statements[2] == "SET check_function_bodies = on"
    assert names(created(metadata, drop=True)) == ["VIEW b", "VIEW a", "TABLE t"]


def test_the_statements_say_what_was_declared() -> None:
    metadata = MetaData()
    table = Table("Odd t", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
    seen = view(metadata, "Odd v", 'SELECT id FROM "Odd t"\nWITH CHECK OPTION;', options="security_barrier")
    view(metadata, "m", "SELECT 1 AS n", materialized=True, indexes=["CREATE UNIQUE INDEX m_n ON m (n)"])
    note = function(
        metadata,
        "note()",
        returns="trigger",
        body="""
            BEGIN
                RETURN $$x$$;
            END
        """,
        options="SECURITY DEFINER",
    )
    function(metadata, "one()", returns="integer", language="sql", body=" RETURN 1 ")
    trigger("a", seen, "INSTEAD OF DELETE", note)
    trigger("b", table, "AFTER INSERT", note, constraint="DEFERRABLE", when="NEW.id > 1")
    trigger("c", table, "AFTER INSERT", note, each="STATEMENT", referencing="NEW TABLE AS added")
    assert created(metadata)[1:] == [
        (
            'CREATE OR REPLACE VIEW "Odd v" WITH (security_barrier) AS\n'
            'SELECT id FROM "Odd t"\nWITH CHECK OPTION'
        ),
        "CREATE MATERIALIZED VIEW IF NOT EXISTS m AS\nSELECT 1 AS n",
        "CREATE UNIQUE INDEX m_n ON m (n)",
        (
            "CREATE OR REPLACE FUNCTION note() RETURNS trigger\nLANGUAGE plpgsql\nSECURITY DEFINER\n"
            "AS $body$\nBEGIN\n    RETURN $$x$$;\nEND\n$body$"
        ),
        "CREATE OR REPLACE FUNCTION one() RETURNS integer\nLANGUAGE sql\nRETURN 1",
        'CREATE OR REPLACE TRIGGER a\nINSTEAD OF DELETE ON "Odd v"\nFOR EACH ROW\nEXECUTE FUNCTION note()',
        (
            'CREATE CONSTRAINT TRIGGER b\nAFTER INSERT ON "Odd t"\nDEFERRABLE\nFOR EACH ROW\n'
            "WHEN (NEW.id > 1)\nEXECUTE FUNCTION note()"
        ),
        (
            'CREATE OR REPLACE TRIGGER c\nAFTER INSERT ON "Odd t"\nREFERENCING NEW TABLE AS added\n'
            "FOR EACH STATEMENT\nEXECUTE FUNCTION note()"
        ),
    ]
