"""The SQL that changes or deletes rows and keeps them; see :mod:`guvnor.online.kept_statement`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guvnor.online import kept_statement, kept_tree
from guvnor.online.kept_names import kept_name
from guvnor.online.kept_statement import Kept
from guvnor.postgres.quoting import constant


@dataclass(frozen=True)
class KeptChange:
    """What ``op.change_rows`` or ``op.delete_rows`` does.

    :ivar table: without quotes.
    :ivar set: an expression for each column, without quotes, that it changes; None where it deletes rows.
    """

    table: str
    set: Mapping[str, str] | None
    where: str
    revision: str

    @property
    def kept(self) -> str:
        """The name of the table beside."""
        return kept_name(self.table, self.revision)

    @property
    def operation(self) -> str:
        """The operation in words, in one line."""
        return f"{'delete' if self.set is None else 'change'} rows of {self.table}"

    @property
    def doing(self) -> str:
        """What happens to the rows, as progress says it."""
        return "deleting" if self.set is None else "changing"

    @property
    def _verb(self) -> str:
        return "deleted" if self.set is None else "changed"

    @property
    def _digest(self) -> str:
        return kept_statement.digest(self.table, self.set, self.where)

    def make(self) -> Kept:
        """Return the statement that makes the table beside, or checks the one that is there."""
        called = "op.delete_rows" if self.set is None else "op.change_rows"
        summary = f"{called}: makes table {self.kept}, where rows are kept ({self._digest})"
        text = _MAKE.format(
            facts=self.statements(*_MEMBER),
            tree=kept_tree.query(self.table, self.revision),
            before=constant(f" as they were before revision {self.revision} {self._verb} them"),
            digest=constant(f" ({self._digest})"),
            revision=self.revision.replace("'", "''"),
        )
        return kept_statement.statement(self.table, summary, text, makes=True)

    def whole(self) -> Kept:
        """Return the statement that keeps and changes all rows at once."""
        if self.set is None:
            said = f"op.delete_rows: DELETE FROM {self.table}"
        else:
            assigned = ", ".join(f"{column} = {value}" for column, value in self.set.items())
            said = f"op.change_rows: UPDATE {self.table} SET {assigned}"
        summary = f"{said} WHERE {self.where} and keep what was there in {self.kept} ({self._digest})"
        text = _CHANGE.format(
            facts=self.statements(*_MEMBER),
            tree=kept_tree.query(self.table, self.revision),
            stuck=constant(self.stuck),
        )
        return kept_statement.statement(self.table, summary, text, makes=True)

    @property
    def stuck(self) -> str:
        """Why rows remain that match."""
        if self.set is not None:
            return f"A trigger keeps the UPDATE from rows of {self.table} that match {self.where}."
        return (
            f"Rows of {self.table} that match {self.where} could not be deleted: other rows refer to them, "
            "or a trigger keeps them."
        )

    def statements(self, source: str, table: str, kept: str) -> str:
        """Return the query that makes the statements for a table of the tree; see :data:`_KEEPING`.

        :param source: an expression of SQL for the table, as SQL writes it.
        :param table: one for its name.
        :param kept: one for the name of the table beside.
        """
        names, expressions = list(self.set or ()), list((self.set or {}).values())
        return _KEEPING.format(
            source=source,
            table=table,
            root=constant(self.table),
            kept=kept,
            names=_texts(names),
            expressions=_texts(expressions),
            where=constant(f"({self.where}\n)"),
            deletes="true" if self.set is None else "false",
        )


_MEMBER = ("member.source", "member.name", "member.kept")


def _texts(values: list[str]) -> str:
    return f"ARRAY[{', '.join(map(constant, values))}]::text[]"


# The columns are: the name of the table beside; why nothing can be kept; the statement that makes the table;
# the condition of rows still to be done; the statement that keeps and changes; for each foreign key that
# refers to the table, its name and a query that tells whether rows are in the way.
_KEEPING = """
WITH source AS (
    SELECT c.oid, c.relkind, quote_ident({root}) AS alias,
           format('%I.%I', n.nspname, {kept}::text) AS kept,
           concat(CASE WHEN c.relkind <> 'p' THEN 'ONLY ' END,
                  format('%I.%I', n.nspname, c.relname)) AS target
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass({source})
), written AS (
    SELECT name, expression FROM unnest({names}, {expressions}) AS w (name, expression)
), key AS (  -- tells the rows apart, and stays as it is
    SELECT (i.indkey::smallint[])[0:i.indnkeyatts - 1] AS numbers
    FROM pg_catalog.pg_index AS i JOIN source ON source.oid = i.indrelid
    WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (i.indisprimary OR i.indimmediate)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                      WHERE a.attrelid = i.indrelid
                        AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1])
                        AND (NOT a.attnotnull OR a.attname IN (SELECT name FROM written)))
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1
), col AS (
    SELECT a.attnum, quote_ident(a.attname) AS name, concat(s.alias, '.', quote_ident(a.attname)) AS own,
           array_position(key.numbers, a.attnum) AS in_key, w.expression,
           CASE WHEN w.name IS NOT NULL
                THEN row_number() OVER (PARTITION BY w.name IS NULL ORDER BY a.attnum) END AS number,
           CASE WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN '::text' ELSE '' END AS as_kept
    FROM source AS s
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN key ON true
    LEFT JOIN written AS w ON w.name = a.attname
    WHERE {deletes} OR w.name IS NOT NULL OR a.attnum = ANY (key.numbers)
), lists AS (
    SELECT string_agg(name, ', ' ORDER BY attnum) AS names,
           string_agg(concat(own, as_kept), ', ' ORDER BY attnum) AS gone,
           string_agg(concat(own, as_kept, ' AS ', name), ', ' ORDER BY attnum) AS made,
           string_agg(concat(own, ' AS guvnor_was_', attnum), ', ' ORDER BY attnum) AS picked,
           string_agg(concat('guvnor_was_', attnum, as_kept), ', ' ORDER BY attnum) AS was,
           string_agg(concat(name, ' = ', expression, E'\\n'), ', ' ORDER BY number)
               FILTER (WHERE number > 0) AS assigned,
           string_agg(concat(own, '::text'), ', ' ORDER BY number) FILTER (WHERE number > 0) AS results,
           string_agg(concat('guvnor_written_', number), ', ' ORDER BY number)
               FILTER (WHERE number > 0) AS writings,
           string_agg(concat('NULL::text AS guvnor_written_', number, ', '), '' ORDER BY number)
               FILTER (WHERE number > 0) AS no_writings,
           string_agg(name, ', ' ORDER BY in_key) FILTER (WHERE in_key > 0) AS key,
           string_agg(concat(own, ' = guvnor_was_', attnum), ' AND ') FILTER (WHERE in_key > 0) AS same,
           string_agg(concat('guvnor_kept.', name, ' = ', own, as_kept), ' AND ')
               FILTER (WHERE in_key > 0) AS is_kept,
           string_agg(concat('guvnor_child.', name), ', ' ORDER BY in_key)
               FILTER (WHERE in_key > 0) AS key_of_child,
           string_agg(own, ', ' ORDER BY in_key) FILTER (WHERE in_key > 0) AS own_key
    FROM col
), child AS (  -- rows that refer to these
    SELECT k.conname, k.conrelid::regclass::text AS table, k.conrelid = s.oid AS itself, k.confupdtype, k.oid,
           (SELECT string_agg(format('guvnor_child.%I = %s.%I', own.attname, s.alias, theirs.attname),
                              ' AND ')
            FROM unnest(k.conkey, k.confkey) AS c (own, theirs)
            JOIN pg_catalog.pg_attribute AS own ON own.attrelid = k.conrelid AND own.attnum = c.own
            JOIN pg_catalog.pg_attribute AS theirs
                ON theirs.attrelid = k.confrelid AND theirs.attnum = c.theirs) AS refers,
           EXISTS (SELECT FROM pg_catalog.pg_attribute AS a JOIN written AS w ON w.name = a.attname
                   WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)) AS is_written
    FROM source AS s
    JOIN pg_catalog.pg_constraint AS k ON k.contype = 'f' AND k.conparentid = 0
        AND (k.confrelid = s.oid OR k.confrelid IN (SELECT relid FROM pg_partition_tree(s.oid)))
), guards AS (
    SELECT string_agg(format(
               ' AND NOT EXISTS (SELECT FROM %s AS guvnor_child WHERE %s%s)', c."table", c.refers,
               CASE WHEN c.itself THEN format(' AND ROW(%s) IS DISTINCT FROM ROW(%s)',
                                              lists.key_of_child, lists.own_key) END), '') AS sql
    FROM child AS c, lists WHERE {deletes}
), pending AS (
    SELECT concat({where}::text, ' AND NOT EXISTS (SELECT FROM ', s.kept, ' AS guvnor_kept WHERE ',
                  l.is_kept, ' AND guvnor_kept.guvnor_left_at = ''infinity'')') AS condition
    FROM source AS s, lists AS l
)
SELECT s.kept, s.target, s.alias,
    CASE WHEN s.oid IS NULL THEN concat('There is no table ', {table}::text, '.')
         WHEN s.relkind NOT IN ('r', 'p') THEN concat({table}::text, ' is no table.')
         WHEN lacking.name IS NOT NULL
             THEN concat('Table ', {table}::text, ' has no column ', lacking.name, '.')
         WHEN l.key IS NULL
             THEN concat('Rows of table ', {table}::text, ' cannot be kept: it has no key that stays as ',
                         'it is. Give it a primary key, or a unique index on columns that are NOT NULL.')
         WHEN harmed."table" IS NOT NULL
             THEN concat('Rows of table ', {table}::text, ' cannot be kept: rows of ', harmed."table",
                         ' refer to what is changed, and constraint ', harmed.conname,
                         ' would make them forget it.')
    END AS problem,
    format('CREATE TABLE %s AS SELECT %s, %s''infinity''::timestamptz AS guvnor_left_at, '
           'NULL::text AS guvnor_left_why FROM %s AS %s WITH NO DATA; '
           'ALTER TABLE %s ADD PRIMARY KEY (%s, guvnor_left_at), '
           'ALTER guvnor_left_at SET DEFAULT ''infinity''',
           s.kept, l.made, l.no_writings, s.target, s.alias, s.kept, l.key) AS make,
    p.condition AS pending,
    CASE WHEN {deletes} THEN concat(
        CASE WHEN guards.sql <> '' THEN concat(  -- from here on, nobody can refer to them any more
            'SELECT FROM ', chr(1), ' AS ', s.alias, ' WHERE ', chr(2), ' AND ', {where}::text,
            ' FOR UPDATE; ') END,
        'WITH guvnor_gone AS (DELETE FROM ', chr(1), ' AS ', s.alias, ' WHERE ', chr(2), ' AND ', p.condition,
        guards.sql, ' RETURNING ', l.gone, '), guvnor_kept AS (INSERT INTO ', s.kept, ' (', l.names,
        ') SELECT * FROM guvnor_gone RETURNING 1) SELECT count(*) FROM guvnor_kept')
    ELSE concat(
        'WITH guvnor_picked AS MATERIALIZED (SELECT ', l.picked, ' FROM ', chr(1), ' AS ', s.alias,
        ' WHERE ', chr(2), ' AND ', p.condition, ' FOR NO KEY UPDATE), guvnor_changed AS (UPDATE ',
        chr(1), ' AS ', s.alias, ' SET ', l.assigned, ' FROM guvnor_picked WHERE ', l.same, ' RETURNING ',
        l.was, ', ', l.results, '), guvnor_kept AS (INSERT INTO ', s.kept, ' (', l.names, ', ', l.writings,
        ') SELECT * FROM guvnor_changed RETURNING 1) SELECT count(*) FROM guvnor_kept')
    END AS change,
    ARRAY(SELECT concat('constraint ', c.conname, ' of table ', c."table") FROM child AS c
          WHERE {deletes} AND NOT c.itself ORDER BY c.oid) AS referring,
    ARRAY(SELECT format('SELECT EXISTS (SELECT FROM %s AS guvnor_child WHERE EXISTS (SELECT FROM %s AS %s '
                        'WHERE %s AND %s))', c."table", s.target, s.alias, {where}::text, c.refers)
          FROM child AS c WHERE {deletes} AND NOT c.itself ORDER BY c.oid) AS in_the_way
