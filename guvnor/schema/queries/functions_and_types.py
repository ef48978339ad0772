"""Functions, procedures, aggregates and types."""

from __future__ import annotations

from guvnor.schema.queries import comment, dependencies, not_of_extension, privileges

# Functions, procedures and aggregates.
FUNCTIONS = f"""
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind,
           quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS identity,
           {dependencies("pg_proc", "p.oid")} AS parents,
           CASE WHEN p.prokind <> 'a' THEN
                overlay(pg_get_functiondef(p.oid) PLACING quote_ident(p.proname)
                        FROM CASE p.prokind WHEN 'p' THEN 29 ELSE 28 END
                        FOR length(p.pronamespace::regnamespace::text || '.' || quote_ident(p.proname)))
                END AS sql,
           pg_get_function_arguments(p.oid) AS arguments,
           pg_get_function_result(p.oid) AS result,
           (SELECT lanname FROM pg_language WHERE oid = p.prolang) AS language,
           p.prosrc AS body,
           pg_get_function_sqlbody(p.oid) AS "sql body",
           p.probin AS library,
           CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE'
                ELSE 'VOLATILE' END AS volatility,
           CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END AS parallel,
           p.prokind = 'w' AS "window",
           p.proisstrict AS strict,
           p.prosecdef AS "security definer",
           p.proleakproof AS leakproof,
           p.procost::text AS cost,
           p.prorows::text AS rows,
           NULLIF(p.prosupport, 0)::regproc::text AS "support function",
           p.proconfig AS settings,
           (SELECT concat_ws(', ', g.aggkind, g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn,
                             g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn,
                             g.aggfinalextra, g.aggmfinalextra, g.aggfinalmodify, g.aggmfinalmodify,
                             g.aggsortop::regoperator, g.aggtranstype::regtype, g.aggtransspace,
                             g.aggmtranstype::regtype, g.aggmtransspace, g.agginitval, g.aggminitval)
            FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid) AS aggregation,
           pg_get_userbyid(p.proowner) AS owner,
           {comment("pg_proc", "p.oid")} AS comment,
           {privileges("p.proacl", "f", "p.proowner")}
    FROM pg_proc AS p
    WHERE p.pronamespace = %(schema)s AND {not_of_extension("pg_proc", "p.oid", types="'e', 'i'")}"""

# Types that do not come with a table or another type: enums, domains, composite, range and base types.
TYPES = f"""
    SELECT 'type' AS kind,
           quote_ident(t.typname) AS identity,
           CASE WHEN b.typnamespace = %(schema)s THEN ARRAY['type:' || quote_ident(b.typname)]
                ELSE '{{}}' END AS parents,
           CASE t.typtype WHEN 'e' THEN format('CREATE TYPE %%I AS ENUM (%%s)', t.typname, (
                    SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                    FROM pg_enum WHERE enumtypid = t.oid))
                WHEN 'd' THEN format('CREATE DOMAIN %%I AS %%s', t.typname, d.base_type)
                    || COALESCE(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '')
                    || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                    || COALESCE((SELECT string_agg(format(' CONSTRAINT %%I ', k.conname)
                                 || replace(pg_get_constraintdef(k.oid, true), ' NOT VALID', ''), ''
                                            ORDER BY k.conname)
                                 FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
                WHEN 'c' THEN format('CREATE TYPE %%I AS (%%s)', t.typname, (
                    SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod),
                                      ', ' ORDER BY a.attnum)
                    FROM pg_attribute AS a
                    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
                END AS sql,
           CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite'
                WHEN 'r' THEN 'range' WHEN 'p' THEN 'shell' ELSE 'base' END AS form,
           ARRAY(SELECT enumlabel::text FROM pg_enum
                 WHERE enumtypid = t.oid ORDER BY enumsortorder) AS labels,
           CASE WHEN t.typtype = 'd' THEN d.base_type END AS "base type",
           CASE WHEN t.typtype = 'd' THEN t.typnotnull END AS "not null",
           CASE WHEN t.typtype = 'd' THEN pg_get_expr(t.typdefaultbin, 0) END AS "default",
           CASE WHEN t.typcollation <> COALESCE(b.typcollation, t.typcollation)
                THEN t.typcollation::regcollation::text END AS "collation",
           ARRAY(SELECT quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid, true)
                 FROM pg_constraint AS k
                 WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname) AS constraints,
           ARRAY(SELECT quote_ident(k.conname) || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
                        || COALESCE(' -- ' || m.description, '')
                 FROM pg_constraint AS k LEFT JOIN pg_description AS m
                     ON m.classoid = 'pg_constraint'::regclass AND m.objoid = k.oid
                 WHERE k.contypid = t.oid AND k.contype = 'c'
                   AND (m.description IS NOT NULL OR NOT k.convalidated)
                 ORDER BY k.conname) AS "constraint remarks",
           ARRAY(SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                        || CASE WHEN a.attcollation <>
                                     (SELECT typcollation FROM pg_type WHERE oid = a.atttypid)
                                THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
                        || COALESCE(' -- ' || {comment("pg_class", "a.attrelid", "a.attnum")}, '')
                 FROM pg_attribute AS a
                 WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum) AS attributes,
           (SELECT concat_ws(', ', format_type(r.rngsubtype, NULL), 'multirange ' || r.rngmultitypid::regtype,
                             'operator class ' || (SELECT opcname FROM pg_opclass WHERE oid = r.rngsubopc),
                             'collation ' || (SELECT collname FROM pg_collation WHERE oid = r.rngcollation),
                             'canonical ' || NULLIF(r.rngcanonical, 0)::regproc,
                             'difference ' || NULLIF(r.rngsubdiff, 0)::regproc)
            FROM pg_range AS r WHERE r.rngtypid = t.oid) AS "range of",
           CASE WHEN t.typtype = 'b' THEN concat_ws(', ', t.typinput, t.typoutput, t.typreceive, t.typsend,
                t.typmodin, t.typmodout, t.typanalyze, t.typlen, t.typbyval, t.typalign, t.typstorage,
                t.typcategory, t.typispreferred, t.typdelim, t.typdefault) END AS base,
           pg_get_userbyid(t.typowner) AS owner,
           {comment("pg_type", "t.oid")} AS comment,
           {privileges("t.typacl", "T", "t.typowner")}
    FROM pg_type AS t
    LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
    CROSS JOIN LATERAL (SELECT format_type(t.typbasetype, t.typtypmod)) AS d (base_type)
    WHERE t.typnamespace = %(schema)s AND {not_of_extension("pg_type", "t.oid")}
      AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
      AND t.typtype <> 'm'
      AND NOT EXISTS (SELECT FROM pg_type AS l WHERE l.typarray = t.oid)"""
