"""Indexes of partitioned tables: valid when each partition has a valid index that is attached to them.

A partition may lack one whether or not the revisions know it: an index that was made ``ON ONLY`` the table is
invalid until all of them have one (PostgreSQL documentation, CREATE INDEX, and ALTER INDEX ... ATTACH
PARTITION). The server builds no index of a partitioned table concurrently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from guvnor.postgres.quoting import LONGEST_NAME, identifier, unquoted
from guvnor.schema import ddl
from guvnor.schema.compare import Finding
from guvnor.schema.partitions import Sides
from guvnor.schema.snapshot import Object, Snapshot, handle
from guvnor.schema.statement import table_of, terminated

_NOT_VALID = 180000  # since this version, a partitioned table takes a foreign key that is not valid
_VALID = {"index": "valid", "constraint": "index valid"}


def without_validity(sides: Sides) -> Sides:
    """Take the validity of these indexes out of the comparison: :func:`incomplete` finds it."""
    both = {
        key: name
        for key, item in sides.expected.objects.items()
        if (name := _VALID.get(item.kind))
        and _is_partitioned(item, sides.expected)
        and key in sides.actual.objects
    }
    if not both:
        return sides

    def valid(side: Snapshot) -> Snapshot:
        changed = {
            key: replace(side.objects[key], attributes={**side.objects[key].attributes, name: True})
            for key, name in both.items()
            if side.objects[key].attributes.get(name) is False
        }
        return replace(side, objects={**side.objects, **changed}) if changed else side

    return replace(sides, expected=valid(sides.expected), actual=valid(sides.actual))


def _is_partitioned(item: Object, schema: Snapshot) -> bool:
    table = schema.objects.get(item.parents[0]) if item.parents else None
    return table is not None and table.attributes.get("partition key") is not None


def incomplete(sides: Sides) -> Iterator[Finding]:
    """Find the indexes of partitioned tables that some partitions have no valid index for.

    Only what both schemas have counts; anything else is missing or unexpected as a whole.
    """
    tree = IndexTree(sides.whole)
    for key, item in sides.whole.objects.items():
        name = _VALID.get(item.kind)
        if name is None or key not in sides.expected.objects or item.inherited_from:
            continue
        if not _is_partitioned(item, sides.whole) or item.attributes.get(name) is None:
            continue
        lacks, invalid = tree.without(item), tree.invalid(item)
        if item.attributes[name] and not lacks and not invalid:
            continue
        whom = ", ".join(table for table, _ in lacks)
        why = "although each partition has one"
        if lacks:
            why = f"since no index of {whom} is attached to it"
        elif invalid:
            why = f"since that of {', '.join(map(table_of, invalid))} is"
        yield Finding(
            item.kind,
            item.identity,
            "different",
            {name: True},
            {name: False},
            f"It is invalid, {why}: queries may scan all rows there, and a unique one guarantees nothing.",
            tree.completing(item) if lacks or invalid else None,
            tuple(f"table {table}" for table, _ in lacks),
        )


def with_statements(findings: Iterable[Finding], sides: Sides, version: int) -> Iterator[Finding]:
    """Give the findings on what partitioned tables lack statements that block no writers.

    :param version: the server's, as in ``server_version_num``.
    """
    for finding in findings:
        item = sides.expected.objects.get(handle(finding.kind, finding.object))
        made: list[str] = []
        if finding.change == "missing" and finding.sql and item and _is_partitioned(item, sides.whole):
            tree = IndexTree(sides.whole)
            if item.kind == "index":
                made = tree.building(item, table_of(item), item.name)
            elif item.attributes.get("type") == "foreign key" and version < _NOT_VALID:
                made = tree.foreign_key(item)
        if item and made:
            further = [statement.sql for statement in ddl.further(item)]
            finding = replace(finding, sql=terminated([*made, *further]))
        yield finding


class IndexTree:
    """Partitioned tables with their partitions, and the indexes that these have."""

    def __init__(self, schema: Snapshot) -> None:
        """Sort the objects of a schema."""
        self._schema = schema
        self._below: dict[str, list[Object]] = {}
        self._attached: dict[tuple[str, str], Object] = {}
        for item in sorted(schema, key=lambda each: each.identity):
            # A foreign table has no indexes, and needs none.
            if item.attributes.get("partition bound") is not None and item.kind == "table":
                self._below.setdefault(item.attributes["inherits from"][0], []).append(item)
            if item.kind in _VALID:
                for source in item.inherited_from:
                    self._attached[source, table_of(item)] = item

    def without(self, index: Object) -> list[tuple[str, Object]]:
        """Return the partitions that have none for an index, each with the index to attach one to."""
        found: list[tuple[str, Object]] = []
        for partition in self._below.get(table_of(index), ()):
            own = self._attached.get((index.handle, partition.identity))
            found += [(partition.identity, index)] if own is None else self.without(own)
        return found

    def invalid(self, index: Object) -> list[Object]:
        """Return the indexes of partitions that are attached to one and invalid."""
        found: list[Object] = []
        for partition in self._below.get(table_of(index), ()):
            if own := self._attached.get((index.handle, partition.identity)):
                leaf = partition.attributes["partition key"] is None
                found += (
                    [own] if leaf and not own.attributes.get(_VALID[own.kind], True) else self.invalid(own)
                )
        return found

    def completing(self, index: Object) -> str | None:
        """Return the statements that give each partition its index; None where a person has to decide."""
        if self.invalid(index):
            return None  # REINDEX makes them valid, but not the index that they are attached to
        statements: list[str] = []
        for partition, above in self.without(index) if _ending(index) else ():
            statements += self._attaching(index, partition, above.name)
        return terminated(statements) or None

    def building(self, index: Object, table: str, name: str) -> list[str]:
        """Return the statements that make an index of a table and of all below it, and block no writers.

        :param index: an index or a constraint like that, of a table above.
        """
        below = self._below.get(table, ())
        constraint = f"ADD CONSTRAINT {name} {index.attributes.get('definition')}"
        if index.kind == "constraint" and self._holds_partitions(table):
            made = [f"ALTER TABLE ONLY {table} {constraint}"]
        elif index.kind == "constraint":
            kind = str(index.attributes["type"]).upper()
            made = [
                f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} {_ending(index)}",
                f"ALTER TABLE {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}",
            ]
        else:
            start = str(index.sql).partition(f"INDEX {index.name} ")[0]
            words = ("", "ON ONLY") if self._holds_partitions(table) else ("CONCURRENTLY ", "ON")
            made = [f"{start}INDEX {words[0]}{name} {words[1]} {table} {_ending(index)}"]
        for partition in below:
            made += self._attaching(index, partition.identity, name)
        return made

    def foreign_key(self, key: Object) -> list[str]:
        """Return the statements that add a foreign key to each leaf, then to the table, which adopts them."""
        made, tables = [], [table_of(key)]
        for table in tables:
            below = [partition.identity for partition in self._below.get(table, ())]
            tables += below
            if not self._holds_partitions(table):
                add = (
                    f"ALTER TABLE {table} ADD CONSTRAINT {key.name} {key.attributes['definition']} NOT VALID"
                )
                made += [add, f"ALTER TABLE {table} VALIDATE CONSTRAINT {key.name}"]
        return [*made, str(key.sql)] if key.attributes["validated"] else []

    def _attaching(self, index: Object, partition: str, above: str) -> list[str]:
        """Return the statements that give a partition its index, made already or not."""
        own = (i for i in self._schema.of_kind("index") if table_of(i) == partition and not i.inherited_from)
        same = (i.name for i in own if i.attributes["valid"] and _definition(i) == _definition(index))
        there = next(same, None)
        name = there or self._free_name(partition, index.name)
        made = [] if there else self.building(index, partition, name)
        return [*made, f"ALTER INDEX {above} ATTACH PARTITION {name}"]

    def _holds_partitions(self, table: str) -> bool:
        item = self._schema.objects.get(handle("table", table))
        return item is not None and item.attributes.get("partition key") is not None

    def _free_name(self, partition: str, index: str) -> str:
        """Return a name for the index of a partition."""
        whole = f"{unquoted(partition)}_{unquoted(index)}"
        taken = {item.name for item in self._schema if item.kind in (*_VALID, "table", "sequence", "view")}
        if len(whole.encode()) > LONGEST_NAME or identifier(whole) in taken:
            mark = f"_{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
            whole = whole.encode()[: LONGEST_NAME - len(mark)].decode(errors="ignore") + mark
        return identifier(whole)


def _definition(index: Object) -> tuple[bool, str | None]:
    """Return what an index is, whatever its table and its name."""
    return bool(index.attributes.get("unique")), _ending(index)


def _ending(index: Object) -> str | None:
    """Return what follows the table's name in the statement that makes an index; None where it is unknown."""
    if index.kind == "index":
        _, _, rest = str(index.sql).partition(f"INDEX {index.name} ON ")
        return rest.removeprefix("ONLY ").removeprefix(f"{table_of(index)} ")
    values = index.attributes
    ending = str(values["definition"]).removeprefix(f"{values['type']} ".upper())
    is_plain = values["type"] in ("unique", "primary key") and not values["deferrable"]
    return ending if is_plain and ending.startswith("(") else None
