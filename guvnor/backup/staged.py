"""The rows of a backup beside the tables that they came from, and the SQL that puts them back.

The data is first copied to tables of a schema of its own, one for each part of the backup. From there it is
put back range by range. A row is put back and marked as done in the same statement, so after a kill at any
moment the next run goes on with those that wait, and none is put back twice.

Nothing that the application has written since is overwritten. A row that is there again gets the backup's
values only when no transaction but a migration has written it: its ``xmin`` is not newer than that of the
last event in which the history says that the revision was applied or rolled back, which is written in the
revision's own transaction; nor is one that a restore has put back. In a column that was dropped, a value that
is missing, or that ADD COLUMN itself gave to the rows, is nobody's either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from guvnor.backup.script import BackupPart
from guvnor.postgres import Connection, row
from guvnor.postgres.quoting import LONGEST_NAME, constant

SCHEMA = "guvnor_restore"
OWN = f"{SCHEMA}.own"  # the transactions that have put rows back
WAITING = "guvnor_state = 'waiting'"
BACK, EQUAL, GONE, LEFT = "back", "equal", "gone", "left"
WRITTEN_SINCE = "written since, not by a migration"
_LOCK_WAIT = "50ms"  # that writers wait at most, where triggers are kept silent
# The text of a value depends on these; see guvnor.backup.dropped.
SETTINGS = (
    "SET search_path = public; SET row_security = off; SET datestyle = 'ISO'; "
    "SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET xmloption = 'content'"
)

_FACTS = """
WITH target AS (
    SELECT c.oid, c.relkind FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass(%(table)s) AND c.relkind IN ('r', 'p', 'S', 'm')
), tree AS (
    SELECT oid FROM target UNION SELECT t.relid FROM target, pg_partition_tree(target.oid) AS t
)
SELECT
    (SELECT relkind FROM target),
    ARRAY(SELECT name FROM unnest(%(columns)s::text[]) AS name
          WHERE (SELECT relkind FROM target) IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM target JOIN pg_catalog.pg_attribute AS a ON a.attrelid = target.oid
                            WHERE quote_ident(a.attname) = name AND a.attnum > 0 AND NOT a.attisdropped
                              AND a.attgenerated = '')),
    ARRAY(SELECT oid::regclass::text FROM tree ORDER BY oid),
    ARRAY(SELECT concat(t.tgrelid::regclass, chr(1), quote_ident(t.tgname))
          FROM tree JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = tree.oid
          WHERE NOT t.tgisinternal AND t.tgenabled = 'O' AND t.tgtype::integer & %(events)s > 0
          ORDER BY t.tgrelid, t.tgname),
    (SELECT a.attmissingval::text::text[] FROM target
     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = target.oid
     WHERE %(gone)s AND a.atthasmissing AND quote_ident(a.attname) = %(last)s),
    ARRAY(SELECT quote_ident(a.attname) FROM target
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = target.oid
          WHERE a.attidentity = 'a' AND NOT a.attisdropped)
