"""The catalog queries behind a snapshot: one a kind of object, all in the same shape.

Each row is an object: ``kind``, ``identity`` (its name as SQL writes it), ``parents`` (what it goes away
with, as ``kind:identity``), optionally ``sql`` (the statement that makes it; it is ``definition`` where that
column is left out), ``granted`` and ``revoked``
(privileges beside the kind's default); every other column is an attribute, named as a report shall name it.
The parameter ``schema`` is the schema's oid. The catalogs are those of PostgreSQL 14 to 18 (documentation,
part "Internals", chapter "System Catalogs"). Objects of extensions are left out. Expressions are printed by
the server, names unqualified where they are visible, so the session's ``search_path`` must name the schema.
"""

from __future__ import annotations


def _entries(acl: str, owner: str) -> str:
    """Return a query of an ACL's entries as text: ``role=PRIVILEGE``."""
    return f"""
            SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' WHEN {owner} THEN '<owner>'
                   ELSE quote_ident(pg_get_userbyid(e.grantee)) END || '=' || e.privilege_type
                   || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
            FROM aclexplode({acl}) AS e"""


def _privileges(acl: str, kind: str, owner: str) -> str:
    """Return two columns: what an ACL has beyond the kind's default, and what it lacks of it.

    :param kind: the letter that the function ``acldefault`` takes.
    """
    default = f"acldefault('{kind}', {owner})"
    return f"""
        CASE WHEN {acl} IS NOT NULL THEN ARRAY({_entries(acl, owner)} EXCEPT {_entries(default, owner)})
            END AS granted,
        CASE WHEN {acl} IS NOT NULL THEN ARRAY({_entries(default, owner)} EXCEPT {_entries(acl, owner)})
            END AS revoked"""


def _comment(catalog: str, oid: str, part: str = "0") -> str:
    return f"""(SELECT description FROM pg_description
                WHERE classoid = '{catalog}'::regclass AND objoid = {oid} AND objsubid = {part})"""


def _not_of_extension(catalog: str, oid: str) -> str:
    return f"""NOT EXISTS (SELECT FROM pg_depend AS e
               WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid} AND e.deptype = 'e')"""


def _columns(relation: str, numbers: str) -> str:
    """Return an array of the handles of some columns of a relation, given the array of their numbers.

    :param relation: the alias of its row of ``pg_class``.
    """
    return f"""ARRAY(
        SELECT 'column:' || quote_ident({relation}.relname) || '.' || quote_ident(p.attname)
        FROM unnest({numbers}) AS n JOIN pg_attribute AS p ON p.attrelid = {relation}.oid AND p.attnum = n
        WHERE n > 0)"""


def _used(catalog: str, oid: str) -> str:
    """Return an array of the handles of what an object depends on (pg_depend), built-in objects left out."""
    return f"""ARRAY(
        SELECT DISTINCT h FROM pg_depend AS u CROSS JOIN LATERAL (VALUES (
            CASE u.refclassid
            WHEN 'pg_class'::regclass THEN
                (SELECT CASE r.relkind WHEN 'S' THEN 'sequence:' ELSE 'relation:' END
                        || quote_ident(r.relname)
                 FROM pg_class AS r WHERE r.oid = u.refobjid)
            WHEN 'pg_proc'::regclass THEN
                (SELECT 'function:' || quote_ident(f.proname) || '(' ||
                    pg_get_function_identity_arguments(f.oid) || ')'
                 FROM pg_proc AS f WHERE f.oid = u.refobjid)
            WHEN 'pg_type'::regclass THEN
                (SELECT 'type:' || quote_ident(t.typname) FROM pg_type AS t WHERE t.oid = u.refobjid) END), (
            CASE WHEN u.refclassid = 'pg_class'::regclass AND u.refobjsubid > 0 THEN
                (SELECT 'column:' || quote_ident(r.relname) || '.' || quote_ident(a.attname)
                 FROM pg_class AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum = u.refobjsubid
                 WHERE r.oid = u.refobjid) END), (
            (SELECT 'extension:' || quote_ident(x.extname)
             FROM pg_depend AS m JOIN pg_extension AS x ON x.oid = m.refobjid
             WHERE m.classid = u.refclassid AND m.objid = u.refobjid AND m.deptype = 'e'))) AS v (h)
        WHERE u.classid = '{catalog}'::regclass AND u.objid = {oid} AND u.refobjid >= 16384 AND h IS NOT
            NULL)"""


