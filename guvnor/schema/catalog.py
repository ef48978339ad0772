"""Reads a schema from the catalogs of a server into a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from psycopg2 import extensions

from guvnor.bookkeeping.tables import BOOKKEEPING_TABLES
from guvnor.online import kept_names
from guvnor.postgres import Connection
from guvnor.schema.inheritance import follow
from guvnor.schema.queries import functions_and_types, other_kinds, parts_of_tables, relations
from guvnor.schema.snapshot import Object, Snapshot, handle, matcher

# The queries of all objects, except for those of the database as a whole.
_QUERIES = (
    relations.SCHEMA, relations.RELATIONS, relations.COLUMNS,
    parts_of_tables.CONSTRAINTS, parts_of_tables.INDEXES, parts_of_tables.TRIGGERS,
    parts_of_tables.RULES, parts_of_tables.POLICIES, parts_of_tables.STATISTICS,
    functions_and_types.FUNCTIONS, functions_and_types.TYPES,
    relations.SEQUENCES, other_kinds.RARE, other_kinds.LABELS,
)  # fmt: skip

# The settings that decide how constants are printed; both sides of a comparison are read with the same.
_PRINTING = {
    "quote_all_identifiers": "off", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "TimeZone": "UTC",
    "extra_float_digits": "1", "bytea_output": "hex",
}  # fmt: skip


def read(connection: Connection, schema: str = "public", *, parents: bool = True) -> Snapshot:
    """Read all objects of a schema in the transaction that the connection is in.

    It changes nothing, and takes no lock but ACCESS SHARE, which stops neither readers nor writers. Until the
    end of the transaction, the ``search_path`` is the schema, ``public``, and the schemas of the installed
    extensions, so that names print without their schema.

    :param schema: the schema's name; ``public`` is the live one, any other a shadow.
    :param parents: False leaves out some of the parents of constraints, indexes and columns, which take long
        to read; whether two schemas are equal does not depend on them.
    """
    sql = """
        SELECT n.oid::bigint AS oid, current_setting('server_version_num')::integer AS version,
               o.owner,
               set_config('search_path', concat_ws(', ', quote_ident(n.nspname),
                   (SELECT string_agg(DISTINCT quote_ident(e.nspname), ', ')
                    FROM pg_catalog.pg_extension AS x
                    JOIN pg_catalog.pg_namespace AS e ON e.oid = x.extnamespace
                    WHERE e.nspname NOT IN ('pg_catalog', 'public', %(name)s)),
                   CASE WHEN n.nspname <> 'public' THEN 'public' END), true),
               ARRAY(SELECT name::text FROM pg_catalog.pg_available_extensions()) AS available,
               ARRAY(SELECT quote_ident(r.rolname) FROM pg_catalog.pg_roles AS r
                     WHERE r.rolname IN (current_user, o.owner)
                        OR (NOT m.rolsuper AND pg_has_role(current_user, r.oid, 'USAGE'))
                     UNION ALL
                     SELECT 'PUBLIC'
                     WHERE NOT EXISTS (
                         SELECT FROM aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) AS e
                         WHERE e.privilege_type = 'CREATE' AND e.grantee <> 0
                           AND pg_has_role(current_user, e.grantee, 'USAGE')
                     )) AS roles,
               ARRAY(SELECT set_config(s.name, s.value, true)
                     FROM unnest(%(names)s, %(values)s) AS s (name, value))
        FROM pg_catalog.pg_namespace AS n
        JOIN pg_catalog.pg_roles AS m ON m.rolname = current_user
        LEFT JOIN LATERAL (
            SELECT pg_get_userbyid(c.relowner) AS owner FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = n.oid AND c.relname IN ('alembic_version', 'schema_migrations')
            ORDER BY c.relname LIMIT 1
        ) AS o ON true
        WHERE n.nspname = %(name)s
        """
    parameters = {"name": schema, "names": list(_PRINTING), "values": list(_PRINTING.values())}
    facts = next(_rows(_run(connection, sql, parameters)), None)
    if facts is None:
        return Snapshot({})
    wanted = {"schema": facts["oid"], "parents": parents}
    bookkeeping = matcher((*BOOKKEEPING_TABLES, *kept_names.PATTERNS))
    with ThreadPoolExecutor(1) as thread:
        # While the server runs a query, objects are made from the rows of the previous one.
        parts = [
            thread.submit(_objects, _run(connection, query, wanted), bookkeeping)
            for query in (*_QUERIES, other_kinds.database_wide(facts["version"]))
        ]
        defaults = _run(connection, relations.DEFAULTS, wanted) if parents else None
    objects = {found.handle: found for part in parts for found in part.result()}
    for row in _rows(defaults) if defaults else ():
        _uses(objects, row)
    if schema == "public":
        _open_to_all(objects, facts["version"])
    follow(objects)
    return Snapshot(objects, facts["owner"], frozenset(facts["available"]), frozenset(facts["roles"]))


def read_global(connection: Connection, schema: int) -> set[str]:
    """Return the handles of what belongs to the database as a whole, given the oid of a schema."""
    query = other_kinds.database_wide(connection.server_version)
    return {item.handle for item in _objects(_run(connection, query, {"schema": schema}))}


def with_indexes(snapshot: Snapshot, connection: Connection, schema: str) -> Snapshot:
    """Give primary keys and unique constraints the statements that make their indexes, as ``index``."""
    sql = """
        SELECT 'constraint:' || quote_ident(c.relname) || '.' || quote_ident(k.conname) AS key,
               pg_get_indexdef(k.conindid, 0, true) AS sql
        FROM pg_catalog.pg_constraint AS k
        JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND k.contype IN ('p', 'u')
        """
    objects = dict(snapshot.objects)
    for row in _rows(_run(connection, sql, {"schema": schema})):
        if item := objects.get(row["key"]):
            objects[row["key"]] = replace(item, attributes={**item.attributes, "index": row["sql"]})
    return replace(snapshot, objects=objects)


def _run(connection: Connection, sql: str, parameters: dict[str, Any]) -> extensions.cursor:
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    return cursor


def _rows(cursor: extensions.cursor) -> Iterator[dict[str, Any]]:
    """Return the rows of a query by the names of its columns."""
    names = [column.name for column in cursor.description or ()]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _objects(cursor: extensions.cursor, left_out: Callable[[Object], bool] = lambda _: False) -> list[Object]:
    """Make objects from rows; see :mod:`guvnor.schema.queries` for their shape.

    :param left_out: tells which ones to leave out.
    """
    objects = []
    for row in _rows(cursor):
        kind, identity = row.pop("kind"), row.pop("identity")
        own, inherited_from = handle(kind, identity), tuple(row.pop("inherited_from", None) or ())
        made = Object(
            kind,
            identity,
            parents=tuple(p for p in (*row.pop("parents"), *inherited_from) if p != own),
            sql=row.pop("sql", row.get("definition")),
            granted=frozenset(row.pop("granted", None) or ()),
            revoked=frozenset(row.pop("revoked", None) or ()),
            inherited_from=inherited_from,
            attributes={name: None if value == [] else value for name, value in row.items()},
        )
        if not left_out(made):
            objects.append(made)
    return objects


def _uses(objects: dict[str, Object], row: dict[str, Any]) -> None:
    """Add to a column what its default depends on."""
    column = objects.get(f"column:{row['identity']}")
    if column is None:
        return
    # A sequence that the column owns goes with the column, not the column with it.
    owned = [p for p in row["parents"] if (item := objects.get(p)) and column.handle in item.parents]
    known = {*column.parents, column.handle, *owned}
    used = [parent for parent in row["parents"] if parent not in known]
    objects[column.handle] = replace(column, parents=(*column.parents, *used))


def _open_to_all(objects: dict[str, Object], version: int) -> None:
    """Allow for the defaults of ``public``: every role may use it, and before PostgreSQL 15 create in it."""
    schema = objects["schema:public"]
    usual = {"PUBLIC=USAGE"} | ({"PUBLIC=CREATE"} if version < 150000 else set())
    objects["schema:public"] = replace(
        schema, granted=schema.granted - usual, revoked=schema.revoked | ({"PUBLIC=USAGE"} - schema.granted)
    )
