    -- Tables, views, sequences, types and routines of the schema. Members of an extension, row types and
    -- array types belong to the owner of what they are part of; so does a sequence that a column owns.
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, c.oid,
           c.oid::regclass::text AS name, pg_get_userbyid(c.relowner) AS owner,
           c.relkind = 'S' AND c.oid IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass
                                         AND deptype IN ('a', 'i')) AS of_column
    FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND c.oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')
    UNION ALL
    SELECT 'type', t.oid, t.oid::regtype::text, pg_get_userbyid(t.typowner), false
    FROM pg_type AS t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typcategory <> 'A'
      AND (t.typrelid = 0 OR (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c')
      AND t.oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_type'::regclass AND deptype = 'e')
    UNION ALL
    SELECT 'routine', p.oid, p.oid::regprocedure::text, pg_get_userbyid(p.proowner), false
    FROM pg_proc AS p
    WHERE p.pronamespace = 'public'::regnamespace
      AND p.oid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_proc'::regclass AND deptype = 'e')