# The schema itself. Every role may use "public" (and create in it, before PostgreSQL 15): that is its
# default.
SCHEMA = f"""
    SELECT 'schema' AS kind, 'public' AS identity, '{{}}'::text[] AS parents,
           NULLIF({_comment("pg_namespace", "n.oid")}, 'standard public schema') AS comment,
           {_privileges("n.nspacl", "n", "n.nspowner")}
    FROM pg_namespace AS n WHERE n.oid = %(schema)s"""

_QUERY_OF_VIEW = "(SELECT oid FROM pg_rewrite WHERE ev_class = c.oid AND rulename = '_RETURN')"

# Tables, foreign tables, views and materialized views. Not compared: names of row types, sizes, whether there
# are indexes or rules (those are objects of their own).
RELATIONS = f"""
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                          ELSE 'table' END AS kind,
           quote_ident(c.relname) AS identity,
           CASE WHEN c.relkind IN ('v', 'm')
                THEN {_used("pg_rewrite", _QUERY_OF_VIEW)}
                ELSE '{{}}' END AS parents,
           CASE c.relkind WHEN 'v' THEN 'CREATE VIEW ' || quote_ident(c.relname)
                               || CASE WHEN c.reloptions IS NULL THEN ''
                                       ELSE ' WITH (' || array_to_string(c.reloptions, ', ') || ')' END
                               || ' AS ' || pg_get_viewdef(c.oid, true)
                          WHEN 'm' THEN 'CREATE MATERIALIZED VIEW ' || quote_ident(c.relname)
                               || CASE WHEN c.reloptions IS NULL THEN ''
                                       ELSE ' WITH (' || array_to_string(c.reloptions, ', ') || ')' END
                               || ' AS '
                               || rtrim(pg_get_viewdef(c.oid, true), ';')
                               || CASE WHEN c.relispopulated THEN '' ELSE ' WITH NO DATA' END END AS sql,
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid, true) END AS definition,
           CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' WHEN 't' THEN 'TEMPORARY' ELSE 'permanent' END AS
               persistence,
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
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN
                     ('v', 'm')
                 ORDER BY a.attnum) AS "column order",
           {_comment("pg_class", "c.oid")} AS comment,
           {_privileges("c.relacl", "r", "c.relowner")}
    FROM pg_class AS c
    LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND {_not_of_extension("pg_class", "c.oid")}"""

# Columns. A NOT NULL is part of its column; PostgreSQL 18 gives it a name and a validity of its own.
COLUMNS = """
    SELECT 'column' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(a.attname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)]
               || CASE WHEN t.typnamespace = %(schema)s THEN ARRAY['type:' || quote_ident(t.typname)]
                       WHEN e.typnamespace = %(schema)s AND e.typtype <> 'c'
                       THEN ARRAY['type:' || quote_ident(e.typname)] ELSE '{{}}' END AS parents,
           format_type(a.atttypid, a.atttypmod) AS type,
           CASE WHEN a.attcollation <> t.typcollation
                THEN (SELECT quote_ident(collname) FROM pg_collation WHERE oid = a.attcollation) END AS
                "collation",
           a.attnotnull AS "not null",
           {not_null} AS "not null constraint",
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS "default",
           CASE a.attgenerated WHEN '' THEN NULL ELSE
                CASE a.attgenerated WHEN 's' THEN 'STORED ' ELSE 'VIRTUAL ' END
                    || pg_get_expr(d.adbin, d.adrelid)
                END AS generated,
           CASE a.attidentity WHEN '' THEN NULL ELSE
                (SELECT CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END
                        || format(' (START WITH %%s INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s CACHE %%s%%s)',
                                  s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                                  CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
                 FROM pg_depend AS p JOIN pg_sequence AS s ON s.seqrelid = p.objid
                 WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass
                   AND p.refobjid = c.oid AND p.refobjsubid = a.attnum AND p.deptype = 'i') END AS
                   "identity generation",
           CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
                ELSE 'EXTENDED' END AS storage,
           CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END AS compression,
           COALESCE(NULLIF(a.attstattarget, -1)::text, 'default') AS "statistics target",
           -- pg_attver is no setting: some servers count the versions of a column there
           ARRAY(SELECT option FROM unnest(a.attoptions) AS option
                 WHERE NOT starts_with(option, 'pg_attver=') ORDER BY 1) AS options,
           ARRAY(SELECT unnest(a.attfdwoptions) ORDER BY 1) AS "foreign options",
           m.description AS comment,
           {privileges}
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_description AS m
           ON m.classoid = 'pg_class'::regclass AND m.objoid = c.oid AND m.objsubid = a.attnum
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND {not_of_extension}"""

