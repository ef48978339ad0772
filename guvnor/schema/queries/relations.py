"""The schema itself, its tables and views with their columns, and its sequences."""

from __future__ import annotations

from guvnor.schema.queries import column_handles, comment, dependencies, not_of_extension, privileges

# The schema itself. By default, every role may use "public", and before PostgreSQL 15 create objects in it.
SCHEMA = f"""
    SELECT 'schema' AS kind, 'public' AS identity, '{{}}'::text[] AS parents,
           NULLIF({comment("pg_namespace", "n.oid")}, 'standard public schema') AS comment,
           {privileges("n.nspacl", "n", "n.nspowner")}
    FROM pg_namespace AS n WHERE n.oid = %(schema)s"""

_QUERY_OF_VIEW = "(SELECT oid FROM pg_rewrite WHERE ev_class = c.oid AND rulename = '_RETURN')"

# Tables, foreign tables, views and materialized views. Row types and sizes are not compared; indexes and
# rules are objects of their own.
RELATIONS = f"""
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                          ELSE 'table' END AS kind,
           quote_ident(c.relname) AS identity,
           CASE WHEN c.relkind IN ('v', 'm')
                THEN {dependencies("pg_rewrite", _QUERY_OF_VIEW)}
                ELSE '{{}}' END AS parents,
           CASE WHEN c.relkind IN ('v', 'm') THEN
                CASE c.relkind WHEN 'v' THEN 'CREATE VIEW ' ELSE 'CREATE MATERIALIZED VIEW ' END
                || quote_ident(c.relname)
                || COALESCE(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
                || ' AS ' || rtrim(pg_get_viewdef(c.oid, true), ';')
                || CASE WHEN c.relispopulated THEN '' ELSE ' WITH NO DATA' END END AS sql,
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid, true) END AS definition,
           CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'permanent' END AS persistence,
           ARRAY(SELECT unnest(c.reloptions) ORDER BY 1) AS options,
           ARRAY(SELECT 'toast.' || unnest(t.reloptions) ORDER BY 1) AS "toast options",
           c.relrowsecurity AS "row security",
           c.relforcerowsecurity AS "row security forced",
           CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
                ELSE 'index ' || (SELECT quote_ident(r.relname) FROM pg_index AS i
                                  JOIN pg_class AS r ON r.oid = i.indexrelid
                                  WHERE i.indrelid = c.oid AND i.indisreplident) END AS "replica identity",
           pg_get_userbyid(c.relowner) AS owner,
           (SELECT amname FROM pg_am WHERE oid = c.relam) AS "access method",
           (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace) AS tablespace,
           ARRAY(SELECT p.inhparent::regclass::text || CASE WHEN to_jsonb(p) @> '{{"inhdetachpending": true}}'
                        THEN ' (detach pending)' ELSE '' END
                 FROM pg_inherits AS p WHERE p.inhrelid = c.oid ORDER BY p.inhseqno) AS "inherits from",
           pg_get_expr(c.relpartbound, c.oid) AS "partition bound",
           CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS "partition key",
           NULLIF(c.reloftype, 0)::regtype::text AS "of type",
           CASE WHEN c.relkind = 'm' THEN c.relispopulated END AS populated,
           (SELECT quote_ident(s.srvname) || COALESCE(' ' || f.ftoptions::text, '')
            FROM pg_foreign_table AS f JOIN pg_foreign_server AS s ON s.oid = f.ftserver
            WHERE f.ftrelid = c.oid) AS "foreign server",
           ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND c.relkind NOT IN ('v', 'm')
                 ORDER BY a.attnum) AS "column order",
           {comment("pg_class", "c.oid")} AS comment,
           {privileges("c.relacl", "r", "c.relowner")}
    FROM pg_class AS c
    LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND {not_of_extension("pg_class", "c.oid")}"""

# Before PostgreSQL 15, a generated column itself depends on the columns that it is computed from.
_GENERATED_FROM = """ARRAY(
            SELECT g.refobjsubid::smallint FROM pg_depend AS g
            WHERE g.classid = 'pg_class'::regclass AND g.objid = c.oid AND g.objsubid = a.attnum
              AND g.refclassid = 'pg_class'::regclass AND g.refobjid = c.oid)"""

# What defaults and generated columns depend on, except for the column itself.
DEFAULTS = f"""
    SELECT identity, parents
    FROM (
        SELECT quote_ident(c.relname) || '.' || quote_ident(a.attname) AS identity,
               {dependencies("pg_attrdef", "d.oid", but="u.refobjid = d.adrelid AND u.refobjsubid = d.adnum")}
               || CASE WHEN a.attgenerated <> '' THEN {column_handles("c", _GENERATED_FROM)} END AS parents
        FROM pg_class AS c
        JOIN pg_attrdef AS d ON d.adrelid = c.oid
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.adnum
        WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'f')
        OFFSET 0
    ) AS f
    WHERE parents <> '{{}}'"""

