"""What belongs to a table: constraints, indexes, triggers, rules, policies and extended statistics."""

from __future__ import annotations

from guvnor.schema.queries import column_handles, comment, dependencies, index_above, not_of_extension

# The table and the columns of a constraint or index, which its query names already.
_CONSTRAINED = "u.refobjid = k.conrelid"
_INDEXED = "u.refobjid = i.indrelid AND (u.refobjsubid = 0 OR u.refobjsubid = ANY (i.indkey))"

# Constraints of tables, with the index that enforces them. Constraint triggers are read as triggers, NOT NULL
# as part of its column. A foreign key is enforced by triggers, which only a superuser can switch off.
CONSTRAINTS = f"""
    SELECT 'constraint' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(k.conname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)]
               || CASE WHEN %(parents)s THEN
                       {column_handles("c", "k.conkey")}
                       || CASE WHEN k.contype = 'f' THEN ARRAY['relation:' || quote_ident(f.relname)] END
                       || CASE WHEN k.contype = 'f' THEN {column_handles("f", "k.confkey")} END
                       || ARRAY(SELECT CASE WHEN u.oid IS NULL THEN 'index:' ELSE 'constraint:' END
                                       || quote_ident(f.relname) || '.' || quote_ident(x.relname)
                                FROM pg_class AS x
                                LEFT JOIN pg_constraint AS u
                                       ON u.conrelid = f.oid AND u.conindid = x.oid
                                       AND u.contype IN ('p', 'u')
                                WHERE k.contype = 'f' AND x.oid = k.conindid)
                       || CASE WHEN k.contype = 'c'
                               THEN {dependencies("pg_constraint", "k.oid", but=_CONSTRAINED)} END
                       END AS parents,
           CASE WHEN x.relispartition THEN {index_above("x")}
                WHEN k.coninhcount > 0 THEN
                     ARRAY(SELECT 'constraint:' || quote_ident(t.relname) || '.' || quote_ident(u.conname)
                           FROM pg_inherits AS h
                           JOIN pg_class AS t ON t.oid = h.inhparent AND t.relnamespace = %(schema)s
                           JOIN pg_constraint AS u ON u.conrelid = t.oid
                                AND (u.oid = k.conparentid
                                     OR (k.contype = 'c' AND u.contype = 'c' AND u.conname = k.conname))
                           WHERE h.inhrelid = c.oid ORDER BY h.inhseqno) END AS inherited_from,
           'ALTER TABLE ' || quote_ident(c.relname) || ' ADD CONSTRAINT ' || quote_ident(k.conname) || ' '
               || b.definition AS sql,
           CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'f' THEN 'foreign key'
                          WHEN 'c' THEN 'check' ELSE 'exclusion' END AS type,
           b.definition,
           k.convalidated AS validated,
           k.condeferrable AS "deferrable",
           k.condeferred AS "initially deferred",
           k.contype = 'c' AND k.connoinherit AS "not inherited",  -- a key says no, unless it came from above
           CASE WHEN k.contype = 'f' THEN
                -- before PostgreSQL 15, the key of a partitioned table may have none
                (SELECT CASE WHEN bool_and(g.tgenabled = 'O') IS NOT FALSE THEN 'enabled'
                             WHEN bool_or(g.tgenabled = 'D') THEN 'disabled' ELSE 'changed' END
                 FROM pg_trigger AS g WHERE g.tgconstraint = k.oid) END AS enforcement,
           i.indisvalid AND i.indisready AS "index valid",
           i.indisclustered AS clustered,
           ARRAY(SELECT unnest(x.reloptions) ORDER BY 1) AS options,
           (SELECT spcname FROM pg_tablespace WHERE oid = x.reltablespace) AS tablespace,
           {comment("pg_constraint", "k.oid")} AS comment,
           {comment("pg_class", "x.oid")} AS "comment on index"
    FROM pg_constraint AS k
    JOIN pg_class AS c ON c.oid = k.conrelid
    LEFT JOIN pg_class AS f ON f.oid = k.confrelid
    LEFT JOIN pg_index AS i ON i.indexrelid = k.conindid AND k.contype <> 'f'
    LEFT JOIN pg_class AS x ON x.oid = i.indexrelid
    CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid, true) OFFSET 0) AS b (definition)
    WHERE c.relnamespace = %(schema)s AND k.contype IN ('p', 'u', 'f', 'c', 'x')
      -- a foreign key has one more constraint for each partition of the table that it refers to
      AND (k.contype <> 'f' OR k.conparentid = 0
           OR EXISTS (SELECT FROM pg_constraint AS u
                      WHERE u.oid = k.conparentid AND u.conrelid <> k.conrelid AND u.confrelid = k.confrelid))
      AND {not_of_extension("pg_class", "c.oid")}"""

