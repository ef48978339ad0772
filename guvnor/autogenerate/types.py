"""Types: enums whose values are added, removed or renamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from guvnor.autogenerate import other_objects
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, guarded, todo
from guvnor.postgres.quoting import constant, suffixed
from guvnor.schema import column_ddl, ddl
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import statement, table_of, terminated


def alter(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Add values to an enum, rename one, or remove some."""
    before, after = alteration.before, alteration.after
    if ddl.renamed_label(after, before):
        both = "The application versions before and after the rename must know both names."
        yield from other_objects.alter(changes, shadow, alteration, both)
        return
    if "labels" in alteration.names and "labels" in ddl.alter(after, before, ["labels"])[1]:
        alteration = replace(alteration, names=tuple(n for n in alteration.names if n != "labels"))
        if changes.back:
            yield from _made_anew(changes, before, after)
        else:
            yield todo(
                Phase.CHANGE,
                f"the enum {after.identity} loses values or has them in another order: PostgreSQL has to "
                "recreate the type and rewrite each table that uses it, while nobody can use the table. A "
                "value that nobody writes any more can stay in the models.",
            )
    yield from other_objects.alter(changes, shadow, alteration)


def _made_anew(changes: Changes, before: Object, after: Object) -> Iterator[EmittedOperation]:
    """Recreate an enum without the values that a downgrade removes; it fails if a row holds one of them.

    Checks and indexes that use the type are dropped first and created again afterwards.
    """
    name, old = after.identity, suffixed(after.name, "_old")
    users = [item for item in changes.after.of_kind("column") if f"type:{name}" in item.parents]
    columns = {column.handle for column in users}

    def uses_type(item: Object) -> bool:
        # An expression or predicate on the column alone depends on the type as well.
        expression = item.attributes.get("type") == "check" or item.attributes.get("predicate")
        return f"type:{name}" in item.parents or bool(expression and columns & set(item.parents))

    there = [i for i in changes.after.of_kind("constraint", "index") if i.handle not in changes.added]
    naming = list(filter(uses_type, there))
    dropped = [made.sql for item in naming for made in ddl.drop(item, online=False) or []]
    retyped = []
    for column in users:
        old_column = changes.before.objects.get(column.handle, column)
        actions = column_ddl.retype_actions(old_column, column, cast=True)
        retyped.append(f"ALTER TABLE {table_of(column)} " + ",\n    ".join(actions))
    again = [f"{item.sql}{' NOT VALID' if item.attributes.get('validated') else ''}" for item in naming]
    labels = before.attributes["labels"]
    gone = [label for label in labels if label not in (after.attributes["labels"] or [])]
    held = ", ".join(map(constant, gone or labels[:1]))
    tables = ", ".join(sorted({table_of(column) for column in users})) or "nothing"
    further = (made.sql for made in ddl.further(after))
    statements = [*dropped, f"ALTER TYPE {name} RENAME TO {old}", str(after.sql), *retyped]
    statements += [f"DROP TYPE {old}", *again, *further]
    when = f"SELECT FROM pg_enum\nWHERE enumtypid = {constant(name)}::regtype AND enumlabel IN ({held})"
    yield guarded(
        Phase.DROP,  # after columns and defaults are dropped
        statement(terminated(statements), when=when),
        f"LOCKS {tables} while all rows are written: PostgreSQL cannot remove a value from an enum, so the "
        "type is recreated. If a row holds the value, the statement fails and nothing is changed.",
    )
    checks = [item for item in naming if item.attributes.get("validated")]
    yield from emitted(Phase.DROP, map(ddl.validate, checks))