_NOT_NULL_NAMED = """
           (SELECT quote_ident(n.conname) || CASE WHEN n.convalidated THEN '' ELSE ' NOT VALID' END
                   || CASE WHEN n.connoinherit THEN ' NO INHERIT' ELSE '' END
            FROM pg_constraint AS n WHERE n.conrelid = c.oid AND n.contype = 'n' AND n.conkey =
                ARRAY[a.attnum])"""

# What defaults and generated columns depend on, for those that use more than built-in functions.
DEFAULTS = f"""
    SELECT quote_ident(c.relname) || '.' || quote_ident(a.attname) AS identity,
        {_used("pg_attrdef", "d.oid")} AS parents
    FROM pg_class AS c
    JOIN pg_attrdef AS d ON d.adrelid = c.oid
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.adnum
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'f')"""

# Constraints of tables, with the index that carries them. Those of triggers are found as triggers, NOT NULL
# as part of its column. A foreign key is enforced by triggers that only a superuser can switch off.
CONSTRAINTS = f"""
    SELECT 'constraint' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(k.conname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {_columns("c", "k.conkey")}
               || CASE WHEN k.contype = 'f' THEN
                       ARRAY['relation:' || quote_ident(f.relname)] || {_columns("f", "k.confkey")}
                       || ARRAY(SELECT CASE WHEN u.oid IS NULL THEN 'index:' ELSE 'constraint:' END
                                       || quote_ident(f.relname) || '.' || quote_ident(x.relname)
                                FROM pg_class AS x
                                LEFT JOIN pg_constraint AS u
                                       ON u.conrelid = f.oid AND u.conindid = x.oid
                                       AND u.contype IN ('p', 'u')
                                WHERE x.oid = k.conindid)
                       WHEN k.contype = 'c' THEN {_used("pg_constraint", "k.oid")} ELSE '{{}}' END AS parents,
           'ALTER TABLE ' || quote_ident(c.relname) || ' ADD CONSTRAINT ' || quote_ident(k.conname) || ' '
               || b.definition AS sql,
           CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'f' THEN 'foreign key'
                          WHEN 'c' THEN 'check' ELSE 'exclusion' END AS type,
           b.definition,
           k.convalidated AS validated,
           k.condeferrable AS "deferrable",
           k.condeferred AS "initially deferred",
           k.connoinherit AS "not inherited",
           CASE WHEN k.contype = 'f' THEN
                COALESCE((SELECT CASE WHEN bool_and(g.tgenabled = 'O') THEN 'enabled'
                                      WHEN bool_or(g.tgenabled = 'D') THEN 'disabled' ELSE 'changed' END
                          FROM pg_trigger AS g WHERE g.tgconstraint = k.oid), 'enabled') END AS enforcement,
           CASE WHEN k.contype IN ('p', 'u', 'x') THEN i.indisvalid AND i.indisready END AS "index valid",
           CASE WHEN k.contype IN ('p', 'u', 'x') THEN i.indisclustered END AS clustered,
           CASE WHEN k.contype IN ('p', 'u', 'x') THEN ARRAY(SELECT unnest(x.reloptions) ORDER BY 1) END AS
               options,
           CASE WHEN k.contype IN ('p', 'u', 'x') THEN
                (SELECT spcname FROM pg_tablespace WHERE oid = x.reltablespace) END AS tablespace,
           {_comment("pg_constraint", "k.oid")} AS comment,
           CASE WHEN k.contype IN ('p', 'u', 'x') THEN {_comment("pg_class", "k.conindid")} END AS
               "comment on index"
    FROM pg_constraint AS k
    JOIN pg_class AS c ON c.oid = k.conrelid
    LEFT JOIN pg_class AS f ON f.oid = k.confrelid
    LEFT JOIN pg_index AS i ON i.indexrelid = k.conindid
    LEFT JOIN pg_class AS x ON x.oid = k.conindid
    CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid, true) OFFSET 0) AS b (definition)
    WHERE c.relnamespace = %(schema)s AND k.contype IN ('p', 'u', 'f', 'c', 'x')
      -- what a child has of its parent is the parent's
      AND (k.conislocal OR k.contype <> 'c') AND (k.conparentid = 0 OR k.contype <> 'f')
      AND {_not_of_extension("pg_class", "c.oid")}"""