# Indexes that enforce no constraint. Where the definitions differ, the other attributes say how.
INDEXES = f"""
    SELECT 'index' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(x.relname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)]
               || CASE WHEN %(parents)s THEN
                       {column_handles("c", "i.indkey::smallint[]")}
                       || CASE WHEN i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
                               THEN {dependencies("pg_class", "x.oid", but=_INDEXED)} END
                       END AS parents,
           CASE WHEN x.relispartition THEN {index_above("x")} END AS inherited_from,
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
           ARRAY(SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = x.oid) AS "attached to",
           {comment("pg_class", "x.oid")} AS comment
    FROM pg_index AS i
    JOIN pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_class AS c ON c.oid = i.indrelid
    WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'm')
      AND NOT EXISTS (SELECT FROM pg_constraint AS k
                      WHERE k.conrelid = c.oid AND k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))
      AND {not_of_extension("pg_class", "c.oid")}"""

# The triggers of a partition's copies of foreign keys belong to these; before PostgreSQL 15, those that it
# has from its parent's triggers are internal, too.
TRIGGERS = f"""
    SELECT 'trigger' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(t.tgname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {dependencies("pg_trigger", "t.oid")} AS parents,
           CASE WHEN t.tgparentid <> 0 THEN
                ARRAY(SELECT 'trigger:' || quote_ident(r.relname) || '.' || quote_ident(u.tgname)
                      FROM pg_trigger AS u
                      JOIN pg_class AS r ON r.oid = u.tgrelid AND r.relnamespace = %(schema)s
                      WHERE u.oid = t.tgparentid) END AS inherited_from,
           pg_get_triggerdef(t.oid, true) AS definition,
           CASE t.tgenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas only'
                            ELSE 'always' END AS state,
           t.tgdeferrable AS "deferrable",
           t.tginitdeferred AS "initially deferred",
           {comment("pg_trigger", "t.oid")} AS comment
    FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE c.relnamespace = %(schema)s
      AND (NOT t.tgisinternal
           OR (t.tgparentid <> 0 AND NOT EXISTS (SELECT FROM pg_constraint AS k
                                                 WHERE k.oid = t.tgconstraint AND k.contype = 'f')))
      AND {not_of_extension("pg_class", "c.oid")}"""

RULES = f"""
    SELECT 'rule' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(r.rulename) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {dependencies("pg_rewrite", "r.oid")} AS parents,
           pg_get_ruledef(r.oid, true) AS definition,
           CASE r.ev_enabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas only'
                             ELSE 'always' END AS state,
           {comment("pg_rewrite", "r.oid")} AS comment
    FROM pg_rewrite AS r
    JOIN pg_class AS c ON c.oid = r.ev_class
    WHERE c.relnamespace = %(schema)s AND r.rulename <> '_RETURN'
      AND {not_of_extension("pg_class", "c.oid")}"""

POLICIES = f"""
    SELECT 'policy' AS kind,
           quote_ident(c.relname) || '.' || quote_ident(p.polname) AS identity,
           ARRAY['relation:' || quote_ident(c.relname)] || {dependencies("pg_policy", "p.oid")} AS parents,
           format('CREATE POLICY %%I ON %%I AS %%s FOR %%s TO %%s', p.polname, c.relname,
                  b.permissive, b.command, array_to_string(b.roles, ', '))
               || COALESCE(' USING (' || b.using || ')', '')
               || COALESCE(' WITH CHECK (' || b.checked || ')', '') AS sql,
           b.command,
           b.permissive AS mode,
           b.roles,
           b.using AS "using",
           b.checked AS "with check",
           {comment("pg_policy", "p.oid")} AS comment
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
               {column_handles("c", "s.stxkeys::smallint[]")} AS parents,
           format('CREATE STATISTICS %%I (%%s) ON %%s FROM %%I', s.stxname, b.kinds,
                  pg_get_statisticsobjdef_columns(s.oid), c.relname) AS sql,
           quote_ident(c.relname) AS "on",
           b.kinds,
           -- the server puts them in the order of the table
           ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute AS a
                 WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys::smallint[])
                 ORDER BY a.attname) || pg_get_statisticsobjdef_expressions(s.oid) AS columns,
           COALESCE(NULLIF(s.stxstattarget, -1)::text, 'default') AS "statistics target",
           pg_get_userbyid(s.stxowner) AS owner,
           {comment("pg_statistic_ext", "s.oid")} AS comment
    FROM pg_statistic_ext AS s
    JOIN pg_class AS c ON c.oid = s.stxrelid
    CROSS JOIN LATERAL (
        SELECT string_agg(CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END,
            ', ' ORDER BY k)
        FROM unnest(s.stxkind) AS k WHERE k <> 'e'
    ) AS b (kinds)
    WHERE s.stxnamespace = %(schema)s AND {not_of_extension("pg_statistic_ext", "s.oid")}"""
