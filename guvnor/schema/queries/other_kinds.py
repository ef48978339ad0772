"""Kinds of object that an application's schema hardly ever has, and what belongs to the whole database."""

from __future__ import annotations

from guvnor.schema.queries import comment, granted, not_of_extension


def _not_elsewhere(*types: str) -> str:
    """Return the condition that none of some types was created in another schema."""
    return f"""NOT EXISTS (SELECT FROM pg_type AS y
               WHERE y.oid IN ({", ".join(types)}) AND y.oid >= 16384 AND y.typnamespace <> %(schema)s
                 AND {not_of_extension("pg_type", "y.oid")})"""


# Since PostgreSQL 15 a publication names columns and rows of a table, or a whole schema.
_PUBLISHED_PART = """|| COALESCE(' (' || (
                  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
                  WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)) || ')', '')
              || COALESCE(' WHERE ' || pg_get_expr(r.prqual, c.oid, true), '')"""
_PUBLISHED_SCHEMA = """OR EXISTS (SELECT FROM pg_publication_namespace AS s
                          WHERE s.pnpubid = o.oid AND s.pnnspid = %(schema)s)"""


def database_wide(version: int) -> str:
    """Return the query of what acts on the schema's tables or is used by them, but is not in a schema.

    Of a shadow, only what came with it counts. Casts and transforms depend on a type of the schema.

    :param version: as ``server_version_num``, such as 150018.
    """
    return f"""
    SELECT 'extension' AS kind, quote_ident(o.extname) AS identity, '{{}}'::text[] AS parents,
           'CREATE EXTENSION IF NOT EXISTS ' || quote_ident(o.extname) AS sql,
           CASE WHEN o.extnamespace = %(schema)s THEN 'in schema public'
                ELSE 'in schema ' || o.extnamespace::regnamespace END AS content,
           NULL::name AS owner, NULL AS comment, NULL::text[] AS granted, NULL::text[] AS revoked
    FROM pg_extension AS o WHERE o.extname <> 'plpgsql'
    UNION ALL
    SELECT 'default privileges',
           format('%%s of %%I%%s', CASE o.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                  WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' ELSE 'schemas' END,
                  pg_get_userbyid(o.defaclrole),
                  CASE WHEN o.defaclnamespace = 0 THEN '' ELSE ' in public' END),
           '{{}}', NULL, NULL, NULL, NULL,
           ARRAY({granted("o.defaclacl", "o.defaclrole")} EXCEPT {granted("b.builtin", "o.defaclrole")}),
           ARRAY({granted("b.builtin", "o.defaclrole")} EXCEPT {granted("o.defaclacl", "o.defaclrole")})
    FROM pg_default_acl AS o
    CROSS JOIN LATERAL (  -- those in a schema come on top of the built-in ones
        SELECT CASE WHEN o.defaclnamespace = 0 THEN acldefault(
            CASE o.defaclobjtype WHEN 'S' THEN 's' ELSE o.defaclobjtype END, o.defaclrole) END
    ) AS b (builtin)
    WHERE o.defaclnamespace IN (0, %(schema)s) AND o.defaclobjtype <> 'L'
    UNION ALL
    SELECT 'event trigger', quote_ident(o.evtname), '{{}}', NULL,
           concat_ws(' ', 'ON', o.evtevent, o.evttags::text, 'EXECUTE FUNCTION', o.evtfoid::regprocedure,
                     CASE o.evtenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R'
                          THEN 'on replicas only' ELSE 'always' END),
           pg_get_userbyid(o.evtowner), {comment("pg_event_trigger", "o.oid")}, NULL, NULL
    FROM pg_event_trigger AS o WHERE {not_of_extension("pg_event_trigger", "o.oid")}
    UNION ALL
    SELECT 'publication', quote_ident(o.pubname), '{{}}', NULL,
           concat_ws(' ', CASE WHEN o.puballtables THEN 'ALL TABLES' ELSE 'TABLES ' || t.names END,
                     'insert ' || o.pubinsert, 'update ' || o.pubupdate, 'delete ' || o.pubdelete,
                     'truncate ' || o.pubtruncate, 'via root ' || o.pubviaroot, p.more),
           pg_get_userbyid(o.pubowner), {comment("pg_publication", "o.oid")}, NULL, NULL
    FROM pg_publication AS o
    CROSS JOIN LATERAL (
        SELECT string_agg(quote_ident(c.relname) {_PUBLISHED_PART if version >= 150000 else ""},
                          ', ' ORDER BY c.relname)
        FROM pg_publication_rel AS r JOIN pg_class AS c ON c.oid = r.prrelid AND c.relnamespace = %(schema)s
        WHERE r.prpubid = o.oid
    ) AS t (names)
    CROSS JOIN LATERAL (SELECT 'generated columns ' || (to_jsonb(o) ->> 'pubgencols')) AS p (more)
    WHERE o.puballtables OR t.names IS NOT NULL {_PUBLISHED_SCHEMA if version >= 150000 else ""}
    UNION ALL
    SELECT 'subscription', quote_ident(o.subname), '{{}}', NULL,
           (SELECT 'TABLES ' || string_agg(quote_ident(c.relname), ', ' ORDER BY c.relname)
            FROM pg_subscription_rel AS r JOIN pg_class AS c ON c.oid = r.srrelid WHERE r.srsubid = o.oid),
           NULL, NULL, NULL, NULL
    FROM pg_subscription AS o
    WHERE o.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'cast', format('(%%s AS %%s)', o.castsource::regtype, o.casttarget::regtype), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.castfunc, 0)::regprocedure, 'context ' || o.castcontext::text,
                     'method ' || o.castmethod::text), NULL, {comment("pg_cast", "o.oid")}, NULL, NULL
    FROM pg_cast AS o
    WHERE o.oid >= 16384 AND {_not_elsewhere("o.castsource", "o.casttarget")}
      AND {not_of_extension("pg_cast", "o.oid", types="'e', 'i'")}
    UNION ALL
    SELECT 'transform', format('FOR %%s LANGUAGE %%s', format_type(o.trftype, NULL), l.lanname), '{{}}', NULL,
           concat_ws(', ', o.trffromsql, o.trftosql), NULL, NULL, NULL, NULL
    FROM pg_transform AS o JOIN pg_language AS l ON l.oid = o.trflang
    WHERE {_not_elsewhere("o.trftype")} AND {not_of_extension("pg_transform", "o.oid")}
    UNION ALL
    SELECT 'language', quote_ident(o.lanname), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.lanplcallfoid, 0)::regproc, 'trusted ' || o.lanpltrusted), NULL,
           {comment("pg_language", "o.oid")}, NULL, NULL
    FROM pg_language AS o WHERE o.lanispl AND {not_of_extension("pg_language", "o.oid")}
    UNION ALL
    SELECT 'access method', quote_ident(o.amname), '{{}}', NULL, concat_ws(' ', o.amtype, o.amhandler), NULL,
           {comment("pg_am", "o.oid")}, NULL, NULL
    FROM pg_am AS o WHERE o.oid >= 16384 AND {not_of_extension("pg_am", "o.oid")}
    UNION ALL
    SELECT 'foreign data wrapper', quote_ident(o.fdwname), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.fdwhandler, 0)::regproc, NULLIF(o.fdwvalidator, 0)::regproc,
                     o.fdwoptions::text),
           pg_get_userbyid(o.fdwowner), NULL, NULL, NULL
    FROM pg_foreign_data_wrapper AS o WHERE {not_of_extension("pg_foreign_data_wrapper", "o.oid")}
    UNION ALL
    SELECT 'foreign server', quote_ident(o.srvname), '{{}}', NULL,
           concat_ws(', ', o.srvtype, o.srvversion,
                     (SELECT string_agg(split_part(x, '=', 1), ', ') FROM unnest(o.srvoptions) AS x)),
           pg_get_userbyid(o.srvowner), {comment("pg_foreign_server", "o.oid")}, NULL, NULL
    FROM pg_foreign_server AS o WHERE {not_of_extension("pg_foreign_server", "o.oid")}"""


