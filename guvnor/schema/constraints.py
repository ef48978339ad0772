"""What the rows of a schema have to satisfy: checks, foreign keys, uniqueness and NOT NULL.

Each comes with the query that shows the rows that break it, printed by the server from its catalogs: it
names tables and columns as the schema has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from guvnor.postgres import Connection, rows, violations
from guvnor.schema.stored_data import Key, Touch

_NAME = "guvnor_its_name"  # where the statement that adds a constraint has its name


@dataclass(frozen=True)
class RowConstraint:
    """A valid constraint, unique index or NOT NULL.

    :ivar kind: ``check``, ``foreign key``, ``unique`` or ``not null``.
    :ivar name: its name, or that of the column that is NOT NULL, as SQL writes it.
    :ivar table: the table, as SQL writes it.
    :ivar keys: the columns that it is about; column 0 of its table where it names none, or the whole row.
    :ivar referred: the table that a foreign key refers to, and the columns there.
    :ivar query: shows the rows that break it.
    :ivar adding: the statement that adds it under another name; see :meth:`add`.
    :ivar dropping: the statement that drops it again.
    """

    kind: str
    name: str
    table: str
    keys: frozenset[Key]
    referred: frozenset[Key]
    query: str
    adding: str
    dropping: str

    def __str__(self) -> str:
        """Name it: ``check positive of table places``."""
        if self.kind == "not null":
            return f"NOT NULL of column {self.table}.{self.name}"
        return f"{self.title} of table {self.table}"

    @property
    def title(self) -> str:
        """Its name without the table: ``check positive``."""
        return f"NOT NULL of column {self.name}" if self.kind == "not null" else f"{self.kind} {self.name}"

    def add(self, name: str) -> str:
        """Return the statement that adds it under another name, which is an identifier without quotes."""
        return self.adding.replace(_NAME, name)

    def drop(self, name: str) -> str:
        """Return the statement that drops what :meth:`add` has added."""
        return self.dropping.replace(_NAME, name)


@dataclass(frozen=True)
class NewConstraint:
    """A constraint that a step demands of rows that were there before its plan.

    :ivar revision: of the step.
    :ivar mended: whether the plan changes such rows first, so that only those can be judged that it leaves.
    :ivar unsure: whether the plan may do so where the shadow does not see it, which has no rows.
    """

    constraint: RowConstraint
    revision: str
    mended: bool
    unsure: bool


@dataclass(frozen=True)
class RowConstraints:
    """The constraints of a schema.

    :ivar found: by what identifies each one.
    :ivar columns: every column that there is, and column 0 of every table.
    """

    found: Mapping[tuple[object, ...], RowConstraint]
    columns: frozenset[Key]


_COLUMNS = """
    SELECT a.attrelid::bigint, a.attnum::integer
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid
    WHERE r.relnamespace = %(schema)s::regnamespace AND r.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT r.oid::bigint, 0
    FROM pg_catalog.pg_class AS r
    WHERE r.relnamespace = %(schema)s::regnamespace AND r.relkind IN ('r', 'p')
