"""The catalog queries behind a snapshot: one for each kind of object, all of the same shape.

Each row is an object. Its columns are ``kind``, ``identity`` (its name as SQL writes it), ``parents`` (the
handles of what it is dropped with), and optionally ``inherited_from`` (the handles of what a partition or a
child table has it from), ``sql`` (the statement that creates it; without it,
``definition`` is that statement), ``granted`` and ``revoked`` (how its privileges differ from the kind's
default). Every other column is an attribute, under the name that a report uses.

The parameter ``schema`` is the schema's oid. The catalogs are those of PostgreSQL 14 to 18 (documentation,
part "Internals", chapter "System Catalogs"). Objects of extensions are left out. The server prints
expressions, and leaves out the schema of visible names, so the session's ``search_path`` must contain it.
"""

from __future__ import annotations


def granted(acl: str, owner: str) -> str:
    """Return a query of an ACL's entries as text: ``role=PRIVILEGE``."""
    return f"""
            SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' WHEN {owner} THEN '<owner>'
                   ELSE quote_ident(pg_get_userbyid(e.grantee)) END || '=' || e.privilege_type
                   || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
            FROM aclexplode({acl}) AS e"""


def privileges(acl: str, kind: str, owner: str) -> str:
    """Return two columns: what an ACL has beyond the kind's default, and what it lacks of it.

    :param kind: the letter that the function ``acldefault`` takes.
    """
    default = f"acldefault('{kind}', {owner})"
    return f"""
        CASE WHEN {acl} IS NOT NULL THEN ARRAY({granted(acl, owner)} EXCEPT {granted(default, owner)})
            END AS granted,
        CASE WHEN {acl} IS NOT NULL THEN ARRAY({granted(default, owner)} EXCEPT {granted(acl, owner)})
            END AS revoked"""


def comment(catalog: str, oid: str, part: str = "0") -> str:
    """Return a query of an object's comment.

    :param part: the number of the column, for the comment on a column.
    """
    return f"""(SELECT description FROM pg_description
                WHERE classoid = '{catalog}'::regclass AND objoid = {oid} AND objsubid = {part})"""


def not_of_extension(catalog: str, oid: str, types: str = "'e'") -> str:
    """Return the condition that an object belongs to no extension.

    :param types: the dependencies that it must not have (``deptype``); with ``i`` it is part of no object.
    """
    return f"""NOT EXISTS (SELECT FROM pg_depend AS e
               WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid} AND e.deptype IN ({types}))"""


def index_above(index: str) -> str:
    """Return an array of the handle of what a partition's index is attached to: an index or a constraint.

    :param index: the alias of its row of ``pg_class``.
    """
    return f"""ARRAY(
        SELECT CASE WHEN u.oid IS NULL THEN 'index:' ELSE 'constraint:' END || quote_ident(t.relname) || '.'
               || quote_ident(COALESCE(u.conname, p.relname))
        FROM pg_inherits AS h
        JOIN pg_index AS a ON a.indexrelid = h.inhparent
        JOIN pg_class AS p ON p.oid = a.indexrelid
        JOIN pg_class AS t ON t.oid = a.indrelid AND t.relnamespace = %(schema)s
        LEFT JOIN pg_constraint AS u
               ON u.conrelid = t.oid AND u.conindid = p.oid AND u.contype IN ('p', 'u', 'x')
        WHERE h.inhrelid = {index}.oid)"""


def column_handles(relation: str, numbers: str) -> str:
    """Return an array of the handles of some columns of a relation, given the array of their numbers.

    :param relation: the alias of its row of ``pg_class``.
    """
    return f"""ARRAY(
        SELECT 'column:' || quote_ident({relation}.relname) || '.' || quote_ident(p.attname)
        FROM unnest({numbers}) AS n JOIN pg_attribute AS p ON p.attrelid = {relation}.oid AND p.attnum = n
        WHERE n > 0)"""


def dependencies(catalog: str, oid: str, but: str = "false") -> str:
    """Return an array of the handles of what an object depends on (pg_depend), built-in objects left out.

    :param but: the condition of dependencies ``u`` on relations that the query names already; left out, too.
    """
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
                (SELECT CASE WHEN r.relkind <> 'c' THEN 'relation:' || quote_ident(r.relname)
                             ELSE 'type:' || quote_ident(COALESCE(l.typname, t.typname)) END
                 FROM pg_type AS t
                 LEFT JOIN pg_type AS l ON l.typarray = t.oid
                 LEFT JOIN pg_class AS r ON r.oid = COALESCE(l.typrelid, t.typrelid)
                 WHERE t.oid = u.refobjid) END), (
            CASE WHEN u.refclassid = 'pg_class'::regclass AND u.refobjsubid > 0 THEN
                (SELECT 'column:' || quote_ident(r.relname) || '.' || quote_ident(a.attname)
                 FROM pg_class AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum = u.refobjsubid
                 WHERE r.oid = u.refobjid) END), (
            (SELECT 'extension:' || quote_ident(x.extname)
             FROM pg_depend AS m JOIN pg_extension AS x ON x.oid = m.refobjid
             WHERE m.classid = u.refclassid AND m.objid = u.refobjid AND m.deptype = 'e'))) AS v (h)
        WHERE u.classid = '{catalog}'::regclass AND u.objid = {oid} AND u.refobjid >= 16384
          AND NOT (u.refclassid = 'pg_class'::regclass AND {but}) AND h IS NOT NULL)"""
