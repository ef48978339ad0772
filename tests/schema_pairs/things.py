"""A schema as the fuzzer knows it: things with numbers, so that a name can change and a thing stay itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

from guvnor.postgres.quoting import constant, quoted

IN_TABLES = ("primary key", "unique", "check", "foreign key", "exclusion")  # constraints


@dataclass
class Thing:
    """One object of a schema.

    :ivar sql: the statement that makes it, with ``{self}``, ``{on}``, and ``{0}``, ``{1}`` ... for the names
        of what it uses; of a column, its type.
    :ivar more: further statements, written in the same way.
    :ivar on: the number of its table.
    :ivar strict: whether it fits only the types that its columns have.
    :ivar facts: of a column and of a table; see :mod:`tests.schema_pairs.makers`.
    """

    number: int
    kind: str
    name: str
    sql: str = ""
    on: int | None = None
    uses: tuple[int, ...] = ()
    more: tuple[str, ...] = ()
    comment: str | None = None
    strict: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Schema:
    """A schema; deep copies of it are the first and the second of a pair."""

    things: dict[int, Thing] = field(default_factory=dict)

    def __getitem__(self, number: int) -> Thing:
        return self.things[number]

    def __contains__(self, number: int | None) -> bool:
        return number in self.things

    def of(self, *kinds: str, on: int | None = None) -> list[Thing]:
        """The things of some kinds, of one table where it is given."""
        found = (thing for thing in self.things.values() if thing.kind in kinds)
        return [thing for thing in found if on is None or thing.on == on]

    def columns(self, table: int) -> list[Thing]:
        """The columns of a table, in their order."""
        return sorted(self.of("column", on=table), key=lambda c: c.facts.get("place", c.number))

    def users(self, number: int) -> list[Thing]:
        """What cannot be without a thing."""
        return [thing for thing in self.things.values() if thing.on == number or number in thing.uses]

    def remove(self, number: int) -> None:
        """Take a thing out, with all that cannot be without it."""
        self.things.pop(number, None)
        for user in self.users(number):
            self.remove(user.number)

    def name(self, number: int) -> str:
        """The name of a thing as SQL writes it."""
        return quoted(self[number].name)

    def filled(self, thing: Thing, sql: str) -> str:
        """A statement with its names."""
        on = self.name(thing.on) if thing.on is not None else ""
        key = self.name(thing.facts["partition key"]) if "partition key" in thing.facts else ""
        return sql.format(*map(self.name, thing.uses), self=quoted(thing.name), on=on, key=key)

    def statements(self) -> list[str]:
        """The statements that make the schema."""
        return [sql for thing in self.in_order() for sql in self._made(thing)]

    def sql(self) -> str:
        """The statements as one text."""
        return ";\n".join(self.statements())

    def _made(self, thing: Thing) -> Iterator[str]:
        if thing.kind == "table":
            columns = self.columns(thing.number)
            lines = ",\n    ".join(self.filled(column, self._column(column)) for column in columns)
            unlogged = "UNLOGGED " if thing.facts.get("unlogged") else ""
            yield (
                self.filled(thing, f"CREATE {unlogged}TABLE {{self}} (\n    ")
                + lines
                + self.filled(thing, f"\n) {thing.sql}".rstrip())
            )
        else:
            columns = []
            yield self.filled(thing, thing.sql)
        for part in (thing, *columns):
            yield from (self.filled(part, sql) for sql in part.more)
            if part.comment is not None:
                yield f"COMMENT ON {self._called(part)} IS {constant(part.comment)}"

    def _column(self, column: Thing) -> str:
        facts = column.facts
        words = ["{self}", column.sql]
        if facts.get("collation"):
            words.append(f'COLLATE "{facts["collation"]}"')
        if facts.get("generated"):
            words.append(f"GENERATED ALWAYS AS ({facts['generated']}) {facts['stored']}")
        elif facts.get("identity"):
            words.append(f"GENERATED {facts['identity']}")
        elif facts.get("default"):
            words.append(f"DEFAULT {facts['default']}")
        if facts.get("not null"):
            words.append("NOT NULL")
        return " ".join(words)

    def _called(self, thing: Thing) -> str:
        name = quoted(thing.name)
        if thing.kind == "column":
            return f"COLUMN {self.name(thing.on)}.{name}"
        if thing.kind in IN_TABLES:
            return f"CONSTRAINT {name} ON {self.name(thing.on)}"
        if thing.kind in ("trigger", "policy", "rule"):
            return f"{thing.kind.upper()} {name} ON {self.name(thing.on)}"
        if thing.kind in ("function", "procedure", "aggregate"):
            return f"{thing.kind.upper()} {name}({self.filled(thing, thing.facts['arguments'])})"
        words = {"enum": "TYPE", "composite": "TYPE", "partition": "TABLE", "view index": "INDEX"}
        return f"{words.get(thing.kind, thing.kind.upper())} {name}"

    def in_order(self) -> list[Thing]:
        """Each thing after what it uses; a column stands for its table."""

        def node(number: int) -> int:
            thing = self[number]
            return thing.on if thing.kind == "column" and thing.on is not None else number

        needs: dict[int, set[int]] = defaultdict(set)
        for thing in self.things.values():
            used = thing.uses if thing.on is None else (thing.on, *thing.uses)
            needs[node(thing.number)] |= {node(number) for number in used} - {node(thing.number)}
        graph = {number: sorted(used) for number, used in sorted(needs.items())}
        return [self[number] for number in TopologicalSorter(graph).static_order()]
