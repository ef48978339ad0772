"""The labels of an enum: what becomes of them, and the SQL for it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from guvnor.postgres.quoting import constant, unquoted
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import Statement, statement


@dataclass(frozen=True)
class LabelChanges:
    """What becomes of the labels of an enum.

    :ivar renamed: pairs of the new and the old name.
    """

    renamed: tuple[tuple[str, str], ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def compare(expected: Object, actual: Object) -> LabelChanges | None:
    """Return what makes the labels of an enum what they should be; None when that cannot be told.

    A label in the place of another one is that label under another name: PostgreSQL can rename a label, but
    not remove it.
    """
    wanted, there = expected.attributes.get("labels") or [], actual.attributes.get("labels") or []
    renamed: list[tuple[str, str]] = []
    added: list[str] = []
    removed: list[str] = []
    for _, i, j, k, m in SequenceMatcher(None, there, wanted, autojunk=False).get_opcodes():
        old, new = there[i:j], wanted[k:m]
        if old == new:
            continue
        if len(old) == len(new):
            renamed += list(zip(new, old, strict=True))
        elif old and new:
            return None
        added += new if not old else []
        removed += old if not new else []
    fresh, gone = {*added, *(new for new, _ in renamed)}, {*removed, *(old for _, old in renamed)}
    if fresh & set(there) or gone & set(wanted):
        return None  # in another order
    return LabelChanges(tuple(renamed), tuple(added), tuple(removed))


def renames(expected: Object, actual: Object) -> list[Statement]:
    """Return the statements that rename labels of an enum."""
    changes, name = compare(expected, actual), expected.identity
    statements = []
    for pair in changes.renamed if changes else ():
        new, old = map(constant, pair)
        when = f"SELECT FROM pg_enum\nWHERE enumtypid = {constant(name)}::regtype AND enumlabel = {old}"
        statements.append(statement(f"ALTER TYPE {name} RENAME VALUE {old} TO {new}", when=when))
    return statements


def alter(expected: Object, actual: Object) -> list[Statement] | None:
    """Rename labels and add the missing ones; None when labels must be removed or reordered."""
    name, wanted = expected.identity, expected.attributes["labels"] or []
    changes = compare(expected, actual)
    if changes is None or changes.removed:
        return None
    statements = renames(expected, actual)
    old = [label for label in wanted if label not in changes.added]
    for number, label in enumerate(wanted):
        if label in changes.added:
            word, neighbor = ("AFTER", wanted[number - 1]) if number else ("BEFORE", old[0])
            sql = f"ALTER TYPE {name} ADD VALUE {constant(label)} {word} {constant(neighbor)}"
            operation = ("add_enum_value", unquoted(name), label)
            statements.append(statement(sql, operation=operation, keywords={word.lower(): neighbor}))
    return statements
