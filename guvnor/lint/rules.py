"""All rules of this project, in the order in which they are explained."""

from __future__ import annotations

from guvnor.lint import files_rules, ignores, python_rules, sql_rules, squawk_rules
from guvnor.lint.sql_rules import READABLE

REVISION_RULES = sql_rules.RULES + python_rules.RULES
FILES_RULES = files_rules.RULES

__all__ = ["FILES_RULES", "READABLE", "REVISION_RULES", "names"]


def names() -> set[str]:
    """Return the names of all rules, those of squawk included."""
    ours = {rule.name for rule in (*REVISION_RULES, *FILES_RULES)}
    return ours | {rule.name for rule in squawk_rules.RULES} | {ignores.RULE}
