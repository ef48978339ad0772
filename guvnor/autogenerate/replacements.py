"""Changes that other objects prevent: made in one statement that also drops and creates those objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from guvnor.autogenerate import generated
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.dependents import Replacement
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, execute, todo
from guvnor.autogenerate.tables import DONE_WITH_TYPE, Retyping, retyping
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import constant, unquoted
from guvnor.schema import column_ddl, ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.statement import table_of


def rest(alteration: Alteration) -> Alteration:
    """Return what is left of an alteration that is made together with others."""
    whole = alteration.after.kind != "column" or generated.is_computed_anew(alteration)
    names = () if whole else alteration.names
    return replace(alteration, names=tuple(name for name in names if name not in DONE_WITH_TYPE))


def replace_together(changes: Changes, shadow: Shadow, group: Replacement) -> Iterator[EmittedOperation]:
    """Make the changes of a group; where that takes long, a person has to decide on the upgrade."""
    dependents = group.dependents
    computed = [
        a for a in group.columns if a.after.attributes["generated"] or a.before.attributes["generated"]
    ]
    if len(group.columns) == 1 and generated.is_computed_anew(group.columns[0]):
        yield from generated.alter(changes, shadow, group.columns[0], dependents)
        return
    if computed:
        column = computed[0].after
        kind = column_ddl.type_of(column.attributes)
        yield todo(
            Phase.REPLACE, Todo.GENERATED_TYPE, dependents.around([]), column=column.identity, type=kind
        )
        return
    columns = [retyping(changes, shadow, alteration, dependents) for alteration in group.columns]
    statements = [sql for column in columns for sql in column.statements]
    slow = sorted((column for column in columns if column.touches), key=lambda column: not column.loses)
    question = " ".join(column.question for column in columns if column.question)
    stored = [item for item in dependents.after if item.kind == "materialized view"]
    if not changes.back and slow:
        together = replace(
            slow[0], sql="\n".join(f"{sql};" for sql in statements), again=(), question=question
        )
        yield together.left_to_a_person(Phase.REPLACE, dependents)
        return
    if not changes.back and stored:
        yield todo(Phase.REPLACE, Todo.BUILDS_VIEW, dependents.around(statements), view=str(stored[0]))
        return
    remarks = list(dict.fromkeys(remark for column in columns for remark in column.remarks))
    remarks += dependents.losses
    if stored:
        remarks.append(f"LOCKS {stored[0].identity} while it is built anew from all its rows.")
    yield execute(
        Phase.REPLACE,
        dependents.block(statements, _still_of_another_type(columns)),
        *remarks,
        reasons=dependents.reasons,
    )
    yield from emitted(Phase.REPLACE, [ddl.validate(check) for column in columns for check in column.checks])


def _still_of_another_type(columns: list[Retyping]) -> str:
    """Return a query that finds a column whose type is still to be changed; empty without columns."""
    if any("collation" in column.alteration.names for column in columns):
        return ""
    return "\nUNION ALL\n".join(
        f"SELECT FROM pg_attribute\nWHERE attrelid = {constant(table_of(item))}::regclass"
        f" AND attname = {constant(unquoted(item.name))}\n"
        f"  AND format_type(atttypid, atttypmod) <> {constant(item.attributes['type'])}"
        for item in (column.alteration.after for column in columns)
    )
