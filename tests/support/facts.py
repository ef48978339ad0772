"""What the catalogs of a live database say about a schema, in the shape of the ``schema-v*.json`` files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# The tables in which Alembic, golang-migrate and this project keep their books are not part of the schema.
BOOKKEEPING = ("alembic_version", "schema_migrations", "guvnor_migration_history")

STAND_IN = {"name": "uuid_generate_v4", "arguments": "", "returns": "uuid", "language": "sql"}

EXTENSIONS = """
    SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname
"""
ENUMS = """
    SELECT typname, array_agg(enumlabel ORDER BY enumsortorder)::text[] AS labels
    FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid
    WHERE typnamespace = %(schema)s::regnamespace
    GROUP BY typname
"""
# deptype 'e': the function belongs to an extension.
FUNCTIONS = """
    SELECT
        proname AS name,
        pg_get_function_identity_arguments(pg_proc.oid) AS arguments,
        pg_get_function_result(pg_proc.oid) AS returns,
        lanname AS language
    FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
    WHERE pronamespace = %(schema)s::regnamespace
      AND NOT EXISTS (
          SELECT FROM pg_depend
          WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'
      )
    ORDER BY proname, arguments
"""
TABLES = """
    SELECT oid, relname
    FROM pg_class
    WHERE relnamespace = %(schema)s::regnamespace
      AND relkind IN ('r', 'p')
      AND relname <> ALL (%(bookkeeping)s)
"""
COLUMNS = """
    SELECT
        attname AS name,
        format_type(atttypid, atttypmod) AS type,
        NOT attnotnull AS nullable,
        pg_get_expr(adbin, adrelid) AS "default"
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
# contype 'n': since PostgreSQL 18 NOT NULL is a constraint too; here it is a column's property.
CONSTRAINTS = """
    SELECT conname, pg_get_constraintdef(oid, true)
    FROM pg_constraint
    WHERE conrelid = %(table)s AND contype NOT IN ('n', 't')
"""
INDEXES = """
    SELECT relname, pg_get_indexdef(indexrelid, 0, true)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = %(table)s
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)
"""
TRIGGERS = """
    SELECT tgname, pg_get_triggerdef(oid, true)
    FROM pg_trigger
    WHERE tgrelid = %(table)s AND NOT tgisinternal
"""

