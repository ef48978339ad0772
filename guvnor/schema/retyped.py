"""What ALTER COLUMN ... TYPE ... USING makes of values: the server tries it on a few, beside the real table.

A shadow has no rows, and the catalogs do not tell whether there was a USING. So the statement runs once more
while a temporary table of the same name hides the real one; it holds a sample, and everything is undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg2

from guvnor.postgres import Connection, scalar
from guvnor.postgres.quoting import constant
from guvnor.schema.casts import SAMPLES
from guvnor.schema.stored_data import ColumnType

_PAIRS = (
    "1",
    "2",
    "3",
    "abc",
    "ABC",
    "abc ",
    "x" * 20_001,
    "1 day",
    "2001-02-03",
    "false",
    "{abc}",
    "{1}",
    "{2}",
)
"""What tells apart what SAMPLES alone do not: case, blanks, neighboring numbers."""

# LIKE takes NOT NULL along, which is in the way of a row with one value.
_TABLE = """
    CREATE TEMPORARY TABLE {table} (LIKE {schema}.{table}) ON COMMIT DROP;
    DO $guvnor$
    DECLARE
        col name;
    BEGIN
        FOR col IN SELECT attname FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'pg_temp.{quoted}'::regclass AND attnum > 0 AND attnotnull LOOP
            EXECUTE format('ALTER TABLE pg_temp.%s ALTER %I DROP NOT NULL', '{quoted}', col);
        END LOOP;
    END
    $guvnor$
"""


def overwrites(
    driver: Connection,
    place: tuple[str, str, str],
    old: ColumnType,
    after: tuple[str, ColumnType],
    again: Callable[[], object],
) -> bool:
    """Tell whether a statement makes the same of two values, and something else than a cast makes of them.

    :param driver: in a transaction, before the statement; all that is done here is undone.
    :param place: the schema, the table and the column, as SQL writes them before the statement.
    :param after: the name and type of the column after it.
    :param again: runs the statement.
    :returns: False also where that cannot be told.
    """
    (schema, table, column), (renamed, new) = place, after
    made: dict[str | None, str] = {}
    same, collides, castable = True, False, False
    with _undone(driver):
        _execute(driver, _TABLE.format(schema=schema, table=table, quoted=table.replace("'", "''")))
        for sample in dict.fromkeys(_samples(old)):
            outcome = _outcome(driver, table, (column, renamed), f"{constant(sample)}::{old.name}", again)
            if outcome is None:
                continue
            value, got = outcome
            collides |= made.setdefault(got, value) != value
            plain = _plain(driver, value, old, new)
            castable |= plain is not None
            same &= plain is not None and plain == got
    return castable and collides and not same


def _samples(old: ColumnType) -> Iterator[str]:
    yield from old.labels or ()
    yield from (*SAMPLES, *_PAIRS)


def _outcome(
    driver: Connection, table: str, names: tuple[str, str], sample: str, again: Callable[[], object]
) -> tuple[str, str | None] | None:
    """Return a value and what becomes of it, as text; None where one of the two is refused."""
    with _undone(driver):
        before, after = names
        insert = f"INSERT INTO pg_temp.{table} ({before}) VALUES ({sample}) RETURNING {before}::text"
        value = scalar(driver, insert)
        again()
        return value, scalar(driver, f"SELECT {after}::text FROM pg_temp.{table}")
    return None


def _plain(driver: Connection, value: str, old: ColumnType, new: ColumnType) -> str | None:
    """Return what a cast makes of a value, as text; None where there is no such cast."""
    via = "text" if new.labels is not None else old.name
    with _undone(driver):
        return str(scalar(driver, f"SELECT ({constant(value)}::{via})::{new.name}::text"))
    return None


@contextlib.contextmanager
def _undone(driver: Connection) -> Iterator[None]:
    """Undo what is done within; an error of the server ends it early."""
    _execute(driver, "SAVEPOINT guvnor_sample")
    try:
        yield
    except Exception as error:
        if not isinstance(getattr(error, "orig", error), psycopg2.Error):
            raise
    finally:
        _execute(driver, "ROLLBACK TO SAVEPOINT guvnor_sample; RELEASE SAVEPOINT guvnor_sample")


def _execute(driver: Connection, sql: str) -> None:
    with driver.cursor() as cursor:
        cursor.execute(sql)