FROM (SELECT) AS one
LEFT JOIN source AS s ON true
LEFT JOIN lists AS l ON true
LEFT JOIN guards ON true
LEFT JOIN pending AS p ON true
LEFT JOIN LATERAL (
    SELECT name FROM written
    WHERE name NOT IN (SELECT a.attname FROM pg_catalog.pg_attribute AS a
                       WHERE a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1
) AS lacking ON true
LEFT JOIN LATERAL (
    SELECT c."table", c.conname FROM child AS c WHERE c.is_written AND c.confupdtype IN ('n', 'd') LIMIT 1
) AS harmed ON true
"""

# Nobody may read what is kept who could not read it before: default privileges give nothing, and where the
# source has policies, which may need other columns, only those read who no policy holds back.
_MAKE = """
DECLARE
    member record;
    remark text;
    plan record;
    held boolean;
    protection text;
BEGIN
    FOR member IN {tree} LOOP
        remark := concat('Rows of ', member.name, {before}, {digest});
        SELECT * INTO plan FROM ({facts}) AS facts;
        IF plan.problem IS NOT NULL THEN
            RAISE EXCEPTION USING MESSAGE = plan.problem;
        END IF;
        EXECUTE format('SELECT FROM %s LIMIT 0', plan.target);  -- fails where row security hides rows
        IF to_regclass(plan.kept) IS NULL THEN
            EXECUTE plan.make;
            EXECUTE format('COMMENT ON TABLE %s IS %L', plan.kept, remark);
        ELSIF obj_description(to_regclass(plan.kept), 'pg_class') IS DISTINCT FROM remark THEN
            RAISE EXCEPTION USING MESSAGE = concat(
                'Table ', plan.kept, ' keeps the rows of another change. Revision {revision} can keep those ',
                'of one change of a table: put the other one into a revision of its own. If that was an ',
                'earlier text of the same revision, bring its rows back with that text first, or drop the ',
                'table.');
        END IF;
        SELECT string_agg(sql, '; ' ORDER BY place) INTO protection
        FROM pg_catalog.pg_class AS s, pg_catalog.pg_class AS k, LATERAL (
            SELECT 1 AS place,
                   format('ALTER TABLE %s OWNER TO %I', plan.kept, pg_get_userbyid(s.relowner)) AS sql
            WHERE k.relowner <> s.relowner
            UNION ALL
            SELECT DISTINCT 2, format('REVOKE ALL ON TABLE %s FROM %s', plan.kept,
                       COALESCE(quote_ident(pg_get_userbyid(NULLIF(a.grantee, 0))), 'PUBLIC'))
            FROM aclexplode(k.relacl) AS a WHERE a.grantee NOT IN (k.relowner, s.relowner)
            UNION ALL
            SELECT 3, format('GRANT %s ON TABLE %s TO %s%s', a.privilege_type, plan.kept,
                       COALESCE(quote_ident(pg_get_userbyid(NULLIF(a.grantee, 0))), 'PUBLIC'),
                       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
            FROM aclexplode(s.relacl) AS a WHERE a.grantee <> s.relowner
            UNION ALL
            SELECT 4, format('GRANT %s (%I) ON TABLE %s TO %s%s', a.privilege_type, own.attname, plan.kept,
                       COALESCE(quote_ident(pg_get_userbyid(NULLIF(a.grantee, 0))), 'PUBLIC'),
                       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
            FROM pg_catalog.pg_attribute AS own
            JOIN pg_catalog.pg_attribute AS theirs ON theirs.attrelid = k.oid AND theirs.attname = own.attname
            CROSS JOIN aclexplode(own.attacl) AS a
            WHERE own.attrelid = s.oid AND own.attnum > 0 AND NOT own.attisdropped AND a.grantee <> s.relowner
            UNION ALL
            SELECT 5, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY%s', plan.kept,
                       CASE WHEN s.relforcerowsecurity THEN ', FORCE ROW LEVEL SECURITY' END)
            WHERE s.relrowsecurity AND (NOT k.relrowsecurity OR s.relforcerowsecurity > k.relforcerowsecurity)
        ) AS needed
        WHERE s.oid = to_regclass(member.source) AND k.oid = to_regclass(plan.kept);
        IF protection IS NOT NULL THEN
            EXECUTE protection;
        END IF;
        FOR place IN 1 .. cardinality(plan.in_the_way) LOOP
            EXECUTE plan.in_the_way[place] INTO held;
            IF held THEN
                RAISE EXCEPTION USING MESSAGE = concat(
                    'Rows that would be deleted are referred to, by ', plan.referring[place], '. Those rows ',
                    'would not be kept: delete or change them first, with op.delete_rows or op.change_rows.');
            END IF;
        END LOOP;
    END LOOP;
END
"""

_CHANGE = """
DECLARE
    member record;
    plan record;
    changed bigint;
    remains boolean;
BEGIN
    FOR member IN {tree} LOOP
        SELECT * INTO plan FROM ({facts}) AS facts;
        LOOP
            EXECUTE replace(replace(plan.change, chr(1), plan.target), chr(2), 'true') INTO changed;
            EXECUTE format('SELECT EXISTS (SELECT FROM %s AS %s WHERE %s)',
                           plan.target, plan.alias, plan.pending) INTO remains;
            EXIT WHEN NOT remains;
            IF changed = 0 THEN
                RAISE EXCEPTION USING MESSAGE = {stuck};
            END IF;
        END LOOP;
    END LOOP;
END
"""