"""
# The newest is the one of the smallest age. The history may be missing: another tool has migrated.
_SINCE = """
SELECT h.xmin::text FROM public.guvnor_migration_history AS h
WHERE h.event = 'succeeded' AND h.revision = ANY(%s) ORDER BY age(h.xmin), h.id DESC LIMIT 1
"""
_INSERT, _UPDATE = 4, 16  # bits of pg_trigger.tgtype


@dataclass(frozen=True)
class Target:
    """Where a part is put back, as the live database has it.

    :ivar kind: of the relation, as pg_class has it; None where it is not there.
    :ivar lacking: columns that it does not have, or that are generated.
    :ivar relations: itself and its partitions.
    :ivar triggers: each table and trigger that would fire, with ``\\1`` between them.
    :ivar missing: what ADD COLUMN has given to the rows, as text; None for nothing.
    :ivar identities: columns that are always generated as identity.
    :ivar since: the transaction of the last migration that may have written the data; None where unknown.
    """

    kind: str | None
    lacking: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    missing: str | None = None
    identities: tuple[str, ...] = ()
    since: str | None = None


def read_target(connection: Connection, part: BackupPart, *, history: bool) -> Target:
    """Read what the live database has of a part's relation.

    :param history: whether the table of the history is there.
    """
    events = _UPDATE | (_INSERT if part.kind == "rows" else 0)
    last = part.columns[-1] if part.columns else ""
    values = {"table": part.table, "columns": list(part.columns), "events": events, "gone": part.gone}
    found = row(connection, _FACTS, {**values, "last": last})
    assert found is not None
    kind, lacking, relations, triggers, missing, identities = found
    since = row(connection, _SINCE, (list(part.revisions),)) if history and part.revisions else None
    return Target(
        kind,
        tuple(lacking),
        tuple(relations),
        tuple(triggers),
        missing[0] if missing else None,
        tuple(identities),
        since[0] if since else None,
    )


@dataclass(frozen=True)
class StagedPart:
    """A part of a backup beside its table.

    :ivar number: of the part in the backup.
    :ivar sha256: the checksum of the backup.
    """

    part: BackupPart
    target: Target
    number: int
    sha256: str

    @cached_property
    def stage(self) -> str:
        """The table beside, as SQL writes it."""
        words = re.sub(r"\W+", "_", self.part.name.partition(".")[2], flags=re.ASCII).strip("_").lower()
        return f"{SCHEMA}.r{self.number}_{self.sha256[:8]}_{words}"[: LONGEST_NAME + len(SCHEMA) + 1]

    @property
    def comment(self) -> str:
        """The comment of the table beside once it holds all rows."""
        return f"All that backup {self.sha256} holds of {self.part.name}"

    @property
    def only(self) -> str:
        """The table as it stands after FROM; rows of tables that inherit are not its own."""
        plain = self.part.kind == "rows" and self.target.kind == "r"
        return f"{'ONLY ' if plain else ''}{self.part.table}"

    @property
    def columns(self) -> str:
        """The columns of the data."""
        return ", ".join(self.part.columns)

    def make(self) -> str:
        """Return the statements that make the table beside, empty."""
        return (
            f"CREATE TABLE {self.stage} AS SELECT {self.columns} FROM {self.part.table} WITH NO DATA; "
            f"ALTER TABLE {self.stage} ADD COLUMN guvnor_state text NOT NULL DEFAULT 'waiting', "
            "ADD COLUMN guvnor_why text"
        )

    def complete(self) -> str:
        """Return the statements that declare the table beside complete, in one transaction.

        Of a table without a primary key, rows that are there already are found once, as whole rows.
        """
        there = f"{self._already_there()}; " if self._keyless else ""
        return f"{there}COMMENT ON TABLE {self.stage} IS {constant(self.comment)}"

    def again(self) -> str:
        """Return the statement that lets rows wait again that an earlier run has left."""
        return (
            f"UPDATE {self.stage} SET guvnor_state = 'waiting', guvnor_why = NULL "
            f"WHERE guvnor_state IN ({constant(GONE)}, {constant(LEFT)})"
        )

    def change(self, in_range: str) -> str:
        """Return the statements that put back the rows of a range, in one transaction.

        They return how many rows wait no more. A trigger that would fire, such as one that stamps the time of
        the last change, is kept silent for this transaction alone, which keeps writers waiting; so it is
        asked for briefly, and is short.
        """
        counted = self._put_back(in_range)
        limit = (
            f"SELECT set_config('lock_timeout', {constant(_LOCK_WAIT)}, true); "
            f"INSERT INTO {OWN} VALUES (pg_current_xact_id()::xid)"
        )
        if not self.target.triggers:
            return f"{limit}; {counted} SELECT count(*) FROM marked"
        silenced = [trigger.partition("\1") for trigger in self.target.triggers]
        off = "; ".join(f"ALTER TABLE ONLY {table} DISABLE TRIGGER {name}" for table, _, name in silenced)
        on = "; ".join(f"ALTER TABLE ONLY {table} ENABLE TRIGGER {name}" for table, _, name in silenced)
        tables = ", ".join(f"ONLY {table}" for table in dict.fromkeys(table for table, _, _ in silenced))
        return (
            f"{limit}; SET CONSTRAINTS ALL IMMEDIATE; LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE; "
            f"{off}; {counted} SELECT set_config('guvnor.restored', count(*)::text, true) FROM marked; "
            f"{on}; SELECT current_setting('guvnor.restored')::bigint"
        )

    def leave(self) -> str:
        """Return the statement that marks what could not be put back.

        It takes the places of single rows and why they were refused, then the reason for all others.
        """
        return (
            f"UPDATE {self.stage} AS s SET guvnor_state = {constant(LEFT)}, guvnor_why = COALESCE("
            "(SELECT why FROM unnest(%s::tid[], %s::text[]) AS r (place, why) WHERE r.place = s.ctid), %s) "
            f"WHERE {WAITING}"
        )

    def compare(self, in_range: str) -> str:
        """Return the query that compares the rows of a range with the table.

        A row of it: ``equal``, ``different`` or ``missing``; the state and the reason; how many rows; the
        keys of some.
        """
        s = "s"
        if self._keyless:
            here = self._line("t")
            return (
                f"WITH there AS (SELECT {here} AS line, count(*) AS rows FROM {self.only} AS t GROUP BY 1), "
                f"staged AS (SELECT s.*, {self._line(s)} AS line, row_number() OVER (PARTITION BY "
                f"{self._line(s)}) AS place FROM {self.stage} AS s) "
                "SELECT CASE WHEN place <= COALESCE(there.rows, 0) THEN 'equal' ELSE 'missing' END, "
                "guvnor_state, guvnor_why, count(*), (array_agg(left(line, 60)))[1:3] "
                "FROM staged LEFT JOIN there USING (line) GROUP BY 1, 2, 3"
            )
        return (
            f"SELECT CASE WHEN t.tableoid IS NULL THEN 'missing' WHEN {self._same(s)} THEN 'equal' "
            "ELSE 'different' END, guvnor_state, guvnor_why, count(*), "
            f"(array_agg(concat_ws(', ', {', '.join(f's.{name}' for name in self.part.key)})))[1:3] "
            f"FROM {self.stage} AS s LEFT JOIN {self.only} AS t ON {self._match(s)} "
            f"WHERE s.{in_range.replace(' AND ', ' AND s.')} GROUP BY 1, 2, 3"
        )

    @property
    def in_ranges(self) -> bool:
        """Whether rows are told apart by a key, so that they can be compared range by range."""
        return not self._keyless

    @property
    def _keyless(self) -> bool:
        return not self.part.key

    def _line(self, alias: str) -> str:
        return f"ROW({', '.join(f'{alias}.{name}' for name in self.part.columns)})::text"

    def _match(self, alias: str) -> str:
        return " AND ".join(f"t.{name} = {alias}.{name}" for name in self.part.key)

    @property
    def _others(self) -> list[str]:
        """The columns beside the key."""
        return [name for name in self.part.columns if name not in self.part.key]

    def _same(self, alias: str) -> str:
        if not self._others:
            return "true"
        ours, theirs = (", ".join(f"{a}.{name}" for name in self._others) for a in ("t", alias))
        return f"ROW({ours})::text = ROW({theirs})::text"

    def _nobodys(self) -> str:
        """Return the condition of a row of the table that nobody but a migration has written."""
        ways = [f"t.xmin IN (SELECT transaction FROM {OWN})"]
        if self.target.since is not None:
            ways.append(f"age(t.xmin) >= age({constant(self.target.since)}::xid)")
        if self.part.gone:
            column = f"t.{self.part.columns[-1]}"
            ways.append(f"{column} IS NULL")
            if self.target.missing is not None:
                ways.append(f"{column}::text = {constant(self.target.missing)}")
        return f"({' OR '.join(ways)})"

    def _already_there(self) -> str:
        """Return the statement that finds rows that are there already, of two equal rows each once."""
        ours, theirs = self._line("p"), self._line("t")
        return (
            f"UPDATE {self.stage} AS s SET guvnor_state = {constant(EQUAL)} FROM ("
            "SELECT place, line, row_number() OVER (PARTITION BY line) AS number "
            f"FROM (SELECT ctid AS place, {ours} AS line FROM {self.stage} AS p) AS own) AS a "
            f"JOIN (SELECT {theirs} AS line, count(*) AS rows FROM {self.only} AS t GROUP BY 1) AS b "
            "USING (line) WHERE s.ctid = a.place AND a.number <= b.rows"
        )

    def _put_back(self, in_range: str) -> str:
        """Return the beginning of the statement: ``marked`` holds the rows that wait no more.

        They are locked first: the statement of a killed run may still be at work on them.
        """
        picked = (
            f"WITH picked AS MATERIALIZED (SELECT ctid AS guvnor_place, * FROM {self.stage} "
            f"WHERE {in_range} AND {WAITING} FOR UPDATE)"
        )
        given = ", ".join(f"p.{name}" for name in self.part.columns)
        insert = f"INSERT INTO {self.part.table} AS t ({self.columns}) OVERRIDING SYSTEM VALUE SELECT {given}"
        mark = f"UPDATE {self.stage} AS s SET guvnor_state"
        if self._keyless:
            return (
                f"{picked}, inserted AS ({insert} FROM picked AS p), "
                f"marked AS ({mark} = {constant(BACK)} FROM picked AS p "
                "WHERE s.ctid = p.guvnor_place RETURNING 1)"
            )
        match, same, nobodys = self._match("p"), self._same("p"), self._nobodys()
        present = (
            f"present AS MATERIALIZED (SELECT p.guvnor_place, {same} AS same, {nobodys} AS nobodys "
            f"FROM picked AS p JOIN {self.only} AS t ON {match})"
        )
        assigned = ", ".join(
            f"{name} = p.{name}" for name in self._others if name not in self.target.identities
        )
        updated = (
            f"UPDATE {self.only} AS t SET {assigned} FROM picked AS p "
            f"WHERE {match} AND NOT {same} AND {nobodys} RETURNING p.guvnor_place"
            if assigned
            else "SELECT guvnor_place FROM picked WHERE false"
        )
        inserted, if_missing = "SELECT guvnor_place FROM picked WHERE false", constant(GONE)
        if self.part.kind == "rows":
            keys = ", ".join(f"t.{name}" for name in self.part.key)
            back = " AND ".join(f"i.{name} = p.{name}" for name in self.part.key)
            inserted = f"SELECT p.guvnor_place FROM picked AS p JOIN inserted AS i ON {back}"
            written = (
                f"inserted AS ({insert} FROM picked AS p WHERE NOT EXISTS (SELECT FROM present AS q "
                f"WHERE q.guvnor_place = p.guvnor_place) ON CONFLICT DO NOTHING RETURNING {keys}), "
            )
            if_missing = "NULL"
        else:
            written = ""
        return (
            f"{picked}, {present}, {written}"
            f"done AS (SELECT guvnor_place FROM ({inserted}) AS i), updated AS ({updated}), "
            "judged AS (SELECT p.guvnor_place, CASE "
            f"WHEN p.guvnor_place IN (SELECT guvnor_place FROM done) THEN {constant(BACK)} "
            f"WHEN p.guvnor_place IN (SELECT guvnor_place FROM updated) THEN {constant(BACK)} "
            f"WHEN q.guvnor_place IS NULL THEN {if_missing} WHEN q.same THEN {constant(EQUAL)} "
            f"WHEN NOT q.nobodys THEN {constant(LEFT)} END AS state "
            "FROM picked AS p LEFT JOIN present AS q USING (guvnor_place)), "
            f"marked AS ({mark} = j.state, guvnor_why = CASE j.state WHEN {constant(LEFT)} "
            f"THEN {constant(WRITTEN_SINCE)} END FROM judged AS j "
            "WHERE s.ctid = j.guvnor_place AND j.state IS NOT NULL RETURNING 1)"
        )
