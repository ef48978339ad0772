-- The differences between the roles and those of roles.sql: missing or too much, the role, the difference.
WITH roles (role) AS (
    VALUES (:'owner'), (:'migrator'), (:'application'), (:'read_only')
),
wanted AS (
    SELECT role, kind, privilege
    FROM (VALUES
        (ARRAY[:'owner'], 'database', ARRAY['CREATE']),
        (ARRAY[:'migrator', :'application', :'read_only'], 'database', ARRAY['CONNECT']),
        (ARRAY[:'owner'], 'schema', ARRAY['USAGE', 'CREATE']),
        (ARRAY[:'application', :'read_only'], 'schema', ARRAY['USAGE']),
        (ARRAY[:'application'], 'table', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        (ARRAY[:'application'], 'sequence', ARRAY['USAGE', 'SELECT']),
        (ARRAY[:'read_only'], 'table', ARRAY['SELECT']),
        (ARRAY[:'read_only'], 'sequence', ARRAY['SELECT'])
    ) AS rights (roles, kind, privileges), unnest(roles) AS role, unnest(privileges) AS privilege
),
-- By default, everybody may connect, create temporary tables and use the schema.
usual (kind, privilege) AS (
    VALUES ('database', 'CONNECT'), ('database', 'TEMPORARY'), ('schema', 'USAGE')
),
-- The privileges that this server knows: those that an owner (here the bootstrap superuser) has by default.
known AS (
    SELECT DISTINCT k.kind, a.privilege_type AS privilege
    FROM (VALUES ('database', 'd'), ('schema', 'n'), ('table', 'r'), ('sequence', 's')) AS k (kind, letter),
         aclexplode(acldefault(k.letter::"char", 10)) AS a
),
objects AS (
:objects
),
securables (kind, oid, name) AS (
    SELECT kind, oid, name FROM objects WHERE kind IN ('table', 'sequence')
    UNION ALL
    SELECT 'database', oid, datname FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'schema', oid, nspname FROM pg_namespace WHERE nspname = 'public'
),
-- Each privilege on existing objects, and on those that future revisions will create, except the privileges
-- of superusers, and those of the owner on its own tables and sequences.
rights AS (
    SELECT r.rolname AS role, 'on ' || s.kind || ' ' || s.name AS place, k.kind, k.privilege,
           s.kind = 'table' AND s.name IN ('alembic_version', 'schema_migrations', 'guvnor_migration_history')
               AS bookkeeping,
           CASE s.kind
               WHEN 'database' THEN has_database_privilege(r.oid, s.oid, k.privilege)
               WHEN 'schema' THEN has_schema_privilege(r.oid, s.oid, k.privilege)
               WHEN 'sequence' THEN has_sequence_privilege(r.oid, s.oid, k.privilege)
               ELSE has_table_privilege(r.oid, s.oid, k.privilege)
           END AS held
    FROM securables AS s JOIN known AS k USING (kind) CROSS JOIN pg_roles AS r
    WHERE r.rolname IN (SELECT role FROM roles) AND NOT r.rolsuper
      AND (r.rolname <> :'owner' OR s.kind IN ('database', 'schema'))
    UNION ALL
    SELECT r.rolname, 'on the ' || k.kind || 's of future revisions', k.kind, k.privilege, false,
           EXISTS (
               SELECT FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
               WHERE d.defaclrole = o.oid AND d.defaclnamespace IN (0, 'public'::regnamespace)
                 AND d.defaclobjtype = CASE k.kind WHEN 'table' THEN 'r' ELSE 'S' END::"char"
                 AND a.grantee = r.oid AND a.privilege_type = k.privilege
           )
    FROM known AS k, pg_roles AS o, pg_roles AS r
    WHERE k.kind IN ('table', 'sequence') AND o.rolname = :'owner'
      AND r.rolname IN (:'migrator', :'application', :'read_only')
),
compared AS (
    SELECT rights.*, (role, kind, privilege) IN (SELECT role, kind, privilege FROM wanted)
                     AND (privilege = 'SELECT' OR NOT bookkeeping) AS needed
    FROM rights
)

SELECT 'missing' AS difference, role, 'does not exist' AS what
FROM roles WHERE role NOT IN (SELECT rolname FROM pg_roles)
UNION
SELECT a.difference, rolname, a.what
FROM pg_roles CROSS JOIN LATERAL (VALUES
    ('too much', rolname = :'owner' AND rolcanlogin, 'can log in'),
    ('missing', rolname <> :'owner' AND NOT rolcanlogin, 'cannot log in'),
    ('too much', rolname = :'migrator' AND rolinherit,
     'has the rights of the owner without SET ROLE (INHERIT)'),
    ('too much', rolsuper, 'is a superuser'),
    ('too much', rolcreatedb, 'has CREATEDB'),
    ('too much', rolcreaterole, 'has CREATEROLE'),
    ('too much', rolreplication, 'has REPLICATION'),
    -- Where a table forces row security on its owner, the owner needs it to migrate that table's rows.
    ('too much', rolbypassrls AND (rolname <> :'owner' OR NOT EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND relforcerowsecurity
     )), 'has BYPASSRLS')
) AS a (difference, holds, what)
WHERE rolname IN (SELECT role FROM roles) AND a.holds
UNION
SELECT 'missing', m.role, m.what
FROM (VALUES
    (:'migrator', :'owner',
     CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END,
     'may not act as ' || :'owner'),
    (:'owner', 'pg_read_all_stats', 'USAGE', 'is not a member of pg_read_all_stats')
) AS m (role, of, how, what)
JOIN pg_roles AS member ON member.rolname = m.role
JOIN pg_roles AS granted ON granted.rolname = m.of
WHERE NOT pg_has_role(member.oid, granted.oid, m.how)
UNION
SELECT 'too much', member.rolname, 'is a member of ' || granted.rolname
FROM pg_auth_members AS m
JOIN pg_roles AS member ON member.oid = m.member
JOIN pg_roles AS granted ON granted.oid = m.roleid
WHERE member.rolname IN (SELECT role FROM roles)
  AND (member.rolname, granted.rolname) NOT IN ((:'migrator', :'owner'), (:'owner', 'pg_read_all_stats'))
UNION
SELECT 'missing', :'owner', format('does not own the %s %s, which belongs to %s', kind, name, owner)
FROM objects WHERE NOT of_column AND owner <> :'owner'
UNION
SELECT CASE WHEN needed THEN 'missing' ELSE 'too much' END, role,
       format('%s %s %s', CASE WHEN needed THEN 'lacks' ELSE 'has' END,
              string_agg(privilege, ', ' ORDER BY privilege), place)
FROM compared
WHERE needed <> held AND (needed OR (kind, privilege) NOT IN (SELECT kind, privilege FROM usual))
GROUP BY needed, role, place
ORDER BY difference, role, what