# What the JSON files do not hold: the rest of what a dump would show, and all objects by name. Two databases
# of one server give the same rows when their schemas are the same.
DETAILS = {
    "relations": """
        SELECT relname, relkind::text, relpersistence::text, reloptions, relrowsecurity, relreplident::text,
               amname, obj_description(pg_class.oid, 'pg_class')
        FROM pg_class LEFT JOIN pg_am ON pg_am.oid = relam
        WHERE relnamespace = %(schema)s::regnamespace AND relname <> ALL (%(bookkeeping)s)
          AND (relkind <> 'i' OR NOT EXISTS (
              SELECT FROM pg_index WHERE indexrelid = pg_class.oid AND indrelid = ANY (%(bookkeeping_oids)s)
          ))
          AND (relkind <> 'S' OR NOT EXISTS (
              SELECT FROM pg_depend
              WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                AND refobjid = ANY (%(bookkeeping_oids)s)
          ))
    """,
    "columns": """
        SELECT attrelid::regclass::text, attname, attstorage::text, attcompression::text,
               attcollation::regcollation::text, attidentity::text, attgenerated::text,
               ARRAY(SELECT o FROM unnest(attoptions) AS o WHERE NOT starts_with(o, 'pg_attver=')),
               col_description(attrelid, attnum)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'p') AND attnum > 0
          AND NOT attisdropped AND attrelid <> ALL (%(bookkeeping_oids)s)
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype::text, convalidated, condeferrable, condeferred,
               connoinherit, confmatchtype::text, obj_description(oid, 'pg_constraint')
        FROM pg_constraint
        WHERE connamespace = %(schema)s::regnamespace AND conrelid <> ALL (%(bookkeeping_oids)s)
    """,
    "indexes": """
        SELECT indexrelid::regclass::text, indisvalid, indisready, indisunique, indimmediate, indisclustered,
               indisreplident
        FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
        WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r'
          AND indrelid <> ALL (%(bookkeeping_oids)s)
    """,
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, tgenabled::text
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE relnamespace = %(schema)s::regnamespace AND NOT tgisinternal
          AND tgrelid <> ALL (%(bookkeeping_oids)s)
    """,
    "functions": """
        SELECT proname, prosrc, provolatile::text, proparallel::text, proisstrict, prosecdef, proleakproof,
               proconfig, procost, obj_description(oid, 'pg_proc')
        FROM pg_proc
        WHERE pronamespace = %(schema)s::regnamespace
          AND NOT EXISTS (
              SELECT FROM pg_depend
              WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'
          )
    """,
    "types": """
        SELECT typname, typtype::text, obj_description(pg_type.oid, 'pg_type')
        FROM pg_type
        WHERE typnamespace = %(schema)s::regnamespace AND typtype <> 'c' AND typelem = 0
          AND NOT EXISTS (
              SELECT FROM pg_depend
              WHERE classid = 'pg_type'::regclass AND objid = pg_type.oid AND deptype = 'e'
          )
    """,
}


def read(connection: Any, schema: str = "public") -> dict[str, Any]:
    """Return the facts of a schema.

    :param connection: a psycopg2 connection whose search path begins with the schema, so that names are
        printed unqualified.
    """
    with connection.cursor() as cursor:

        def rows(sql: str, **values: Any) -> list[dict[str, Any]]:
            cursor.execute(sql, values)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        def pairs(sql: str, **values: Any) -> dict[str, Any]:
            cursor.execute(sql, values)
            return dict(cursor.fetchall())

        tables = {
            table["relname"]: {
                "columns": rows(COLUMNS, table=table["oid"]),
                "constraints": pairs(CONSTRAINTS, table=table["oid"]),
                "indexes": pairs(INDEXES, table=table["oid"]),
                "triggers": pairs(TRIGGERS, table=table["oid"]),
            }
            for table in rows(TABLES, schema=schema, bookkeeping=list(BOOKKEEPING))
        }
        return {
            "enums": pairs(ENUMS, schema=schema),
            "extensions": [row["extname"] for row in rows(EXTENSIONS)],
            "functions": rows(FUNCTIONS, schema=schema),
            "tables": tables,
        }


def details(connection: Any, schema: str = "public") -> dict[str, list[tuple[Any, ...]]]:
    """Return what :func:`read` leaves out: bodies, validity, options, comments, and all objects by name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(array_agg(oid), '{}') FROM pg_class "
            "WHERE relnamespace = %(schema)s::regnamespace AND relname = ANY (%(bookkeeping)s)",
            {"schema": schema, "bookkeeping": list(BOOKKEEPING)},
        )
        values = {
            "schema": schema,
            "bookkeeping": list(BOOKKEEPING),
            "bookkeeping_oids": cursor.fetchone()[0],
        }
        found = {}
        for kind, sql in DETAILS.items():
            cursor.execute(sql, values)
            found[kind] = sorted(cursor.fetchall(), key=repr)
        return found


def expected(connection: Any, version: int) -> dict[str, Any]:
    """Return the facts of a version (0: nothing applied) on the server of this connection.

    Where an extension is not available it is missing, and a function stands in for that of ``uuid-ossp``.
    """
    newest = json.loads(Path(__file__).with_name("schema-v2.json").read_text())
    if version == 0:
        facts = {"enums": {}, "extensions": newest["extensions"], "functions": [], "tables": {}}
    else:
        facts = json.loads(Path(__file__).with_name(f"schema-v{version}.json").read_text())
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_available_extensions")
        available = {name for (name,) in cursor.fetchall()}
    facts["extensions"] = [name for name in facts["extensions"] if name in available]
    if version and "uuid-ossp" not in available:
        facts["functions"].append(STAND_IN)
    return facts