# Sequences; that of an identity column is part of the column. The current value is data, not schema.
SEQUENCES = f"""
    SELECT 'sequence' AS kind,
           quote_ident(c.relname) AS identity,
           CASE WHEN o.table_name IS NULL THEN '{{}}' ELSE
                ARRAY['relation:' || o.table_name, 'column:' || o."column"] END AS parents,
           format('CREATE SEQUENCE %%I AS %%s START WITH %%s INCREMENT BY %%s '
                      'MINVALUE %%s MAXVALUE %%s CACHE %%s%%s',
                  c.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                  CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END) AS sql,
           s.seqtypid::regtype::text AS type,
           s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum,
           s.seqcache AS cache, s.seqcycle AS cycle,
           o."column" AS "owned by",
           CASE WHEN o.table_name IS NULL THEN c.relpersistence = 'u' END AS unlogged,
           CASE WHEN o.table_name IS NULL THEN pg_get_userbyid(c.relowner) END AS owner,
           {comment("pg_class", "c.oid")} AS comment,
           {privileges("c.relacl", "s", "c.relowner")}
    FROM pg_class AS c
    JOIN pg_sequence AS s ON s.seqrelid = c.oid
    LEFT JOIN LATERAL (
        SELECT quote_ident(r.relname), quote_ident(r.relname) || '.' || quote_ident(a.attname)
        FROM pg_depend AS d
        JOIN pg_class AS r ON r.oid = d.refobjid
        JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
          AND d.deptype = 'a'
    ) AS o (table_name, "column") ON true
    WHERE c.relnamespace = %(schema)s AND c.relkind = 'S'
      AND {not_of_extension("pg_class", "c.oid", types="'e', 'i'")}"""

# A NOT NULL is part of its column; only from PostgreSQL 18 on, it has a name and a validity of its own.
COLUMNS = f"""
    SELECT 'column' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(a.attname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)]
               || CASE WHEN e.typnamespace = %(schema)s AND e.typtype <> 'c'
                       THEN ARRAY['type:' || quote_ident(e.typname)]
                       WHEN t.typnamespace = %(schema)s THEN ARRAY['type:' || quote_ident(t.typname)]
                       ELSE '{{}}' END
               AS parents,
           CASE WHEN a.attinhcount > 0
                THEN ARRAY(SELECT 'column:' || quote_ident(p.relname) || '.' || quote_ident(a.attname)
                           FROM pg_inherits AS h
                           JOIN pg_class AS p ON p.oid = h.inhparent AND p.relnamespace = %(schema)s
                           JOIN pg_attribute AS u
                                ON u.attrelid = p.oid AND u.attname = a.attname AND NOT u.attisdropped
                           WHERE h.inhrelid = c.oid ORDER BY h.inhseqno) END AS inherited_from,
           format_type(a.atttypid, a.atttypmod) AS type,
           CASE WHEN a.attcollation <> t.typcollation
                THEN a.attcollation::regcollation::text END AS "collation",
           a.attnotnull AS "not null",
           quote_ident(n.conname) || CASE WHEN n.convalidated THEN '' ELSE ' NOT VALID' END
               || CASE WHEN n.connoinherit THEN ' NO INHERIT' ELSE '' END AS "not null constraint",
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS "default",
           CASE a.attgenerated WHEN 's' THEN 'STORED ' WHEN 'v' THEN 'VIRTUAL ' END
               || pg_get_expr(d.adbin, d.adrelid) AS generated,
           CASE a.attidentity WHEN '' THEN NULL ELSE
                (SELECT CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END
                        || format(' (START WITH %%s INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s CACHE %%s%%s)',
                                  s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                                  CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
                 FROM pg_depend AS p JOIN pg_sequence AS s ON s.seqrelid = p.objid
                 WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass
                   AND p.refobjid = c.oid AND p.refobjsubid = a.attnum
                   AND p.deptype = 'i') END AS "identity generation",
           CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
                ELSE 'EXTENDED' END
               || CASE WHEN a.attstorage = t.typstorage THEN ' (default)' ELSE '' END AS storage,
           CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END AS compression,
           COALESCE(NULLIF(a.attstattarget, -1)::text, 'default') AS "statistics target",
           -- pg_attver is no setting: some servers count the versions of a column there
           ARRAY(SELECT option FROM unnest(a.attoptions) AS option
                 WHERE NOT starts_with(option, 'pg_attver=') ORDER BY 1) AS options,
           ARRAY(SELECT unnest(a.attfdwoptions) ORDER BY 1) AS "foreign options",
           m.description AS comment,
           {privileges("a.attacl", "c", "c.relowner")}
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_description AS m
           ON m.classoid = 'pg_class'::regclass AND m.objoid = c.oid AND m.objsubid = a.attnum
    LEFT JOIN pg_constraint AS n
           ON n.conrelid = c.oid AND n.contype = 'n' AND n.conkey = ARRAY[a.attnum]
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND {not_of_extension("pg_class", "c.oid")}
    ORDER BY a.attrelid, a.attnum"""
