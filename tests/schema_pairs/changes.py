"""The kinds of changes from the first schema of a pair to the second."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tests.schema_pairs import makers
from tests.schema_pairs.build import Build
from tests.schema_pairs.makers import ALONE, ON_TABLES
from tests.schema_pairs.things import Thing

Change = Callable[[Build], None]
CHANGES: dict[str, Change] = {}


class NothingLeftError(Exception):
    """The changes before have dropped what a change is about."""


def change(name: str) -> Callable[[Change], Change]:
    def register(function: Change) -> Change:
        CHANGES[name] = function
        return function

    return register


def old_table(b: Build) -> Thing:
    """A table that is in both schemas."""
    there = [t for t in b.second.of("table") if t.number in b.first and "partition key" not in t.facts]
    return b.pick(there) if there else b.second[in_both(b, "table").number]


def in_both(b: Build, kind: str) -> Thing:
    """Put a new thing into both schemas; return the second's."""
    second, b.second = b.second, b.first
    if kind in ALONE:
        made = ALONE[kind](b, b.first)
    else:
        on = [t for t in second.of("table") if t.number in b.first and "partition key" not in t.facts]
        made = ON_TABLES[kind](b, b.first, b.pick(on).number if on else makers.table(b, b.first).number)
    b.second = second
    for number, thing in b.first.things.items():
        if number not in second and number not in b.gone:
            second.things[number] = copy.deepcopy(thing)
    for thing in list(second.things.values()):  # it may have been made of what the second no longer has
        needs = (*thing.uses, *([thing.on] if thing.on else []))
        if any(number not in second for number in needs) or (
            thing.strict and any(retyped(b, n) for n in needs)
        ):
            b.remove(thing)
    return made


def retyped(b: Build, number: int) -> bool:
    return (
        number in b.first
        and number in b.second
        and b.first[number].kind == "column"
        and b.first[number].sql != b.second[number].sql
    )


def existing(b: Build, kind: str) -> Thing:
    """A thing of a kind that is in both schemas."""
    there = [t for t in b.second.of(*_KINDS.get(kind, (kind,))) if t.number in b.first and fits(t, kind)]
    for _ in range(5):
        if there:
            return b.pick(there)
        in_both(b, kind)
        there = [t for t in b.second.of(*_KINDS.get(kind, (kind,))) if t.number in b.first and fits(t, kind)]
    raise NothingLeftError(kind)


_KINDS = {"generated column": ("column",), "partitioned table": ("table",)}


def fits(thing: Thing, kind: str) -> bool:
    facts = thing.facts
    return {
        "column": not facts.get("generated") and not facts.get("identity"),
        "generated column": bool(facts.get("generated")),
        "table": "partition key" not in facts,
        "partitioned table": "partition key" in facts,
        "function": not facts.get("trigger"),
    }.get(kind, True)


def is_key(b: Build, column: Thing) -> bool:
    """Whether a table is partitioned by a column."""
    return b.second[column.on or 0].facts.get("partition key") == column.number


def _adder(kind: str) -> Change:
    def add(b: Build) -> None:
        if kind in ALONE:
            ALONE[kind](b, b.second)
        else:
            ON_TABLES[kind](b, b.second, old_table(b).number)

    return add


def _dropper(kind: str) -> Change:
    def drop(b: Build) -> None:
        thing = existing(b, kind)
        if kind == "column" and (is_key(b, thing) or len(b.second.columns(thing.on or 0)) < 2):
            thing = b.second[in_both(b, kind).number]
        b.remove(thing)

    return drop


def _renamer(kind: str) -> Change:
    def rename(b: Build) -> None:
        thing = existing(b, kind)
        thing.name = b.name(kind)

    return rename


def _commenter(kind: str) -> Change:
    def comment(b: Build) -> None:
        thing = existing(b, kind)
        thing.comment = None if thing.comment and b.chance(50) else b.comment()

    return comment


def _remaker(kind: str) -> Change:
    """It is made anew under its old name."""

    def remake(b: Build) -> None:
        thing = existing(b, kind)
        for _ in range(4):
            alone = ALONE.get(kind)
            made = alone(b, b.second) if alone else ON_TABLES[kind](b, b.second, thing.on or 0)
            b.remove(made)
            if (
                thing.number not in made.uses
                and b.unlike(made, thing)
                and all(n in b.second for n in made.uses)
            ):
                break
        else:
            return
        if kind in ("view", "materialized view", "function", "unique", "primary key"):
            for user in b.second.users(thing.number):
                b.remove(user)
        thing.sql, thing.uses, thing.more, thing.facts, thing.strict = (
            made.sql,
            made.uses,
            made.more,
            made.facts,
            made.strict,
        )

    return remake


EVERYWHERE = (
    "table", "column", "primary key", "unique", "check", "foreign key", "exclusion", "index", "statistics",
    "trigger", "policy", "rule", "enum", "domain", "composite", "sequence", "view", "materialized view",
    "function", "procedure", "generated column", "partitioned table",
)  # fmt: skip
for _kind in EVERYWHERE:
    CHANGES[f"add {_kind}"] = _adder(_kind)
    CHANGES[f"drop {_kind}"] = _dropper(_kind)
    if _kind != "generated column":
        CHANGES[f"rename {_kind}"] = _renamer(_kind)
        CHANGES[f"comment {_kind}"] = _commenter(_kind)
for _kind in (
    "primary key", "unique", "check", "foreign key", "exclusion", "index", "statistics", "trigger", "policy",
    "rule", "sequence", "view", "materialized view", "function", "procedure", "generated column",
):  # fmt: skip
    CHANGES[f"change {_kind}"] = _remaker(_kind)
