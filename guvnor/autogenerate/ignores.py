"""The ignores of lint in a generated revision: what autogenerate writes on purpose carries its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from guvnor.autogenerate.emitted_operations import EmittedOperation

OPTION = "guvnor_lint"  # the option of the migration context that holds the judge

Judge = Callable[[str, str], Sequence[tuple[str, int, str]]]
"""Takes the bodies of both functions; returns direction, line from 0 and rule of each problem of lint."""

_GONE = "the models no longer have it. Deploy this when no running version of the application needs it."
_ASKED = "the models ask for it."
_LOCKED = "the models ask for it, and there is no way without the lock."
_REASONS = {
    **dict.fromkeys(
        (
            f"ban-drop-{kind}"
            for kind in ("column", "table", "view", "function", "type", "sequence", "domain")
        ),
        _GONE,
    ),
    "ban-drop-constraint": "the models no longer have it: from then on, other rows are accepted.",
    "ban-drop-not-null": "the models allow NULL. Deploy this when every running version can read it.",
    "ban-drop-default": "the models have no default. Deploy this when every running version gives a value.",
    "ban-drop-generated-expression": "the models no longer compute it.",
    "renaming-object": "the models give it this name.",
    "renaming-column": "the models rename it, which breaks the running version, as is said above.",
    "renaming-table": "the models rename it, which breaks the running version, as is said above.",
    "ban-alter-identity": _ASKED,
    "ban-set-schema": _ASKED,
    "ban-char-field": _ASKED,
    "prefer-timestamp-tz": _ASKED,
    "prefer-identity": _ASKED,
    "ban-create-domain-with-constraint": _ASKED,
    "ban-alter-domain-with-add-constraint": _ASKED,
    "triggers-stay-on": "the models have it switched off.",
    "changing-column-type": _LOCKED,
    "no-table-rewrite": _LOCKED,
    "no-read-under-lock": _LOCKED,
    "no-lock-held": "the statements depend on each other in this order.",
}
_BACK = "this is the way back to what was there before."
# In a downgrade, also what must happen under a lock that is taken anyway.
_OF_DOWNGRADES = (
    "constraint-missing-not-valid", "require-concurrent-index-creation", "require-concurrent-index-deletion",
    "disallowed-unique-constraint", "adding-serial-primary-key-field",
)  # fmt: skip
_REASONS_BACK = dict.fromkeys((*_REASONS, *_OF_DOWNGRADES), _BACK)


def explained(
    forward: Sequence[EmittedOperation], back: Sequence[EmittedOperation], judge: Judge
) -> tuple[list[EmittedOperation], list[EmittedOperation]]:
    """Add to each operation the ignores that it needs.

    An operation may know a better reason. A rule that is listed neither there nor here is not ignored: what
    breaks it is a fault of autogenerate.
    """
    ways = {"up": _in_order(forward), "down": _in_order(back)}
    texts = {way: [found.code() for found in operations] for way, operations in ways.items()}
    for way, line, rule in judge("\n".join(texts["up"]), "\n".join(texts["down"])):
        if (place := _at(texts[way], line)) is None:
            continue
        operation = ways[way][place]
        reason = operation.reasons.get(rule) or (_REASONS if way == "up" else _REASONS_BACK).get(rule)
        if reason is None:
            continue
        remark = f"lint: ignore {rule}: {reason}"
        if remark not in operation.remarks:
            ways[way][place] = replace(operation, remarks=(*operation.remarks, remark))
    return ways["up"], ways["down"]


def _in_order(operations: Sequence[EmittedOperation]) -> list[EmittedOperation]:
    return sorted(operations, key=lambda found: found.phase)


def _at(texts: Sequence[str], line: int) -> int | None:
    """Return the number of the text that a line of all texts together belongs to."""
    for place, text in enumerate(texts):
        line -= text.count("\n") + 1
        if line < 0:
            return place
    return None
