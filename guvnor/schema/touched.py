"""What the statements of a plan do to data, as the server itself says it.

Triggers for each statement record which tables it truncates, deletes from, updates or inserts into, wherever
it stands: in a DO block, a function, a CTE, a MERGE, on a view. They fire although the tables are empty. A
column that is named in a trigger (``UPDATE OF``) could not be dropped or given another type, so those
triggers are there only while a statement that has updated a table runs once more; its first run is undone.

What a statement does only when rows exist is seen where there are rows: in the report of a branch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg2

from guvnor.online.kept_names import PREFIX
from guvnor.online.kept_statement import Kept
from guvnor.online.plain_forms import Backfill
from guvnor.postgres import Connection, rows, scalar
from guvnor.postgres.quoting import unquoted
from guvnor.revisions import transaction_control
from guvnor.schema import casts, retyped, stored_data
from guvnor.schema.stored_data import Key, Ledger, Touch

_NAME = "guvnor_touched"  # of the function and of its trigger on each table
_RECORD = "guvnor.touched"  # the setting that it writes to; it goes back with the statement
_HOW: dict[str, stored_data.How] = {
    "TRUNCATE": "truncate", "DELETE": "delete", "UPDATE": "update", "INSERT": "insert"
}  # fmt: skip

_FUNCTION = f"""
    CREATE FUNCTION {{schema}}.{_NAME}() RETURNS trigger LANGUAGE plpgsql AS $guvnor$
    BEGIN
        PERFORM pg_catalog.set_config('{_RECORD}', pg_catalog.concat(
            pg_catalog.current_setting('{_RECORD}', true), TG_OP, ':', TG_RELID, ':', TG_ARGV[0], ' '), true);
        RETURN NULL;
    END
    $guvnor$
"""
_TRIGGERS = f"""
    DO $guvnor$
    DECLARE
        name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY[{{tables}}]::oid[]::regclass[]::text[] LOOP
            EXECUTE 'CREATE OR REPLACE TRIGGER {_NAME} AFTER TRUNCATE OR DELETE OR UPDATE OR INSERT ON '
                || name
                || ' EXECUTE FUNCTION {{schema}}.{_NAME}()';
            EXECUTE 'ALTER TABLE ' || name || ' ENABLE ALWAYS TRIGGER {_NAME}';
        END LOOP;
    END
    $guvnor$
"""
_COLUMN_TRIGGERS = f"""
    DO $guvnor$
    DECLARE
        col record;
    BEGIN
        FOR col IN
            SELECT attrelid::regclass AS "table", attname, attnum, format('{_NAME}_%s', attnum) AS name
            FROM pg_catalog.pg_attribute
            WHERE attrelid = ANY (ARRAY[{{tables}}]::oid[]) AND attnum > 0 AND NOT attisdropped
              AND attgenerated = ''
        LOOP
            EXECUTE format('CREATE TRIGGER %I AFTER UPDATE OF %I ON %s EXECUTE FUNCTION %s(%L)',
                           col.name, col.attname, col."table", '{{schema}}.{_NAME}', col.attnum);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', col."table", col.name);
        END LOOP;
    END
    $guvnor$
"""
# Somebody may have disabled or dropped a trigger; a new table has none yet.
_LOOK = f"""
    SELECT COALESCE(current_setting('{_RECORD}', true), ''),
           ARRAY(SELECT c.oid::bigint FROM pg_catalog.pg_class AS c
                 LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = '{_NAME}'
                 WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')
                   AND t.tgenabled IS DISTINCT FROM 'A'),
           -- a view takes no trigger that fires always, but a statement that writes to it locks it
           ARRAY(SELECT quote_ident(c.relname) FROM pg_catalog.pg_class AS c
                 WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'v'
                   AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                               WHERE t.tgrelid = c.oid AND t.tgtype & 64 <> 0)
                   AND EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                               WHERE l.relation = c.oid AND l.pid = pg_backend_pid()
                                 AND l.mode = 'RowExclusiveLock'))
"""
# PostgreSQL's include/catalog/pg_trigger.h: the bits of tgtype.
_EVENTS = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}
_APPLICATION_TRIGGERS = f"""
    SELECT DISTINCT quote_ident(c.relname)
    FROM unnest(%s::oid[], %s::integer[]) AS written (oid, event)
    JOIN pg_catalog.pg_class AS c ON c.oid = written.oid
    JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid AND t.tgtype & written.event <> 0
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND NOT starts_with(t.tgname::text, '{_NAME}')
    ORDER BY 1