"""
# PostgreSQL documentation: pg_constraint, pg_index, pg_attribute. What a partition has from its parent is the
# parent's.
_CONSTRAINTS = f"""
    SELECT 'check', ARRAY['check', c.oid::text], quote_ident(c.conname), quote_ident(r.relname),
           r.oid::bigint, c.conkey::integer[], 0::bigint, '{{}}'::integer[],
           p.query,
           format('ALTER TABLE %%I ADD CONSTRAINT {_NAME} %%s', r.relname, pg_get_constraintdef(c.oid)),
           format('ALTER TABLE %%I DROP CONSTRAINT {_NAME}', r.relname)
    FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_class AS r ON r.oid = c.conrelid
    JOIN ({violations.CHECKS}) AS p ON p.oid = c.oid
    WHERE r.relnamespace = %(schema)s::regnamespace AND c.contype = 'c' AND c.convalidated AND c.conislocal
      AND COALESCE(to_jsonb(c) ->> 'conenforced', 'true') = 'true'
    UNION ALL
    SELECT 'foreign key', ARRAY['foreign key', c.oid::text], quote_ident(c.conname), quote_ident(r.relname),
           r.oid::bigint, c.conkey::integer[], c.confrelid::bigint, c.confkey::integer[],
           p.query,
           format('ALTER TABLE %%I ADD CONSTRAINT {_NAME} %%s', r.relname, pg_get_constraintdef(c.oid)),
           format('ALTER TABLE %%I DROP CONSTRAINT {_NAME}', r.relname)
    FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_class AS r ON r.oid = c.conrelid
    JOIN ({violations.FOREIGN_KEYS}) AS p ON p.oid = c.oid
    WHERE r.relnamespace = %(schema)s::regnamespace AND c.contype = 'f' AND c.convalidated
      AND c.conparentid = 0
      AND COALESCE(to_jsonb(c) ->> 'conenforced', 'true') = 'true'
      AND COALESCE(to_jsonb(c) ->> 'conperiod', 'false') = 'false'
    UNION ALL
    SELECT 'unique', ARRAY['unique', x.oid::text], quote_ident(x.relname), quote_ident(r.relname),
           r.oid::bigint,
           ARRAY(SELECT unnest(i.indkey::integer[])
                 UNION
                 SELECT d.refobjsubid FROM pg_catalog.pg_depend AS d
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid
                   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid),
           0::bigint, '{{}}'::integer[],
           p.query,
           format('CREATE UNIQUE INDEX {_NAME} ON %%I%%s', r.relname,
                  substr(definition.after, strpos(definition.after, ' USING '))),
           'DROP INDEX {_NAME}'
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS r ON r.oid = i.indrelid
    CROSS JOIN LATERAL (
        SELECT substr(pg_get_indexdef(x.oid), length('CREATE UNIQUE INDEX ' || quote_ident(x.relname)) + 1)
    ) AS definition (after)
    JOIN ({violations.UNIQUE_INDEXES}) AS p ON p.oid = x.oid
    WHERE r.relnamespace = %(schema)s::regnamespace AND r.relkind IN ('r', 'p')
      AND i.indisunique AND i.indisvalid AND NOT i.indisexclusion
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = x.oid)
    UNION ALL
    SELECT 'not null', ARRAY['not null', r.oid::text, a.attnum::text], quote_ident(a.attname),
           quote_ident(r.relname), r.oid::bigint, ARRAY[a.attnum::integer], 0::bigint, '{{}}'::integer[],
           format('SELECT * FROM %%I WHERE %%I IS NULL', r.relname, a.attname),
           format('ALTER TABLE %%I ALTER COLUMN %%I SET NOT NULL', r.relname, a.attname),
           format('ALTER TABLE %%I ALTER COLUMN %%I DROP NOT NULL', r.relname, a.attname)
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid
    WHERE r.relnamespace = %(schema)s::regnamespace AND r.relkind IN ('r', 'p') AND a.attnum > 0
      AND a.attnotnull AND NOT a.attisdropped AND NOT (r.relispartition AND a.attinhcount > 0)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS c
                      WHERE c.conrelid = r.oid AND c.contype = 'n' AND c.conkey[1] = a.attnum
                        AND NOT c.convalidated)
    UNION ALL
    SELECT 'check', ARRAY['domain', c.oid::text, r.oid::text, a.attnum::text], quote_ident(c.conname),
           quote_ident(r.relname), r.oid::bigint, ARRAY[a.attnum::integer], 0::bigint, '{{}}'::integer[],
           format('SELECT * FROM (SELECT %%I AS value FROM %%I) AS d WHERE NOT (%%s)', a.attname, r.relname,
                  pg_get_expr(c.conbin, 0)),
           format('ALTER DOMAIN %%s ADD CONSTRAINT {_NAME} %%s', t.oid::regtype, pg_get_constraintdef(c.oid)),
           format('ALTER DOMAIN %%s DROP CONSTRAINT {_NAME}', t.oid::regtype)
    FROM pg_catalog.pg_constraint AS c
    JOIN pg_catalog.pg_type AS t ON t.oid = c.contypid
    JOIN pg_catalog.pg_attribute AS a ON a.atttypid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid AND r.relkind IN ('r', 'p')
    WHERE r.relnamespace = %(schema)s::regnamespace AND c.contype = 'c' AND c.convalidated
      AND NOT r.relispartition
    UNION ALL
    SELECT 'not null', ARRAY['domain', t.oid::text, r.oid::text, a.attnum::text], quote_ident(a.attname),
           quote_ident(r.relname), r.oid::bigint, ARRAY[a.attnum::integer], 0::bigint, '{{}}'::integer[],
           format('SELECT * FROM %%I WHERE %%I IS NULL', r.relname, a.attname),
           format('ALTER DOMAIN %%s SET NOT NULL', t.oid::regtype),
           format('ALTER DOMAIN %%s DROP NOT NULL', t.oid::regtype)
    FROM pg_catalog.pg_type AS t
    JOIN pg_catalog.pg_attribute AS a ON a.atttypid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid AND r.relkind IN ('r', 'p')
    WHERE r.relnamespace = %(schema)s::regnamespace AND t.typnotnull AND NOT r.relispartition
"""


def read(connection: Connection, schema: str) -> RowConstraints:
    """Read the constraints of a schema, which comes first in the search path."""
    found = {}
    for kind, identity, name, table, oid, numbers, other, theirs, query, adding, dropping in rows(
        connection, _CONSTRAINTS, {"schema": schema}
    ):
        # CHECK (false) has no conkey, a whole-row reference has column 0 there.
        keys = frozenset((oid, number) for number in numbers or () if number > 0) or frozenset({(oid, 0)})
        referred = frozenset((other, number) for number in theirs)
        found[tuple(identity)] = RowConstraint(kind, name, table, keys, referred, query, adding, dropping)
    return RowConstraints(found, frozenset(rows(connection, _COLUMNS, {"schema": schema})))


def new(
    start: RowConstraints,
    before: RowConstraints,
    after: RowConstraints,
    revision: str,
    seen: Iterable[Touch],
    *,
    unsure: bool,
) -> Iterator[NewConstraint]:
    """Find what a step demands of rows that were there before its plan.

    A column that the plan adds has no such rows, nor has a table that it makes.

    :param start: the constraints before the plan.
    :param before: those before the step.
    :param after: those after it.
    :param seen: what the plan has done to data until then.
    :param unsure: whether it may have done more.
    """
    touches = list(seen)
    said = {(item.keys, item.query) for item in before.found.values()}
    for identity, item in after.found.items():
        if identity in before.found or (item.keys, item.query) in said:
            continue
        if item.keys <= start.columns and item.referred <= start.columns:
            mended = any(_mends(touch, item) for touch in touches)
            yield NewConstraint(item, revision, mended, unsure)


def _mends(touch: Touch, item: RowConstraint) -> bool:
    """Tell whether a change of data can turn rows that break a constraint into rows that satisfy it."""
    oid, number = touch.key
    if oid in {table for table, _ in item.referred} and touch.how in ("insert", "update", "unseen"):
        return True
    if oid not in {table for table, _ in item.keys}:
        return False
    return touch.how in ("delete", "truncate", "unseen") or (
        number > 0 and not item.keys.isdisjoint({touch.key, (oid, 0)})
    )
