"""Values to try in a column; the server says which of them the table accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Type:
    """The type of a column.

    :ivar sql: the type in SQL: ``character varying(255)``.
    :ivar is_array: whether it is an array; the attributes below describe its elements.
    :ivar category: the type's ``pg_type.typcategory``.
    :ivar name: the name of the type that is stored, below any domain.
    :ivar labels: the labels of an enum.
    """

    sql: str
    is_array: bool
    category: str
    name: str
    labels: tuple[str, ...] = ()


# Values by type, where its category is too broad; {n} is the number of the row, from 1.
_BY_NAME: dict[str, tuple[str, ...]] = {
    "uuid": ("00000000-0000-4000-8000-{n:012d}",),
    **dict.fromkeys(("json", "jsonb"), ('{{"row": {n}}}', "{{}}", "[]", '["{n}"]', "{n}", '"{n}"')),
    "bytea": ("row {n}", ""),
    "xml": ("<row>{n}</row>",),
    "macaddr": ("08:00:2b:01:02:{n:02x}",),
    "macaddr8": ("08:00:2b:01:02:03:04:{n:02x}",),
    "tsvector": ("row {n}",),
    "tsquery": ("row",),
    "hstore": ('"row"=>"{n}"', ""),
    "ltree": ("row.number{n}",),
    "cidr": ("192.0.{n}.0/24",),
    "time": ("0{hour}:00", "23:59"),
    "timetz": ("0{hour}:00+00", "23:59+00"),
    "money": ("{n}", "0"),
    **dict.fromkeys(("int4range", "int8range", "numrange"), ("[{n}0,{n}5)", "empty")),
    **dict.fromkeys(
        ("daterange", "tsrange", "tstzrange"), ("[2026-01-{day:02d},2026-01-{next:02d})", "empty")
    ),
    "point": ("({n},{n})",),
    "line": ("{{1,-1,{n}}}",),
    "lseg": ("(0,0),({n},{n})",),
    "box": ("({n},{n}),(0,0)",),
    "path": ("((0,0),({n},{n}))",),
    "polygon": ("((0,0),(0,{n}),({n},{n}))",),
    "circle": ("<(0,0),{n}>",),
}

_BY_CATEGORY: dict[str, tuple[str, ...]] = {
    "B": ("true", "false"),
    "D": ("2026-01-{day:02d} 00:00", "2026-01-{day:02d} 06:00", "2026-02-01", "2030-01-01", "2000-01-01"),
    "I": ("192.0.2.{n}",),
    "N": ("{n}", "0", "1", "10", "100", "0.5", "-1"),
    "S": (
        "{column} {n}", "{column}{n}", "a{n}", "ABC{n}", "{n}", "ada{n}@example.org",
        "https://example.org/{n}", "+4930123456{n}", "Europe/Berlin", "UTC", "en",
        "00000000-0000-4000-8000-{n:012d}", "#00000{hour}", "",
    ),
    "T": ("{n} hours", "0", "1 day"),
    "V": ("1", "0", "{bits}"),
}  # fmt: skip


def values(kind: Type, column: str, number: int, hints: Iterable[str]) -> list[str]:
    """Return values to try, the likeliest first, as text that the server casts to the type.

    :param column: the name of the column, with which texts begin.
    :param number: the number of the row; rows get different values where the type has enough of them.
    :param hints: definitions of checks on the column, which may contain values that it accepts.
    """
    if kind.is_array:
        elements = values(replace(kind, is_array=False), column, number, ())[:3]
        escaped = [element.replace("\\", "\\\\").replace('"', '\\"') for element in elements]
        return [*(f'{{"{element}"}}' for element in escaped), "{}"]
    if kind.category == "E":
        return _rotated(kind.labels, number)
    day = 1 + number % 27
    words = {
        "n": number,
        "column": column,
        "day": day,
        "next": day + 1,
        "hour": number % 10,
        "bits": f"{number % 256:08b}",
    }
    patterns = _BY_NAME.get(kind.name) or _BY_CATEGORY.get(kind.category, ())
    own = [pattern.format(**words) for pattern in patterns]
    hinted = [word for hint in hints for word in _words(hint, number)]
    return list(dict.fromkeys((*own[:1], *_rotated(hinted, number), *own[1:])))


def _words(definition: str, row: int) -> list[str]:
    """Return possible values from a check's definition: quoted words, numbers and their neighbors."""
    found = [word.replace("''", "'") for word in re.findall(r"'((?:[^']|'')*)'", definition)]
    for number in re.findall(r"(?<![\w.'])\d{1,9}(?![\w'])", definition):
        found += [number, str(int(number) + row), str(int(number) + 1), str(int(number) - 1)]
    return found


def _rotated(items: Iterable[str], number: int) -> list[str]:
    """Begin with a different item for each row, so that rows differ."""
    listed = list(dict.fromkeys(items))
    start = number % len(listed) if listed else 0
    return listed[start:] + listed[:start]
