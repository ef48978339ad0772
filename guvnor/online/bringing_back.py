"""The SQL that brings kept rows back; see :mod:`guvnor.online.kept_statement`."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor.online import kept_statement, kept_tree
from guvnor.online.kept_names import kept_name
from guvnor.online.kept_statement import WAITING, Kept
from guvnor.postgres.quoting import constant


@dataclass(frozen=True)
class KeptReturn:
    """What ``op.bring_back`` does: it undoes what a revision changed or deleted in a table."""

    table: str
    revision: str

    @property
    def kept(self) -> str:
        """The name of the table beside."""
        return kept_name(self.table, self.revision)

    def whole(self) -> Kept:
        """Return the statement that brings all rows back at once."""
        text = _BRING_BACK.format(
            facts=self.statements(*_MEMBER),
            tree=kept_tree.query(self.table, self.revision),
            nothing=constant(self.nothing),
            left=constant(self.left),
            waiting_in_text=WAITING.replace("'", "''"),
        )
        summary = f"op.bring_back: brings rows of {self.table} back from {self.kept}"
        return kept_statement.statement(self.table, summary, text)

    def drop(self) -> Kept:
        """Return the statement that drops the table beside, unless a row is left in it."""
        summary = f"op.bring_back: drops table {self.kept}, unless a row had to stay there"
        tree = kept_tree.query(self.table, self.revision)
        text = _DROP.format(facts=self.statements(*_MEMBER), tree=tree)
        return kept_statement.statement(self.table, summary, text)

    @property
    def nothing(self) -> str:
        """What is said where there is no table beside."""
        return (
            f"Nothing is brought back to {self.table}: the rows that revision {self.revision} kept are gone"
        )

    @property
    def left(self) -> str:
        """What is said of the number of rows that are left, before the query that shows them."""
        return f"rows of {self.table} could not be brought back. They are kept, with the reason"

    def statements(self, source: str, _table: str, kept: str) -> str:
        """Return the query that makes the statements for a table of the tree; see :data:`_RETURNING`.

        :param source: an expression of SQL for the table, as SQL writes it.
        :param kept: one for the name of the table beside.
        """
        return _RETURNING.format(source=source, kept=kept, waiting=constant(WAITING))


_MEMBER = ("member.source", "member.name", "member.kept")

# The columns are: the name of the table beside, NULL where there is none; why nothing can be brought back;
# the statement that brings back; what is said of a row that stays.
_RETURNING = """
WITH source AS (
    SELECT c.oid, c.relnamespace, format('%I.%I', n.nspname, c.relname) AS name,
           CASE WHEN c.relkind <> 'p' THEN 'ONLY ' ELSE '' END AS only
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass({source})
), kept AS (
    SELECT k.oid, format('%s.%I', k.relnamespace::regnamespace, k.relname) AS name,
           i.indkey::smallint[] AS key,
           EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = k.oid AND a.attname = 'guvnor_written_1') AS changed
    FROM pg_catalog.pg_class AS k JOIN source AS s ON s.relnamespace = k.relnamespace
    JOIN pg_catalog.pg_index AS i ON i.indrelid = k.oid AND i.indisprimary
    WHERE k.relname = {kept}
), col AS (
    SELECT a.attnum, quote_ident(a.attname) AS name, a.attnum = ANY (k.key) AS in_key, own.attgenerated,
           own.attnum IS NULL AS is_gone,
           concat('guvnor_source.', quote_ident(a.attname)) AS own,
           -- A cast to a type with a length would cut in silence; an assignment refuses.
           concat('guvnor_picked.', quote_ident(a.attname), CASE WHEN a.atttypid <> own.atttypid
                  THEN concat('::text::', format_type(own.atttypid, -1)) END) AS was,
           CASE WHEN a.atttypid <> own.atttypid THEN '::text' END AS as_kept,
           row_number() OVER (PARTITION BY a.attnum = ANY (k.key) ORDER BY a.attnum) AS number
    FROM kept AS k
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attname !~ '^guvnor_(written_[0-9]+|left_at|left_why)$'
    CROSS JOIN source AS s
    LEFT JOIN pg_catalog.pg_attribute AS own
        ON own.attrelid = s.oid AND own.attname = a.attname AND own.attnum > 0 AND NOT own.attisdropped
), compared AS (
    SELECT col.*, concat('(', own, same, 'guvnor_written_', number, ')') AS holds,
           concat('(', own, same, name, '::text COLLATE "C")') AS is_back
    FROM col, (SELECT '::text COLLATE "C" IS NOT DISTINCT FROM guvnor_picked.' AS same) AS words
), lists AS (
    SELECT string_agg(name, ', ') FILTER (WHERE is_gone) AS gone,
           string_agg(name, ', ' ORDER BY attnum) FILTER (WHERE attgenerated = '') AS names,
           string_agg(was, ', ' ORDER BY attnum) FILTER (WHERE attgenerated = '') AS was,
           string_agg(concat(own, ' = ', was), ' AND ') FILTER (WHERE in_key) AS same,
           string_agg(concat(own, ' AS guvnor_key_', attnum), ', ') FILTER (WHERE in_key) AS key,
           string_agg(concat('guvnor_kept.', name, ' = guvnor_back.guvnor_key_', attnum, as_kept), ' AND ')
               FILTER (WHERE in_key) AS is_kept,
           string_agg(concat(name, ' = CASE WHEN ', holds, ' THEN ', was, ' ELSE ', own, ' END'), ', ')
               FILTER (WHERE NOT in_key) AS assigned,
           string_agg(holds, ' OR ') FILTER (WHERE NOT in_key) AS holds,
           string_agg(is_back, ' AND ') FILTER (WHERE NOT in_key) AS is_back
    FROM compared
)
SELECT k.name AS kept,
    CASE WHEN l.gone IS NOT NULL THEN concat('columns are gone: ', l.gone) END AS problem,
    concat('WITH guvnor_picked AS MATERIALIZED (SELECT ctid AS guvnor_place, * FROM ', k.name, ' WHERE ',
        chr(2), ' AND ', {waiting}::text, '), guvnor_back AS (',
        CASE WHEN k.changed THEN concat(
            'UPDATE ', s.only, s.name, ' AS guvnor_source SET ', l.assigned, ' FROM guvnor_picked WHERE ',
            l.same, ' AND (', l.holds, ' OR ', l.is_back, ') RETURNING guvnor_place, ', l.is_back,
            ' AS guvnor_whole), guvnor_done AS (DELETE FROM ', k.name, ' AS guvnor_kept USING guvnor_back ',
            'WHERE guvnor_kept.ctid = guvnor_place AND guvnor_whole RETURNING 1)')
        ELSE concat(
            'INSERT INTO ', s.name, ' AS guvnor_source (', l.names, ') OVERRIDING SYSTEM VALUE SELECT ',
            l.was, ' FROM guvnor_picked ON CONFLICT DO NOTHING RETURNING ', l.key, '), ',
            'guvnor_done AS (DELETE FROM ', k.name, ' AS guvnor_kept USING guvnor_back WHERE ', l.is_kept,
            ' AND ', {waiting}::text, ' RETURNING 1)')
        END, ' SELECT count(*) FROM guvnor_done') AS change,
    CASE WHEN l.gone IS NOT NULL THEN concat('These columns are gone: ', l.gone)
         WHEN k.changed THEN 'The row is gone, or was written since.'
         ELSE 'Its key or another unique value is taken, or a trigger kept the row out.' END AS usually
