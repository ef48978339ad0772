"""Enum values that one statement adds and a later one uses, in the one transaction of a shadow.

PostgreSQL refuses that (SQLSTATE 55P04; documentation, ALTER TYPE); in a migration, the value is committed in
between. Values that come with CREATE TYPE may be used at once. So when the server has refused a build, it
starts again, and each enum is created with the values that were added to it the first time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg2

from guvnor.postgres import Connection, rows, scalar
from guvnor.postgres.quoting import constant, quoted


@dataclass
class Enums:
    """The enums of one build, each identified by its place in the order in which they are created.

    :ivar labels: the values of each one, under the names that they had when they were added; a later build
        starts with those of the one before.
    :ivar grown: whether a value was added to one since the build began.
    """

    labels: dict[int, list[str]] = field(default_factory=dict)
    grown: bool = False
    _places: dict[int, int] = field(default_factory=dict)  # by oid
    _names: dict[int, str] = field(default_factory=dict)  # of values, by oid

    def follow(self, driver: Connection, schema: str) -> None:
        """Look at the enums after a statement; create a new one again, with the values it will be given."""
        sql = """
            SELECT t.oid::bigint, t.typname::text,
                   array_agg(e.oid::bigint ORDER BY e.enumsortorder),
                   array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
            FROM pg_catalog.pg_type AS t
            JOIN pg_catalog.pg_enum AS e ON e.enumtypid = t.oid
            WHERE t.typnamespace = %s::regnamespace
            GROUP BY t.oid
            ORDER BY t.oid
            """
        for oid, name, values, now in rows(driver, sql, (schema,)):
            labels = [self._names.setdefault(value, label) for value, label in zip(values, now, strict=True)]
            place = self._places.get(oid)
            if place is None:
                place = self._places[oid] = len(set(self._places.values()))
                wanted = self.labels.setdefault(place, labels)
                if wanted != labels:
                    self._places[_make_anew(driver, schema, name, wanted)] = place
            elif len(labels) > len(self.labels[place]):
                self.labels[place], self.grown = labels, True


def _make_anew(driver: Connection, schema: str, name: str, labels: list[str]) -> int:
    """Drop an enum and create it with other values; return its oid.

    It stays as it is when the statement that created it has already made something that uses it.
    """
    enum, values = f"{schema}.{quoted(name)}", ", ".join(map(constant, labels))
    with driver.cursor() as cursor:
        try:
            cursor.execute(f"SAVEPOINT enum; DROP TYPE {enum}; CREATE TYPE {enum} AS ENUM ({values})")
        except psycopg2.errors.DependentObjectsStillExist:
            cursor.execute("ROLLBACK TO enum")
        cursor.execute("RELEASE enum")
    return int(scalar(driver, "SELECT %s::regtype::oid::bigint", (enum,)))