# Indexes that carry no constraint. Where the definition differs, the other attributes say in what.
INDEXES = f"""
    SELECT 'index' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(x.relname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {_columns("c", "i.indkey::smallint[]")}
               || CASE WHEN i.indexprs IS NULL AND i.indpred IS NULL THEN '{{}}'
                       ELSE {_used("pg_class", "x.oid")} END AS parents,
           pg_get_indexdef(x.oid, 0, true) AS definition,
           (SELECT amname FROM pg_am WHERE oid = x.relam) AS "access method",
           i.indisunique AS "unique",
           pg_get_expr(i.indpred, i.indrelid, true) AS predicate,
           i.indnkeyatts AS "key columns",
           i.indnatts - i.indnkeyatts AS "included columns",
           i.indisvalid AND i.indisready AND i.indislive AS valid,
           i.indisclustered AS clustered,
           (SELECT spcname FROM pg_tablespace WHERE oid = x.reltablespace) AS tablespace,
           ARRAY(SELECT pg_get_indexdef(x.oid, a.attnum, true) || ' ' || a.attstattarget
                 FROM pg_attribute AS a
                 WHERE i.indexprs IS NOT NULL AND a.attrelid = x.oid AND a.attstattarget >= 0
                 ORDER BY a.attnum) AS "statistics targets",
           ARRAY(SELECT p.inhparent::regclass::text FROM pg_inherits AS p WHERE p.inhrelid = x.oid) AS
               "attached to",
           {_comment("pg_class", "x.oid")} AS comment
    FROM pg_index AS i
    JOIN pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_class AS c ON c.oid = i.indrelid
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'm')
      AND NOT EXISTS (SELECT FROM pg_constraint AS k
                      WHERE k.conrelid = c.oid AND k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))
      AND {_not_of_extension("pg_class", "c.oid")}"""

TRIGGERS = f"""
    SELECT 'trigger' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(t.tgname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {_used("pg_trigger", "t.oid")} AS parents,
           pg_get_triggerdef(t.oid, true) AS definition,
           CASE t.tgenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas only'
                            ELSE 'always' END AS state,
           t.tgdeferrable AS "deferrable",
           t.tginitdeferred AS "initially deferred",
           {_comment("pg_trigger", "t.oid")} AS comment
    FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE c.relnamespace = %(schema)s AND NOT t.tgisinternal
      AND {_not_of_extension("pg_class", "c.oid")}"""

RULES = f"""
    SELECT 'rule' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(r.rulename) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {_used("pg_rewrite", "r.oid")} AS parents,
           pg_get_ruledef(r.oid, true) AS definition,
           CASE r.ev_enabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas only'
                             ELSE 'always' END AS state,
           {_comment("pg_rewrite", "r.oid")} AS comment
    FROM pg_rewrite AS r
    JOIN pg_class AS c ON c.oid = r.ev_class
    WHERE c.relnamespace = %(schema)s AND r.rulename <> '_RETURN'
      AND {_not_of_extension("pg_class", "c.oid")}"""

POLICIES = f"""
    SELECT 'policy' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(p.polname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {_used("pg_policy", "p.oid")} AS parents,
           format('CREATE POLICY %%I ON %%I AS %%s FOR %%s TO %%s', p.polname, c.relname, b.permissive,
               b.command,
                  array_to_string(b.roles, ', '))
               || COALESCE(' USING (' || b.using || ')', '') || COALESCE(' WITH CHECK (' || b.checked ||
               ')', '') AS sql,
           b.command,
           b.permissive AS mode,
           b.roles,
           b.using AS "using",
           b.checked AS "with check",
           {_comment("pg_policy", "p.oid")} AS comment
    FROM pg_policy AS p
    JOIN pg_class AS c ON c.oid = p.polrelid
    CROSS JOIN LATERAL (
        SELECT CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                             WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
               CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
               ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END
                     FROM unnest(p.polroles) AS r ORDER BY 1),
               pg_get_expr(p.polqual, p.polrelid, true),
               pg_get_expr(p.polwithcheck, p.polrelid, true)
    ) AS b (command, permissive, roles, "using", checked)
    WHERE c.relnamespace = %(schema)s"""

# Extended statistics (CREATE STATISTICS).
STATISTICS = f"""
    SELECT 'statistics' AS kind,
           quote_ident(s.stxname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] ||
               {_columns("c", "s.stxkeys::smallint[]")} AS parents,
           format('CREATE STATISTICS %%I (%%s) ON %%s FROM %%I', s.stxname, b.kinds,
                  pg_get_statisticsobjdef_columns(s.oid), c.relname) AS sql,
           quote_ident(c.relname) AS "on",
           b.kinds,
           pg_get_statisticsobjdef_columns(s.oid) AS columns,
           COALESCE(NULLIF(s.stxstattarget, -1)::text, 'default') AS "statistics target",
           pg_get_userbyid(s.stxowner) AS owner,
           {_comment("pg_statistic_ext", "s.oid")} AS comment
    FROM pg_statistic_ext AS s
    JOIN pg_class AS c ON c.oid = s.stxrelid
    CROSS JOIN LATERAL (
        SELECT string_agg(CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END,
            ', ' ORDER BY k)
        FROM unnest(s.stxkind) AS k WHERE k <> 'e'
    ) AS b (kinds)
    WHERE s.stxnamespace = %(schema)s AND {_not_of_extension("pg_statistic_ext", "s.oid")}"""

