"""What makers and changes share: choices that hypothesis makes, and both schemas of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies

from tests.schema_pairs import names
from tests.schema_pairs.things import Schema, Thing
from tests.schema_pairs.values import BY_NAME, Type

T = TypeVar("T")


class Build:
    """A pair under construction.

    :ivar major: of the server.
    :ivar first: the first schema; until it is done, the second is the same.
    """

    def __init__(self, draw: Callable[[strategies.SearchStrategy[Any]], Any], major: int) -> None:
        self._draw = draw
        self.major = major
        self.first = Schema()
        self.second = self.first
        self.gone: set[int] = set()  # things that only the first schema has
        self._numbers = 0
        self._words = list(names.WORDS)

    def pick(self, choices: Sequence[T]) -> T:
        """One of several; the first one is the simplest."""
        return self._draw(strategies.sampled_from(choices))

    def chance(self, percent: int) -> bool:
        """Whether something rare is done."""
        return self._draw(strategies.integers(0, 99)) >= 100 - percent

    def some(self, choices: Sequence[T], most: int) -> list[T]:
        """A few of several, in any order."""
        size = self._draw(strategies.integers(1, min(most, len(choices))))
        return self._draw(strategies.permutations(choices))[:size]

    def name(self, kind: str) -> str:
        """A new name."""
        self._numbers += 1
        style = self._draw(strategies.integers(0, 99))
        if style < 60:
            return names.PLAIN.format(kind=kind.replace(" ", "_"), n=self._numbers)
        if style < 75:
            return names.long(self._numbers, wide=style < 66)
        if style < 80 and self._words:
            return self._words.pop(0)
        return self.pick(names.ODD).format(n=self._numbers)

    def add(self, schema: Schema, kind: str, sql: str, **more: Any) -> Thing:
        """Put a new thing into a schema."""
        name = self.name(kind)
        self._numbers += 1
        thing = schema.things[self._numbers] = Thing(self._numbers, kind, name, sql, **more)
        if self.chance(15):
            thing.comment = self.comment()
        return thing

    def number(self) -> int:
        """A number that no thing has."""
        self._numbers += 1
        return self._numbers

    def remove(self, thing: Thing) -> None:
        """Take a thing out of the second schema."""
        before = set(self.second.things)
        self.second.remove(thing.number)
        self.gone |= before - set(self.second.things)

    def comment(self) -> str:
        """A comment."""
        self._numbers += 1
        text = self.pick(
            ("a comment", "it's", "50% of :x", "two\nlines", "back\\slash", 'with "quotes"', "-- TODOs; $$")
        )
        return f"{text} {self._numbers}"

    def is_new(self, number: int) -> bool:
        """Whether a thing is not in the first schema."""
        return self.second is not self.first and number not in self.first

    def unlike(self, made: Thing, old: Thing) -> bool:
        """Whether something else was made."""
        return (made.sql, made.uses, made.more) != (old.sql, old.uses, old.more)


def how_stored(b: Build, base: Thing, chance: int) -> str:
    """How a generated column is stored; a virtual one cannot use a type of the schema's own."""
    return "VIRTUAL" if b.major >= 18 and b.chance(chance) and base.sql in BY_NAME else "STORED"


def type_of(schema: Schema, column: Thing) -> Type:
    """The type of a column."""
    if column.sql in BY_NAME:
        return BY_NAME[column.sql]
    if column.facts.get("generated") or not column.uses:
        return Type(column.sql, column.sql, "NULL", distinct=False, keys=())
    used = schema[column.uses[0]]
    if used.kind == "enum":
        value = f"'{used.facts['labels'][0].replace(chr(39), chr(39) * 2)}'".replace("{", "{{").replace(
            "}", "}}"
        )
        array = column.sql.endswith("[]")
        return Type(
            column.sql,
            f"enum {used.number} {array}",
            (f"ARRAY[{value}]::{{0}}[]" if array else f"{value}::{{0}}"),
            distinct=False,
            defaults=("'{{}}'",) if array else (value,),
            computed=(("integer", "cardinality({0})"),) if array else (),
            checks=("{0} IS NOT NULL OR true",) if array else (f"{{0}} = {value} OR {{0}} IS NOT NULL",),
        )
    if used.kind == "domain":
        base = BY_NAME[used.facts["base"]]
        return Type(
            column.sql,
            f"domain {used.number}",
            base.value,
            base.distinct,
            base.defaults[:1],
            (),
            ("{0} IS NOT NULL OR true",),
        )
    return Type(column.sql, f"composite {used.number}", "ROW(" + ", ".join(BY_NAME[t].value for _, t in used.facts["attributes"]) + ")::{0}",
                distinct=False, checks=("{0} IS NOT NULL OR true",), keys=())  # fmt: skip