def _plain(kind: str, catalog: str, identity: str, namespace: str, owner: str | None, content: str) -> str:
    """Return the query of a kind of object whose one attribute ``content`` holds all that is compared."""
    return f"""
    SELECT '{kind}' AS kind, {identity} AS identity, '{{}}'::text[] AS parents, {content} AS content,
           {f"pg_get_userbyid(o.{owner})" if owner else "NULL::name"} AS owner,
               {comment(catalog, "o.oid")} AS comment
    FROM {catalog} AS o
    WHERE o.{namespace} = %(schema)s AND {not_of_extension(catalog, "o.oid")}"""


# Kinds that are rare; each object is compared as a whole.
RARE = " UNION ALL ".join(
    (
        _plain(
            "collation", "pg_collation", "quote_ident(o.collname)", "collnamespace", "collowner",
            "(to_jsonb(o) - 'oid' - 'collnamespace' - 'collowner' - 'collversion')::text",
        ),
        _plain(
            "conversion", "pg_conversion", "quote_ident(o.conname)", "connamespace", "conowner",
            "concat_ws(', ', pg_encoding_to_char(o.conforencoding), pg_encoding_to_char(o.contoencoding), "
            "o.conproc, o.condefault)",
        ),
        _plain(
            "operator", "pg_operator",
            "o.oprname || '(' || concat_ws(', ', format_type(NULLIF(o.oprleft, 0), NULL), "
            "format_type(o.oprright, NULL)) || ')'",
            "oprnamespace", "oprowner",
            "concat_ws(', ', o.oprcode, format_type(o.oprresult, NULL), 'merges ' || o.oprcanmerge, "
            "'hashes ' || o.oprcanhash, 'commutator ' || NULLIF(o.oprcom, 0)::regoperator, "
            "'negator ' || NULLIF(o.oprnegate, 0)::regoperator, o.oprrest, o.oprjoin)",
        ),
        _plain(
            "operator class", "pg_opclass",
            "quote_ident(o.opcname) || ' USING ' || (SELECT amname FROM pg_am WHERE oid = o.opcmethod)",
            "opcnamespace", "opcowner",
            "concat_ws(', ', format_type(o.opcintype, NULL), 'default ' || o.opcdefault, "
            "'family ' || (SELECT opfname FROM pg_opfamily WHERE oid = o.opcfamily), "
            "'storage ' || format_type(NULLIF(o.opckeytype, 0), NULL))",
        ),
        _plain(
            "operator family", "pg_opfamily",
            "quote_ident(o.opfname) || ' USING ' || (SELECT amname FROM pg_am WHERE oid = o.opfmethod)",
            "opfnamespace", "opfowner",
            "concat_ws('; ', "
            "(SELECT string_agg(concat_ws(' ', p.amopstrategy, p.amopopr::regoperator, p.amoppurpose), ', ' "
            "ORDER BY p.amopstrategy, p.amopopr::regoperator::text) "
            "FROM pg_amop AS p WHERE p.amopfamily = o.oid), "
            "(SELECT string_agg(concat_ws(' ', p.amprocnum, p.amproc::regprocedure), ', ' "
            "ORDER BY p.amprocnum, p.amproc::regprocedure::text) "
            "FROM pg_amproc AS p WHERE p.amprocfamily = o.oid))",
        ),
        _plain(
            "text search configuration", "pg_ts_config", "quote_ident(o.cfgname)", "cfgnamespace", "cfgowner",
            "concat_ws('; ', (SELECT prsname FROM pg_ts_parser WHERE oid = o.cfgparser), "
            "(SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapseqno, m.mapdict::regdictionary), ', ' "
            "ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map AS m WHERE m.mapcfg = o.oid))",
        ),
        _plain(
            "text search dictionary", "pg_ts_dict", "quote_ident(o.dictname)", "dictnamespace", "dictowner",
            "concat_ws('; ', (SELECT tmplname FROM pg_ts_template WHERE oid = o.dicttemplate), "
            "o.dictinitoption)",
        ),
        _plain(
            "text search parser", "pg_ts_parser", "quote_ident(o.prsname)", "prsnamespace", None,
            "concat_ws(', ', o.prsstart, o.prstoken, o.prsend, o.prsheadline, o.prslextype)",
        ),
        _plain(
            "text search template", "pg_ts_template", "quote_ident(o.tmplname)", "tmplnamespace", None,
            "concat_ws(', ', o.tmplinit, o.tmpllexize)",
        ),
    )
)  # fmt: skip

# Security labels of objects in the schema (SECURITY LABEL).
LABELS = """
    SELECT 'security label' AS kind, l.provider || ' on ' || l.objtype || ' '
               || regexp_replace(l.objname, '^' || n.nspname || '\\.', '') AS identity,
           '{}'::text[] AS parents, l.label
    FROM pg_seclabels AS l JOIN pg_namespace AS n ON n.oid = l.objnamespace
    WHERE l.objnamespace = %(schema)s"""