# Functions, procedures and aggregates.
FUNCTIONS = f"""
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind,
           quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS identity,
           {_used("pg_proc", "p.oid")} AS parents,
           CASE WHEN p.prokind <> 'a' THEN
                regexp_replace(pg_get_functiondef(p.oid), '^(CREATE OR REPLACE \\w+ )[^(]*', '\\1' ||
                    quote_ident(p.proname))
                END AS sql,
           pg_get_function_arguments(p.oid) AS arguments,
           pg_get_function_result(p.oid) AS result,
           (SELECT lanname FROM pg_language WHERE oid = p.prolang) AS language,
           p.prosrc AS body,
           pg_get_function_sqlbody(p.oid) AS "sql body",
           p.probin AS library,
           CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END AS
               volatility,
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
               g.aggdeserialfn,
                             g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn, g.aggfinalextra,
                             g.aggmfinalextra,
                             g.aggfinalmodify, g.aggmfinalmodify, g.aggsortop::regoperator,
                             g.aggtranstype::regtype, g.aggtransspace, g.aggmtranstype::regtype,
                             g.aggmtransspace,
                             g.agginitval, g.aggminitval)
            FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid) AS aggregation,
           pg_get_userbyid(p.proowner) AS owner,
           {_comment("pg_proc", "p.oid")} AS comment,
           {_privileges("p.proacl", "f", "p.proowner")}
    FROM pg_proc AS p
    WHERE p.pronamespace = %(schema)s AND {_not_of_extension("pg_proc", "p.oid")}
      AND NOT EXISTS (SELECT FROM pg_depend AS i
                      WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid AND i.deptype = 'i')"""

# Types that are not made with a table or another type: enums, domains, composite, range and base types.
TYPES = f"""
    SELECT 'type' AS kind,
           quote_ident(t.typname) AS identity,
           CASE WHEN b.typnamespace = %(schema)s THEN ARRAY['type:' || quote_ident(b.typname)] ELSE '{{}}'
               END AS parents,
           CASE t.typtype WHEN 'e' THEN format('CREATE TYPE %%I AS ENUM (%%s)', t.typname, (
                    SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                    FROM pg_enum WHERE enumtypid = t.oid))
                WHEN 'd' THEN format('CREATE DOMAIN %%I AS %%s', t.typname, format_type(t.typbasetype,
                t.typtypmod))
                    || COALESCE(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '')
                    || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                    || COALESCE((SELECT string_agg(format(' CONSTRAINT %%I ', k.conname)
                                 || replace(pg_get_constraintdef(k.oid, true), ' NOT VALID', ''), '' ORDER
                                 BY k.conname)
                                 FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
                WHEN 'c' THEN format('CREATE TYPE %%I AS (%%s)', t.typname, (
                    SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid,
                        a.atttypmod), ', '
                                      ORDER BY a.attnum)
                    FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT
                        a.attisdropped))
                END AS sql,
           CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite' WHEN 'r'
               THEN 'range'
                          WHEN 'm' THEN 'multirange' WHEN 'p' THEN 'shell' ELSE 'base' END AS form,
           ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder) AS
               labels,
           CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END AS "base type",
           CASE WHEN t.typtype = 'd' THEN t.typnotnull END AS "not null",
           CASE WHEN t.typtype = 'd' THEN pg_get_expr(t.typdefaultbin, 0) END AS "default",
           CASE WHEN t.typcollation <> COALESCE(b.typcollation, t.typcollation)
                THEN (SELECT quote_ident(collname) FROM pg_collation WHERE oid = t.typcollation) END AS
                "collation",
           ARRAY(SELECT quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid, true)
                 FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname)
                     AS constraints,
           ARRAY(SELECT quote_ident(k.conname) || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
                        || COALESCE(' -- ' || m.description, '')
                 FROM pg_constraint AS k LEFT JOIN pg_description AS m
                     ON m.classoid = 'pg_constraint'::regclass AND m.objoid = k.oid
                 WHERE k.contypid = t.oid AND k.contype = 'c'
                   AND (m.description IS NOT NULL OR NOT k.convalidated)
                 ORDER BY k.conname) AS "constraint remarks",
           ARRAY(SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                        || CASE WHEN a.attcollation <> (SELECT typcollation FROM pg_type WHERE oid =
                        a.atttypid)
                                THEN ' COLLATE ' || (SELECT quote_ident(collname) FROM pg_collation
                                                     WHERE oid = a.attcollation) ELSE '' END
                        || COALESCE(' -- ' || {_comment("pg_class", "a.attrelid", "a.attnum")}, '')
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
               t.typmodin,
                t.typmodout, t.typanalyze, t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory,
                t.typispreferred, t.typdelim, t.typdefault) END AS base,
           pg_get_userbyid(t.typowner) AS owner,
           {_comment("pg_type", "t.oid")} AS comment,
           {_privileges("t.typacl", "T", "t.typowner")}
    FROM pg_type AS t
    LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
    WHERE t.typnamespace = %(schema)s AND {_not_of_extension("pg_type", "t.oid")}
      AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c'))
      AND t.typtype <> 'm'
      AND NOT EXISTS (SELECT FROM pg_type AS l WHERE l.typarray = t.oid)"""

