"""A project with a partitioned table of two levels, and each online operation on it beside the plain SQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.example import ENVIRONMENT
from tests.support.project import Project
from tests.support.server import Database

TABLES = """
CREATE TABLE kinds (id integer PRIMARY KEY);
CREATE TABLE parts (id integer, at date NOT NULL, kind integer, n integer, label text)
    PARTITION BY RANGE (at);
CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE parts_2025 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY RANGE (at);
CREATE TABLE "parts_2025 H1" PARTITION OF parts_2025 FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
CREATE TABLE parts_2025_rest (
    label text, n integer, kind integer, gone integer, at date NOT NULL, id integer
);
ALTER TABLE parts_2025_rest DROP COLUMN gone;
ALTER TABLE parts_2025 ATTACH PARTITION parts_2025_rest DEFAULT;
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE TABLE above (id integer, label text);
CREATE TABLE below (more integer) INHERITS (above);
CREATE TABLE far_below () INHERITS (below);
"""
ROWS = """
INSERT INTO kinds SELECT n FROM generate_series(0, 4) AS n;
INSERT INTO parts
    SELECT n, date '2024-01-01' + n % 1000, n % 5, n, CASE WHEN n % 2 = 0 THEN 'old' END
    FROM generate_series(1, 2000) AS n;
INSERT INTO above SELECT n FROM generate_series(1, 100) AS n;
INSERT INTO below SELECT n, NULL, n FROM generate_series(101, 200) AS n;
INSERT INTO far_below SELECT n FROM generate_series(201, 300) AS n;
"""


@dataclass(frozen=True)
class Operation:
    """An online operation.

    :ivar body: of the revision's ``upgrade()``.
    :ivar back: of its ``downgrade()``.
    :ivar plain: SQL that gives the same schema and the same rows.
    :ivar before: SQL of the revision before it.
    """

    body: str
    back: str
    plain: str
    before: str = ""


KEYS = """
ALTER TABLE above ADD PRIMARY KEY (id);
ALTER TABLE below ADD PRIMARY KEY (id);
ALTER TABLE far_below ADD PRIMARY KEY (id);
"""
DROP_CONSTRAINT = 'op.execute("ALTER TABLE parts DROP CONSTRAINT IF EXISTS {}")'
OPERATIONS = {
    "index": Operation(
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON parts (n)")',
        'op.drop_index_concurrently("by_n")',
        "CREATE INDEX by_n ON parts (n)",
    ),
    "unique index": Operation(
        'op.create_index_concurrently("one", """CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one\n'
        '    ON parts (at, id DESC, lower(label), (id + 1)) INCLUDE (n) WHERE label > \'(\' """)',
        'op.drop_index_concurrently("one")',
        "CREATE UNIQUE INDEX one ON parts (at, id DESC, lower(label), (id + 1)) INCLUDE (n) "
        "WHERE label > '('",
    ),
    "drop of an index": Operation(
        'op.drop_index_concurrently("by_n")',
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON parts (n)")',
        "DROP INDEX by_n",
        "CREATE INDEX by_n ON parts (n);",
    ),
    "check": Operation(
        'op.execute("ALTER TABLE parts DROP CONSTRAINT IF EXISTS positive")\n'
        'op.execute("ALTER TABLE parts ADD CONSTRAINT positive CHECK (n > 0) NOT VALID")\n'
        'op.validate_constraint("parts", "positive")',
        DROP_CONSTRAINT.format("positive"),
        "ALTER TABLE parts ADD CONSTRAINT positive CHECK (n > 0)",
    ),
    "not null": Operation(
        'op.set_not_null("parts", "n")',
        'op.drop_not_null("parts", "n")',
        "ALTER TABLE parts ALTER COLUMN n SET NOT NULL",
    ),
    "foreign key": Operation(
        'op.add_foreign_key("parts", "of_kind", "FOREIGN KEY (kind) REFERENCES kinds (id)")',
        DROP_CONSTRAINT.format("of_kind"),
        "ALTER TABLE parts ADD CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES kinds (id)",
    ),
    "unique constraint": Operation(
        'op.add_unique_constraint("parts", "one_a_day", ["at", "id"])',
        DROP_CONSTRAINT.format("one_a_day"),
        "ALTER TABLE parts ADD CONSTRAINT one_a_day UNIQUE (at, id)",
    ),
    "primary key": Operation(
        'op.add_primary_key("parts", "parts_key", ["id", "at"])',
        DROP_CONSTRAINT.format("parts_key") + '\nop.drop_not_null("parts", "id")',
        "ALTER TABLE parts ADD CONSTRAINT parts_key PRIMARY KEY (id, at)",
    ),
    "backfill": Operation(
        """op.backfill("parts", "label = 'new ' || parts.n", "parts.label IS NULL")""",
        'op.execute("SELECT 1")',
        "UPDATE parts SET label = 'new ' || n WHERE label IS NULL",
    ),
    "backfill that moves rows": Operation(
        """op.backfill("parts", "at = at + 365, label = 'moved'", "at < '2024-06-01'")""",
        'op.execute("SELECT 1")',
        "UPDATE parts SET at = at + 365, label = 'moved' WHERE at < '2024-06-01'",
    ),
    "backfill of tables that inherit": Operation(
        """op.backfill("above", "label = 'new ' || id", "label IS NULL")""",
        'op.execute("SELECT 1")',
        "UPDATE above SET label = 'new ' || id WHERE label IS NULL",
    ),
    "rows changed": Operation(
        """op.change_rows("parts", set={"n": "n + 1"}, where="n % 3 = 0", keep=True)""",
        'op.bring_back("parts")',
        "UPDATE parts SET n = n + 1 WHERE n % 3 = 0",
        "ALTER TABLE parts ADD PRIMARY KEY (id, at);",
    ),
    "rows deleted": Operation(
        """op.delete_rows("parts", where="n % 3 = 0", keep=True)""",
        'op.bring_back("parts")',
        "DELETE FROM parts WHERE n % 3 = 0",
        "ALTER TABLE parts ADD PRIMARY KEY (id, at);",
    ),
    "rows of tables that inherit changed": Operation(
        """op.change_rows("above", set={"label": "'new ' || id"}, where="above.id % 3 = 0", keep=True)""",
        'op.bring_back("above")',
        "UPDATE above SET label = 'new ' || id WHERE id % 3 = 0",
        KEYS,
    ),
    "rows of tables that inherit deleted": Operation(
        """op.delete_rows("above", where="id % 3 = 0", keep=True)""",
        'op.bring_back("above")',
        "DELETE FROM above WHERE id % 3 = 0",
        KEYS,
    ),
}


