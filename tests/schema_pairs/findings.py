"""What the drift check should say of a pair: each difference once, and nothing that only follows from another one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

from guvnor.postgres.quoting import quoted
from tests.schema_pairs.things import IN_TABLES, Schema, Thing

_DETECTED = "Detected: "
_KINDS = {
    **dict.fromkeys(IN_TABLES, "constraint"), **dict.fromkeys(("enum", "domain", "composite"), "type"),
    "partition": "table", "view index": "index",
}  # fmt: skip
_UNDER = ("column", "constraint", "index", "trigger", "policy", "rule")


def titles(said: str) -> list[str]:
    """The differences that autogenerate has logged."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line["msg"].removeprefix(_DETECTED) for line in lines if line["msg"].startswith(_DETECTED)]


def wrong(first: Schema, second: Schema, found: list[str]) -> list[str]:
    """What is said twice, or of things that are the same in both schemas."""
    numbers = {number for schema in (first, second) for number in schema.things}
    changed = {number for number in numbers if _text(first, number) != _text(second, number)}
    known: dict[str, set[int]] = {}
    for number in numbers:
        for called in _called(first, second, number):
            known.setdefault(called, set()).add(number)
    lines = [f"{title} (said {count} times)" for title, count in Counter(found).items() if count > 1]
    for title in found:
        what = title.rpartition(" is ")[0]
        things = known.get(what) or known.get(what.partition("(")[0]) or _functions(known, what)
        if not things:
            lines.append(f"{title} (there is no such thing)")
        elif not things & changed:
            lines.append(f"{title} (it is the same in both)")
    return lines


def _functions(known: dict[str, set[int]], what: str) -> set[int]:
    return {n for called, numbers in known.items() if what.startswith(f"{called}(") for n in numbers}


def _called(first: Schema, second: Schema, number: int) -> Iterator[str]:
    """What a report may call a thing."""
    there = [schema[number] for schema in (first, second) if number in schema]
    for kind in {_KINDS.get(thing.kind, thing.kind) for thing in there}:
        names = {form for thing in there for form in (thing.name, quoted(thing.name))}
        if kind in _UNDER:
            on = there[0].on
            tables = {s[on].name for s in (first, second) if on is not None and on in s}
            above = {form for name in tables for form in (name, quoted(name))}
            names = {f"{table}.{name}" for table, name in itertools.product(above, names)}
        yield from (f"{kind} {name}" for name in names)


def _text(schema: Schema, number: int) -> object:
    """All that makes a thing, with numbers in place of the names of others."""
    if number not in schema:
        return None
    thing = schema[number]
    own = (thing.kind, thing.name, thing.sql, thing.on, thing.uses, thing.more, thing.comment, _facts(thing))
    if thing.kind == "table":  # the order of its columns
        return (*own, tuple(column.number for column in schema.columns(number)))
    return own


def _facts(thing: Thing) -> str:
    left_out = ("nulls", "becomes", "columns", "place")
    return repr(sorted((key, value) for key, value in thing.facts.items() if key not in left_out and value))
