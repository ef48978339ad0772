"""Kinds of objects that a schema of an application hardly ever has."""

from __future__ import annotations

from guvnor.schema.queries.fragments import comment, not_of_extension


def _plain(kind: str, catalog: str, identity: str, namespace: str, owner: str | None, content: str) -> str:
    """Return the query of a kind of object whose one attribute ``content`` holds all that is compared."""
    return f"""
    SELECT '{kind}' AS kind, {identity} AS identity, '{{}}'::text[] AS parents, {content} AS content,
           {f"pg_get_userbyid(o.{owner})" if owner else "NULL::name"} AS owner,
               {comment(catalog, "o.oid")} AS comment
    FROM {catalog} AS o
    WHERE o.{namespace} = %(schema)s AND {not_of_extension(catalog, "o.oid")}"""


# Each object is compared as a whole.
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
