"""What is slow has a transaction of its own, so that a generated revision holds no other table meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase

_WHY = "So that no other table stays locked while all rows of one are read or written."
_SLOW = re.compile(r"LOCKS (.+?) while ")  # the remark that says so, with the tables


def apart(operations: Iterable[EmittedOperation]) -> list[EmittedOperation]:
    """Return operations in their order, with a new transaction around each that locks tables for long.

    Before it, nothing holds another table; after it, nothing makes it wait for the lock of another one, and
    do its work again. What belongs to its own tables stays with it. An online operation ends a transaction
    anyway.
    """
    found: list[EmittedOperation] = []
    held: list[EmittedOperation] = []  # in the current transaction
    slow: set[str] = set()  # the tables of the statement before
    for operation in sorted(operations, key=lambda found: found.phase):
        tables = _locked_for_long(operation)
        if operation.name != "execute":
            found, held = [*found, *held, operation], []
        elif (slow and not _is_about(operation, slow)) or (
            tables and not all(_is_about(other, tables) for other in held)
        ):
            # What prevents the change is dropped together with it.
            along = [o for o in held if tables and o.phase is Phase.DETACH and _is_about(o, tables)]
            before = [other for other in held if other not in along]
            phase = operation.phase
            ends = EmittedOperation(phase, "next_transaction", (), remarks=(_WHY,))
            found += [*before, ends] if before else []
            held = [*(replace(other, phase=phase) for other in along), operation]
        else:
            held.append(operation)
        slow = tables or (slow if operation in held else set())
    return [*found, *held]


def _locked_for_long(operation: EmittedOperation) -> set[str]:
    said = [match[1] for remark in operation.remarks if (match := _SLOW.match(remark))]
    return {table for tables in said for table in tables.split(", ")}


def _is_about(operation: EmittedOperation, tables: set[str]) -> bool:
    sql = operation.arguments[0]
    return any(re.search(rf"(?<!\w){re.escape(table)}(?!\w)", sql) for table in tables)