FROM (SELECT) AS one
LEFT JOIN source AS s ON true
LEFT JOIN kept AS k ON true
LEFT JOIN lists AS l ON true
"""

_BRING_BACK = """
DECLARE
    member record;
    was_kept boolean := false;
    plan record;
    place tid;
    back bigint;
    one bigint;
BEGIN
    FOR member IN {tree} LOOP
        SELECT * INTO plan FROM ({facts}) AS facts;
        CONTINUE WHEN plan.kept IS NULL;
        was_kept := true;
        back := NULL;
        SET CONSTRAINTS ALL IMMEDIATE;  -- a row that cannot be brought back is found here, not at the commit
        WHILE plan.problem IS NULL AND back IS DISTINCT FROM 0 LOOP
            BEGIN
                EXECUTE replace(plan.change, chr(2), 'true') INTO back;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR with_check_option_violation
                        OR plpgsql_error THEN
                back := 0;  -- row by row, then
                FOR place IN EXECUTE format('SELECT ctid FROM %s WHERE {waiting_in_text}', plan.kept) LOOP
                    BEGIN
                        EXECUTE replace(plan.change, chr(2), format('ctid = %L', place)) INTO one;
                        back := back + one;
                    EXCEPTION WHEN data_exception OR integrity_constraint_violation
                                OR with_check_option_violation OR plpgsql_error THEN
                        EXECUTE format('UPDATE %s SET guvnor_left_why = %L WHERE ctid = %L',
                                       plan.kept, SQLERRM, place);
                    END;
                END LOOP;
            END;
        END LOOP;
        EXECUTE format('UPDATE %s SET guvnor_left_at = now(), '
                       'guvnor_left_why = COALESCE(guvnor_left_why, %L) WHERE {waiting_in_text}',
                       plan.kept, plan.usually);
        EXECUTE format('SELECT count(*) FROM %s', plan.kept) INTO back;
        IF back > 0 THEN
            RAISE WARNING USING MESSAGE = concat(back, ' ', {left}, ': SELECT * FROM ', plan.kept);
        END IF;
    END LOOP;
    IF NOT was_kept THEN
        RAISE WARNING USING MESSAGE = {nothing};
    END IF;
END
"""

_DROP = """
DECLARE
    member record;
    plan record;
    is_empty boolean;
BEGIN
    FOR member IN {tree} LOOP
        SELECT * INTO plan FROM ({facts}) AS facts;
        IF plan.kept IS NOT NULL THEN
            EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', plan.kept) INTO is_empty;
            IF is_empty THEN
                EXECUTE format('DROP TABLE %s', plan.kept);
            END IF;
        END IF;
    END LOOP;
END
"""
