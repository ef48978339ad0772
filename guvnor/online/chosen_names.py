"""The name that the server gives to an index or a constraint that is made without one.

PostgreSQL names the indexes of partitions so, when it makes them with that of their table; so each has the
same name, whichever way it was made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from guvnor.postgres.quoting import LONGEST_NAME


def chosen_name(table: str, columns: Sequence[str], label: str, taken: Collection[str]) -> str:
    """Return the name that ``ChooseIndexName`` of PostgreSQL gives.

    :param table: without quotes.
    :param columns: the names of the index's columns; none for a primary key.
    :param label: what it ends with: ``idx``, ``key`` or ``pkey``.
    :param taken: names that are in use.
    """
    number = 0
    while (name := _made(table, "_".join(columns), f"{label}{number or ''}")) in taken:
        number += 1
    return name


def _made(first: str, second: str, label: str) -> str:
    """Join the parts; where the name is too long, the longer one of the first two is cut."""
    one, two = first.encode(), second.encode()
    room = LONGEST_NAME - len(label.encode()) - 1 - (1 if two else 0)
    long_one, long_two = len(one), len(two)
    while long_one + long_two > room:
        if long_one > long_two:
            long_one -= 1
        else:
            long_two -= 1
    parts = (one[:long_one].decode(errors="ignore"), two[:long_two].decode(errors="ignore"), label)
    return "_".join(filter(None, parts))