# Sequences; one that carries an identity is part of its column. The current value is data, not schema.
SEQUENCES = f"""
    SELECT 'sequence' AS kind,
           quote_ident(c.relname) AS identity,
           CASE WHEN o.table_name IS NULL THEN '{{}}' ELSE
                ARRAY['relation:' || o.table_name, 'column:' || o.table_name || '.' || o.column_name] END
                    AS parents,
           format('CREATE SEQUENCE %%I AS %%s START WITH %%s INCREMENT BY %%s '
                      'MINVALUE %%s MAXVALUE %%s CACHE %%s%%s',
                  c.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                  CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END) AS sql,
           s.seqtypid::regtype::text AS type,
           s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum,
           s.seqcache AS cache, s.seqcycle AS cycle,
           o.table_name || '.' || o.column_name AS "owned by",
           CASE WHEN o.table_name IS NULL THEN c.relpersistence = 'u' END AS unlogged,
           CASE WHEN o.table_name IS NULL THEN pg_get_userbyid(c.relowner) END AS owner,
           {_comment("pg_class", "c.oid")} AS comment,
           {_privileges("c.relacl", "s", "c.relowner")}
    FROM pg_class AS c
    JOIN pg_sequence AS s ON s.seqrelid = c.oid
    LEFT JOIN LATERAL (
        SELECT quote_ident(r.relname), quote_ident(a.attname)
        FROM pg_depend AS d
        JOIN pg_class AS r ON r.oid = d.refobjid
        JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
          AND d.deptype = 'a'
    ) AS o (table_name, column_name) ON true
    WHERE c.relnamespace = %(schema)s AND c.relkind = 'S' AND {_not_of_extension("pg_class", "c.oid")}
      AND NOT EXISTS (SELECT FROM pg_depend AS i
                      WHERE i.classid = 'pg_class'::regclass AND i.objid = c.oid AND i.deptype = 'i')"""


def _plain(kind: str, catalog: str, identity: str, namespace: str, owner: str | None, content: str) -> str:
    """Return the query of a rare kind of object: one attribute ``content`` holds all of it."""
    return f"""
    SELECT '{kind}' AS kind, {identity} AS identity, '{{}}'::text[] AS parents, {content} AS content,
           {f"pg_get_userbyid(o.{owner})" if owner else "NULL::name"} AS owner,
               {_comment(catalog, "o.oid")} AS comment
    FROM {catalog} AS o
    WHERE o.{namespace} = %(schema)s AND {_not_of_extension(catalog, "o.oid")}"""