def fill(project: Project, operation: Operation) -> Path:
    """Make the operation revision 002 of a project whose revision 001 makes the tables.

    :returns: the file of revision 002.
    """
    for path in project.versions.glob("*.py"):
        path.unlink()
    project.add_revision(TABLES + operation.before, "SELECT 1", name="tables")
    rows_alone = operation.plain.startswith(("UPDATE", "DELETE"))
    models = TABLES + operation.before + ("" if rows_alone else operation.plain)
    (project.directory / "alembic" / "env.py").write_text(ENVIRONMENT.replace("{models!r}", repr(models)))
    return project.add_revision(operation.body, operation.back, name="operation", python=True)


_CATALOGS = {
    "indexes": """
        SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready,
               h.inhparent::regclass::text
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
        LEFT JOIN pg_inherits AS h ON h.inhrelid = i.indexrelid
    """,
    "constraints": """
        SELECT k.conrelid::regclass::text, k.conname, k.contype::text, pg_get_constraintdef(k.oid),
               k.convalidated, k.coninhcount, p.conrelid::regclass::text, p.conname,
               CASE WHEN k.contype <> 'n' THEN k.conislocal END
        FROM pg_constraint AS k LEFT JOIN pg_constraint AS p ON p.oid = k.conparentid
        WHERE k.connamespace = 'public'::regnamespace
    """,
    "columns": """
        SELECT a.attrelid::regclass::text, a.attname, a.attnotnull, a.attislocal, a.attinhcount
        FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid AND c.relnamespace = 'public'::regnamespace
        WHERE a.attnum > 0 AND c.relkind IN ('r', 'p')
    """,
}
_BOOKS = ("alembic_version", "schema_migrations", "guvnor_")


def catalogs(database: Database) -> dict[str, list[str]]:
    """What the catalogs say of the tables, without the tool's own."""
    found = {}
    for kind, sql in _CATALOGS.items():
        texts = sorted(repr(row) for row in database.execute(sql))
        found[kind] = [text for text in texts if not any(name in text for name in _BOOKS)]
    return found


def rows(database: Database) -> list[tuple[object, ...]]:
    """All rows of the tables, and where each is."""
    return database.execute(
        "SELECT tableoid::regclass::text, id, at, kind, n, label FROM parts "
        "UNION ALL SELECT tableoid::regclass::text, id, NULL, NULL, NULL, label FROM above ORDER BY 1, 2, 3"
    )