"""
# A row-level BEFORE trigger may write any column of its row, such as the time of the last change.
_WRITTEN_BY_TRIGGERS = f"""
    SELECT DISTINCT t.tgrelid::bigint FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = ANY (%s::oid[]) AND t.tgtype & 19 = 19 AND NOT t.tgisinternal
      AND t.tgenabled IN ('O', 'A') AND NOT starts_with(t.tgname::text, '{_NAME}')
"""  # 19: for each row, before, on UPDATE
# PostgreSQL documentation, pg_constraint: what happens to the rows that refer to one that goes or changes.
_CASCADES = """
    SELECT conrelid::bigint, confrelid::bigint, confdeltype, confupdtype, confkey::integer[],
           conkey::integer[], {set_columns}::integer[]
    FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND connamespace = %s::regnamespace
      AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
    ORDER BY conrelid::regclass::text, conname
"""
_SAVEPOINT = "guvnor_before_statement"


class DataWatch:
    """Sees what statements do to the data of a schema that is under construction.

    :ivar ledger: the tables and columns as they are after the last statement.
    :ivar seen: what the statements have done so far.
    :ivar triggered: the tables and views that they write to and that have triggers of the application, as SQL
        writes them; those triggers do not fire in a shadow, or find no rows.
    """

    def __init__(self, driver: Connection, schema: str) -> None:
        """Prepare to watch; see :meth:`begin`.

        :param driver: in a transaction that will be rolled back.
        """
        self._driver, self._schema = driver, schema
        self._undoable = True
        self._reader = stored_data.Reader(driver, schema)
        self._keys: list[tuple[Any, ...]] = []  # foreign keys as they are after the last statement
        self.ledger: Ledger = {}
        self.seen: list[Touch] = []
        self.triggered: dict[str, None] = {}
        self._locked: set[str] = set()  # views to which some statement wrote

    def begin(self) -> None:
        """Put the triggers on the tables, and forget what was seen."""
        self.seen, self.triggered = [], {}
        self._locked = set(self._look()[2])
        self.ledger, self._keys = self._reader.read(), self._read_keys()
        self._execute(_FUNCTION.format(schema=self._schema))
        self._put_triggers(self.ledger)

    def end(self) -> None:
        """Take the triggers away, so that a snapshot of the schema does not have them."""
        self._execute(f"DROP FUNCTION {self._schema}.{_NAME}() CASCADE")

    def run(
        self,
        text: str,
        execute: Callable[[str], object],
        undone: Callable[..., contextlib.AbstractContextManager[None]],
    ) -> None:
        """Run a text, and watch its statements one by one, as far as they can be run like that.

        :param undone: see :meth:`guvnor.schema.shadow.Shadow.undone`.
        """
        whole = isinstance(text, Backfill | Kept) or transaction_control.names_savepoint(text)
        statements = [] if whole else transaction_control.split(text)
        before = self.ledger, self._keys, list(self.seen)
        try:
            with undone(on_failure=True) if len(statements) > 1 else contextlib.nullcontext():
                for statement in statements if len(statements) > 1 else [text]:
                    self._run_one(statement, execute)
        except psycopg2.Error:
            if len(statements) < 2:
                raise
            self.ledger, self._keys, self.seen = before
            self._run_one(text, execute)

    def _run_one(self, statement: str, execute: Callable[[str], object]) -> None:
        self.before_statement(statement)
        execute(statement)
        self.after_statement(statement, lambda: execute(statement))

    def before_statement(self, statement: str) -> None:
        """Remember where to go back to, unless the statement itself names a savepoint.

        What is released with ours, or goes back to before it, would be a savepoint of the revision.
        """
        self._undoable = not transaction_control.names_savepoint(statement)
        if self._undoable:
            self._execute(f"SAVEPOINT {_SAVEPOINT}")

    def after_statement(self, statement: str, again: Callable[[], object]) -> None:
        """Record what a statement has done since :meth:`before_statement`.

        :param again: runs it once more; it is called when the statement updates a table.
        """
        record, unwatched, views = self._look()
        found = list(_touches(record))
        if updated := {touch.key[0] for touch in found if touch.how == "update"}:
            found = [touch for touch in found if touch.how != "update"]
            found += self._updated_columns(updated & self.ledger.keys(), again)
            record, unwatched, _ = self._look()
        after = self._reader.read()
        changes = list(stored_data.compare(self.ledger, after))
        tried = [touch for touch in changes if touch.how in ("cast", "retype")] if self._undoable else []
        overwritten = self._overwritten(tried, after, again)
        if tried:
            after = self._reader.read()
        if self._undoable:
            self._execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        # No row goes with one that ``op.delete_rows`` deletes: it leaves those alone to which others refer.
        kept = isinstance(statement, Kept)
        caused = self._cascades([touch for touch in found if not kept or touch.how != "delete"])
        found += caused
        found += self._by_triggers(found)
        self._note_triggers(statement, found, views)
        if isinstance(statement, Backfill):
            found = [
                replace(touch, where=statement.where, harmless=self._only_fills(touch, statement.where))
                for touch in found
            ]
        if not transaction_control.only_alters(statement):
            found += [Touch("unseen", (oid, 0)) for oid in unwatched if oid in self.ledger]
        for touch in changes:
            if touch.key in overwritten:
                found.append(Touch("rewrite", touch.key))
            elif touch.how != "retype":
                found.append(self._judged(touch))
        if isinstance(statement, Kept):
            follow = {touch.key[0] for touch in caused}  # and come back in the same way
            found = [self._kept(touch, statement.table, follow) for touch in found]
        self.seen += stored_data.with_parents(self.ledger, found)
        self.ledger, self._keys = after, self._read_keys()
        if unwatched:
            self._put_triggers(unwatched)
        if record:
            self._execute(f"SET LOCAL {_RECORD} = ''")

    def _updated_columns(self, tables: set[int], again: Callable[[], object]) -> list[Touch]:
        """Undo a statement, let it say which columns of some tables it updates, and do it again.

        Where it cannot be undone, or run with the triggers, it may have updated any column.
        """
        any_column = [Touch("update", (oid, number)) for oid in tables for number in self.ledger[oid].columns]
        if not self._undoable:
            return any_column
        undo = f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}"
        self._execute(undo)
        listed = ", ".join(map(str, tables))
        try:
            self._execute(_COLUMN_TRIGGERS.format(schema=self._schema, tables=listed))
            again()
            record, *_ = self._look()
            found = [touch for touch in _touches(record) if touch.how == "update" and touch.key[1]]
        except Exception as error:
            if not isinstance(getattr(error, "orig", error), psycopg2.Error):
                raise
            found = any_column
        self._execute(undo)
        again()
        return found

    def _overwritten(self, touches: Sequence[Touch], after: Ledger, again: Callable[[], object]) -> set[Key]:
        """Undo a statement, find the columns in which its USING overwrites values, and do it again."""
        if not touches:
            return set()
        undo = f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}"
        self._execute(undo)
        found: set[Key] = set()
        for touch in touches:
            oid, number = touch.key
            table, column = self.ledger[oid], self.ledger[oid].columns[number]
            place = self._schema, table.name, column.name
            new = after[oid].columns[number]
            if retyped.overwrites(self._driver, place, column.type, (new.name, new.type), again):
                found.add(touch.key)
        again()
        return found

    def _cascades(self, found: Sequence[Touch]) -> list[Touch]:
        """Find what foreign keys do to other tables when rows are deleted or keys are updated."""
        if not {"delete", "update"} & {touch.how for touch in found}:
            return []
        # The statement may have made a key before that, or have dropped one after it.
        keys = [*self._keys, *(key for key in self._read_keys() if key not in self._keys)]
        new, known = list(found), {(touch.how, touch.key) for touch in found}
        added: list[Touch] = []
        while new:
            touch = new.pop()
            for child, parent, on_delete, on_update, referred, referring, set_columns in keys:
                hit = touch.key[0] == parent and (touch.how == "delete" or touch.key[1] in referred)
                action = on_delete if touch.how == "delete" else on_update
                if not hit or action not in ("c", "n", "d") or touch.how not in ("delete", "update"):
                    continue
                if touch.how == "delete" and action == "c":
                    caused = [Touch("delete", (child, 0))]
                else:
                    columns = (set_columns if touch.how == "delete" else None) or referring
                    caused = [Touch("update", (child, number)) for number in columns]
                fresh = [item for item in caused if (item.how, item.key) not in known]
                known |= {(item.how, item.key) for item in fresh}
                new += fresh
                added += fresh
        return added

    def _by_triggers(self, found: Sequence[Touch]) -> list[Touch]:
        """Name the other columns of updated rows, where a trigger of the application may write them."""
        updated = {touch.key for touch in found if touch.how == "update" and touch.key[0] in self.ledger}
        if not updated:
            return []
        tables = sorted({oid for oid, _ in updated})
        return [
            Touch("update", (oid, number), along=True)
            for (oid,) in rows(self._driver, _WRITTEN_BY_TRIGGERS, (tables,))
            for number in self.ledger[oid].columns
            if (oid, number) not in updated
        ]

    def _read_keys(self) -> list[tuple[Any, ...]]:
        since_15 = self._driver.server_version >= 150000
        sql = _CASCADES.format(set_columns="confdelsetcols" if since_15 else "NULL")
        return rows(self._driver, sql, (self._schema,))

    def _kept(self, touch: Touch, table: str, follow: set[int]) -> Touch:
        """Mark what happens to the table whose rows are kept, to those below it, and to the tables beside."""
        line, names = [touch.key[0]], list[str]()
        while line:
            if found := self.ledger.get(line.pop()):
                names.append(unquoted(found.name))
                line += found.parents
        kept = any(name == table or name.startswith(PREFIX) for name in names) or touch.key[0] in follow
        return replace(touch, kept=kept)

    def _judged(self, touch: Touch) -> Touch:
        """Try out a cast."""
        if touch.type is None:
            return touch
        oid, number = touch.key
        old = self.ledger[oid].columns[number].type
        return replace(touch, harmless=casts.keeps_values(self._driver, old, touch.type))

    def _only_fills(self, touch: Touch, where: str) -> bool:
        """Let the planner tell whether a predicate rules out every row that has a value in a column.

        PostgreSQL documentation, constraint_exclusion: with ``on``, it looks for contradictions in any query.
        """
        oid, number = touch.key
        if touch.how != "update" or oid not in self.ledger or number not in self.ledger[oid].columns:
            return False
        table, column = self.ledger[oid].name, self.ledger[oid].columns[number].name
        query = f"SELECT FROM {self._schema}.{table} WHERE ({where}\n) AND {column} IS NOT NULL"
        self._execute("SET LOCAL constraint_exclusion = on")
        plan = scalar(self._driver, f"EXPLAIN (FORMAT JSON) {query}")[0]
        self._execute("SET LOCAL constraint_exclusion = partition")
        node = plan["Plan"]
        return node["Node Type"] == "Result" and str(node.get("One-Time Filter")) == "false"

    def _put_triggers(self, tables: Iterator[int] | Sequence[int] | Ledger) -> None:
        listed = ", ".join(map(str, tables))
        if listed:
            self._execute(_TRIGGERS.format(schema=self._schema, tables=listed))

    def _look(self) -> tuple[str, list[int], list[str]]:
        ((record, unwatched, views),) = rows(self._driver, _LOOK, (self._schema, self._schema))
        return record, unwatched, views

    def _note_triggers(self, statement: str, found: Sequence[Touch], views: Sequence[str]) -> None:
        """Remember which tables and views a statement writes to have triggers of the application.

        A lock stays until the end of the transaction: a view that was locked before counts where a statement
        that may write names it.
        """
        written = {(touch.key[0], _EVENTS[touch.how]) for touch in found if touch.how in _EVENTS}
        if written:
            tables, events = zip(*sorted(written), strict=True)
            names = rows(self._driver, _APPLICATION_TRIGGERS, (list(tables), list(events)))
            self.triggered |= {name: None for (name,) in names}
        writes = transaction_control.has_word_of_writing(statement)
        for view in views:
            named = writes and re.search(
                rf"(?<!\w){re.escape(unquoted(view))}(?!\w)", statement, re.IGNORECASE
            )
            if view not in self._locked or named:
                self.triggered[view] = None
        self._locked |= set(views)

    def _execute(self, sql: str) -> None:
        with self._driver.cursor() as cursor:
            cursor.execute(sql)


def _touches(record: str) -> Iterator[Touch]:
    """Read what the triggers have recorded; each says it once, in the order in which it happened."""
    for entry in dict.fromkeys(record.split()):
        operation, table, column = entry.split(":")
        key: Key = int(table), int(column or 0)
        yield Touch(_HOW[operation], key)