# Kinds that this project's schema hardly ever has: found, named and compared as a whole.
RARE = " UNION ALL ".join(
    (
        _plain(
            "collation", "pg_collation", "quote_ident(o.collname)", "collnamespace", "collowner",
            "(to_jsonb(o) - 'oid' - 'collnamespace' - 'collowner' - 'collversion')::text",
        ),
        _plain(
            "conversion", "pg_conversion", "quote_ident(o.conname)", "connamespace", "conowner",
            "concat_ws(', ', pg_encoding_to_char(o.conforencoding), pg_encoding_to_char(o.contoencoding), "
            "o.conproc, "
            "o.condefault)",
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
            "concat_ws('; ', (SELECT string_agg(concat_ws(' ', p.amopstrategy, p.amopopr::regoperator, "
            "p.amoppurpose), "
            "', ' ORDER BY p.amopstrategy, p.amopopr::regoperator::text) FROM pg_amop AS p WHERE "
            "p.amopfamily = o.oid), "
            "(SELECT string_agg(concat_ws(' ', p.amprocnum, p.amproc::regprocedure), ', ' "
            "ORDER BY p.amprocnum, p.amproc::regprocedure::text) FROM pg_amproc AS p WHERE p.amprocfamily = "
            "o.oid))",
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

# Security labels of objects in the schema (SECURITY LABEL), which a label provider gives meaning to.
LABELS = """
    SELECT 'security label' AS kind, l.provider || ' on ' || l.objtype || ' '
               || regexp_replace(l.objname, '^' || n.nspname || '\\.', '') AS identity,
           '{}'::text[] AS parents, l.label
    FROM pg_seclabels AS l JOIN pg_namespace AS n ON n.oid = l.objnamespace
    WHERE l.objnamespace = %(schema)s"""


def _not_elsewhere(*types: str) -> str:
    """Return a condition: none of some types is one that another schema has made for itself."""
    return f"""NOT EXISTS (SELECT FROM pg_type AS y
               WHERE y.oid IN ({", ".join(types)}) AND y.oid >= 16384 AND y.typnamespace <> %(schema)s
                 AND {_not_of_extension("pg_type", "y.oid")})"""


# What belongs to the database as a whole but acts on our tables or is used by them. Of a shadow only those
# count that came with it. Casts and transforms depend on a type of the schema.
GLOBAL = f"""
    SELECT 'extension' AS kind, quote_ident(o.extname) AS identity, '{{}}'::text[] AS parents,
           'CREATE EXTENSION IF NOT EXISTS ' || quote_ident(o.extname) AS sql,
           CASE WHEN o.extnamespace = %(schema)s THEN 'in schema public'
                ELSE 'in schema ' || o.extnamespace::regnamespace END AS content,
           NULL::name AS owner, NULL AS comment, NULL::text[] AS granted, NULL::text[] AS revoked
    FROM pg_extension AS o WHERE o.extname <> 'plpgsql'
    UNION ALL
    SELECT 'default privileges',
           format('%%s of %%I%%s', CASE o.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                  WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' ELSE
                  'large objects' END,
                  pg_get_userbyid(o.defaclrole), CASE WHEN o.defaclnamespace = 0 THEN '' ELSE ' in public'
                      END),
           '{{}}', NULL, NULL, NULL, NULL,
           CASE WHEN o.defaclnamespace = 0 THEN ARRAY({_entries("o.defaclacl", "o.defaclrole")} EXCEPT
                                                      {_entries("b.builtin", "o.defaclrole")})
                ELSE ARRAY({_entries("o.defaclacl", "o.defaclrole")}) END,
           CASE WHEN o.defaclnamespace = 0 THEN ARRAY({_entries("b.builtin", "o.defaclrole")} EXCEPT
                                                      {_entries("o.defaclacl", "o.defaclrole")}) END
    FROM pg_default_acl AS o
    CROSS JOIN LATERAL (
        SELECT acldefault(CASE o.defaclobjtype WHEN 'S' THEN 's' ELSE o.defaclobjtype END, o.defaclrole)
    ) AS b (builtin)
    WHERE o.defaclnamespace IN (0, %(schema)s) AND o.defaclobjtype <> 'L'
    UNION ALL
    SELECT 'event trigger', quote_ident(o.evtname), '{{}}', NULL,
           concat_ws(' ', 'ON', o.evtevent, o.evttags::text, 'EXECUTE FUNCTION', o.evtfoid::regprocedure,
                     CASE o.evtenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R'
                          THEN 'on replicas only' ELSE 'always' END),
           pg_get_userbyid(o.evtowner), {_comment("pg_event_trigger", "o.oid")}, NULL, NULL
    FROM pg_event_trigger AS o WHERE {_not_of_extension("pg_event_trigger", "o.oid")}
    UNION ALL
    SELECT 'publication', quote_ident(o.pubname), '{{}}', NULL,
           concat_ws(' ', CASE WHEN o.puballtables THEN 'ALL TABLES' ELSE 'TABLES ' || t.names END,
                     'insert ' || o.pubinsert, 'update ' || o.pubupdate, 'delete ' || o.pubdelete,
                     'truncate ' || o.pubtruncate, 'via root ' || o.pubviaroot, p.more),
           pg_get_userbyid(o.pubowner), {_comment("pg_publication", "o.oid")}, NULL, NULL
    FROM pg_publication AS o
    CROSS JOIN LATERAL (
        SELECT string_agg(quote_ident(c.relname) {{published_part}}, ', ' ORDER BY c.relname)
        FROM pg_publication_rel AS r JOIN pg_class AS c ON c.oid = r.prrelid AND c.relnamespace = %(schema)s
        WHERE r.prpubid = o.oid
    ) AS t (names)
    CROSS JOIN LATERAL (SELECT 'generated columns ' || (to_jsonb(o) ->> 'pubgencols')) AS p (more)
    WHERE o.puballtables OR t.names IS NOT NULL {{schema_publications}}
    UNION ALL
    SELECT 'subscription', quote_ident(o.subname), '{{}}', NULL,
           (SELECT 'TABLES ' || string_agg(quote_ident(c.relname), ', ' ORDER BY c.relname)
            FROM pg_subscription_rel AS r JOIN pg_class AS c ON c.oid = r.srrelid WHERE r.srsubid = o.oid),
           NULL, NULL, NULL, NULL
    FROM pg_subscription AS o
    WHERE o.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'cast', format('(%%s AS %%s)', format_type(o.castsource, NULL), format_type(o.casttarget,
        NULL)), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.castfunc, 0)::regprocedure, 'context ' || o.castcontext::text,
               'method ' || o.castmethod::text),
           NULL, {_comment("pg_cast", "o.oid")}, NULL, NULL
    FROM pg_cast AS o
    WHERE o.oid >= 16384 AND {_not_elsewhere("o.castsource", "o.casttarget")}
      AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_cast'::regclass AND e.objid = o.oid
                                                   AND e.deptype IN ('e', 'i'))
    UNION ALL
    SELECT 'transform', format('FOR %%s LANGUAGE %%s', format_type(o.trftype, NULL), l.lanname), '{{}}', NULL,
           concat_ws(', ', o.trffromsql, o.trftosql), NULL, NULL, NULL, NULL
    FROM pg_transform AS o JOIN pg_language AS l ON l.oid = o.trflang
    WHERE {_not_elsewhere("o.trftype")} AND {_not_of_extension("pg_transform", "o.oid")}
    UNION ALL
    SELECT 'language', quote_ident(o.lanname), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.lanplcallfoid, 0)::regproc, 'trusted ' || o.lanpltrusted), NULL,
           {_comment("pg_language", "o.oid")}, NULL, NULL
    FROM pg_language AS o WHERE o.lanispl AND {_not_of_extension("pg_language", "o.oid")}
    UNION ALL
    SELECT 'access method', quote_ident(o.amname), '{{}}', NULL, concat_ws(' ', o.amtype, o.amhandler), NULL,
           {_comment("pg_am", "o.oid")}, NULL, NULL
    FROM pg_am AS o WHERE o.oid >= 16384 AND {_not_of_extension("pg_am", "o.oid")}
    UNION ALL
    SELECT 'foreign data wrapper', quote_ident(o.fdwname), '{{}}', NULL,
           concat_ws(', ', NULLIF(o.fdwhandler, 0)::regproc, NULLIF(o.fdwvalidator, 0)::regproc,
               o.fdwoptions::text),
           pg_get_userbyid(o.fdwowner), NULL, NULL, NULL
    FROM pg_foreign_data_wrapper AS o WHERE {_not_of_extension("pg_foreign_data_wrapper", "o.oid")}
    UNION ALL
    SELECT 'foreign server', quote_ident(o.srvname), '{{}}', NULL,
           concat_ws(', ', o.srvtype, o.srvversion,
                     (SELECT string_agg(split_part(x, '=', 1), ', ') FROM unnest(o.srvoptions) AS x)),
           pg_get_userbyid(o.srvowner), {_comment("pg_foreign_server", "o.oid")}, NULL, NULL
    FROM pg_foreign_server AS o WHERE {_not_of_extension("pg_foreign_server", "o.oid")}"""


def all_for(version: int) -> tuple[str, ...]:
    """Return the queries for a server.

    :param version: as ``server_version_num``, such as 150018.
    """
    columns = COLUMNS.format(
        not_null=_NOT_NULL_NAMED if version >= 180000 else "NULL",
        privileges=_privileges("a.attacl", "c", "c.relowner"),
        not_of_extension=_not_of_extension("pg_class", "c.oid"),
    )
    named = """OR EXISTS (SELECT FROM pg_publication_namespace AS s
                          WHERE s.pnpubid = o.oid AND s.pnnspid = %(schema)s)"""
    part = """|| COALESCE(' (' || (
                  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
                  WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)) || ')', '')
              || COALESCE(' WHERE ' || pg_get_expr(r.prqual, c.oid, true), '')"""
    return (
        SCHEMA, RELATIONS, columns, CONSTRAINTS, INDEXES, TRIGGERS, RULES, POLICIES, STATISTICS, FUNCTIONS,
        TYPES, SEQUENCES, RARE, LABELS,
        GLOBAL.replace("{schema_publications}", named if version >= 150000 else "").replace(
            "{published_part}", part if version >= 150000 else ""
        ),
    )  # fmt: skip
