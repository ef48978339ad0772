"""Whether a change of type can change values: the server tries it on a few, since a shadow has no rows."""

from __future__ import annotations

import contextlib

import psycopg2

from guvnor.postgres import Connection, scalar
from guvnor.postgres.quoting import constant
from guvnor.schema.stored_data import ColumnType

SAMPLES = (
    "1.23456789012345", "7", "007", "16777217", "9007199254740993", "2001-02-03 04:05:06.789123+00",
    "04:05:06.789123", "1 day 02:03:04.567891", "true", "x" * 20_000, '{"a": 1}',
    "c2d29867-3d0b-d497-9191-18a9d8ee7830", "10.1.2.3/24", "{1,2,16777217}", "{1.25,7}", "{xxxxxxxxxxxx}",
)  # fmt: skip
"""One of these has what a type of the kind can lose: digits, a part of a moment, precision, length."""


def keeps_values(driver: Connection, old: ColumnType, new: ColumnType) -> bool:
    """Tell whether each sample that is a value of the old type comes back from the new one, or is refused.

    :param driver: in a transaction.
    :returns: False also where no sample is a value of both types, so that nothing is known.
    """
    if new.labels is not None or new.is_nested:
        return _holds(old, new)
    samples = (*(old.labels or ()), *SAMPLES)
    known = False
    for sample in samples:
        value = f"{constant(sample)}::{old.base}"
        sql = f"SELECT (({value})::{new.base})::{old.base}::text IS NOT DISTINCT FROM ({value})::text"
        with driver.cursor() as cursor:
            cursor.execute("SAVEPOINT guvnor_sample")
            kept = None
            with contextlib.suppress(psycopg2.Error):
                kept = scalar(driver, sql)
            cursor.execute("ROLLBACK TO SAVEPOINT guvnor_sample; RELEASE SAVEPOINT guvnor_sample")
        if kept is False:
            return False
        known |= kept is True
    return known


def _holds(old: ColumnType, new: ColumnType) -> bool:
    """Tell whether a type is made like another one, and each of its enums has all labels of the other's."""
    pairs = list(zip(old.parts, new.parts, strict=False))
    return len(old.parts) == len(new.parts) and all(
        (was.path, was.type) == (now.path, now.type) and set(was.labels or ()) <= set(now.labels or ())
        for was, now in pairs
    )
