"""Types: enums whose values are added, removed or renamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from guvnor.autogenerate import other_objects
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.dependents import Dependents, along, closure
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, execute, todo
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import constant, suffixed
from guvnor.schema import column_ddl, ddl, enum_labels
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import table_of

_BOTH = "The application versions before and after the rename must know both names."


def alter(changes: Changes, shadow: Shadow, alteration: Alteration) -> Iterator[EmittedOperation]:
    """Add values to an enum, rename some, or remove some."""
    before, after = alteration.before, alteration.after
    if "labels" in alteration.names:
        alteration = replace(alteration, names=tuple(n for n in alteration.names if n != "labels"))
        becomes = enum_labels.compare(after, before)
        if not changes.back and (becomes is None or becomes.removed):
            yield todo(Phase.CHANGE, Todo.DIFFERENT_LABELS, type=after.identity)
            return
        renames = enum_labels.renames(after, before)
        # A value is added before or after one that may have just been renamed.
        first = Phase.ENUM_VALUE if becomes and becomes.added else Phase.CHANGE
        yield from emitted(first, renames, _BOTH)
        if becomes is None or becomes.removed:
            yield from _made_anew(changes, before, after, becomes.removed if becomes else ())
        else:
            yield from emitted(Phase.CHANGE, ddl.alter(after, before, ["labels"])[0][len(renames) :])
    yield from other_objects.alter(changes, shadow, alteration)


def _made_anew(
    changes: Changes, before: Object, after: Object, removed: Sequence[str]
) -> Iterator[EmittedOperation]:
    """Recreate an enum without the values that a downgrade removes; it fails if a row holds one of them.

    What depends on the type or on a column of it is dropped first and created again afterwards.
    """
    name, old = after.identity, suffixed(after.name, "_old")
    there = changes.after
    users = [item for item in there.of_kind("column") if _has_type(changes, item, name)]
    columns = {column.handle for column in users}

    def uses_type(item: Object) -> bool:
        # An expression or predicate on the column alone depends on the type as well.
        expression = item.attributes.get("type") == "check" or item.attributes.get("predicate")
        return f"type:{name}" in item.parents or bool(expression and columns & set(item.parents))

    dependents = closure(there, {f"type:{name}", *columns})
    again = {item.handle for item in dependents}
    again |= {i.handle for items in along(dependents, there, there).values() for i in items}
    naming = [i for i in there.of_kind("constraint", "index") if uses_type(i) and i.handle not in again]
    dropped = [made.sql for item in naming for made in ddl.drop(item, online=False) or []]
    retyped = []
    for column in users:
        actions = column_ddl.retype_actions(column, column, cast=True)
        retyped.append(f"ALTER TABLE {table_of(column)} " + ",\n    ".join(actions))
    created = [str(item.sql) for item in naming]
    labels = before.attributes["labels"]
    gone = list(removed) or [label for label in labels if label not in (after.attributes["labels"] or [])]
    tables = ", ".join(sorted({table_of(column) for column in users})) or "nothing"
    statements = [*dropped, f"ALTER TYPE {name} RENAME TO {old}", str(after.sql), *retyped]
    statements += [f"DROP TYPE {old}", *created, *(made.sql for made in ddl.further(after))]
    held = ", ".join(map(constant, gone or labels[:1]))
    when = f"SELECT FROM pg_enum\nWHERE enumtypid = {constant(name)}::regtype AND enumlabel IN ({held})"
    both = Dependents(tuple(dependents), tuple(dependents), along(dependents, there, there))
    yield execute(
        Phase.REMAKE,  # after columns and defaults are dropped
        both.block(statements, when, _refusal(name, gone, users)),
        f"LOCKS {tables} while all rows are written: PostgreSQL cannot remove a value from an enum, so the "
        "type is recreated. If a row holds the value, the statement says so, and nothing is changed.",
        reasons=both.reasons,
    )


def _has_type(changes: Changes, column: Object, name: str) -> bool:
    """Tell whether a column of a table holds values of a type; one that inherits it does not count."""
    relation = changes.after.objects.get(column.parents[0])
    own = relation is not None and relation.kind == "table" and not column.inherited_from
    return own and f"type:{name}" in column.parents and column.attributes["generated"] is None


def _refusal(enum: str, gone: Sequence[str], users: Sequence[Object]) -> str:
    """Return PL/pgSQL that fails when rows hold values that are removed, and counts them by table."""
    if not gone or not users:
        return ""
    values = ", ".join(map(constant, gone))
    counts = []
    for column in users:
        array = str(column.attributes["type"]).endswith("[]")
        holds = f"{column.name}::text[] && ARRAY[{values}]" if array else f"{column.name}::text IN ({values})"
        where = f"{table_of(column)} ({column.name})"
        counts.append(
            f"    SELECT {constant(f'{where}: ')} || count(*) AS line\n"
            f"    FROM {table_of(column)}\n    WHERE {holds}\n    HAVING count(*) > 0"
        )
    what = f"The enum {enum} cannot lose {', '.join(gone)}, which rows still hold: "
    return (
        "SELECT string_agg(found.line, ', ') INTO held\nFROM (\n"
        + "\n    UNION ALL\n".join(counts)
        + "\n) AS found;\nIF held IS NOT NULL THEN\n    RAISE EXCEPTION USING ERRCODE = 'check_violation',\n"
        f"        MESSAGE = {constant(what)} || held,\n"
        "        HINT = 'Give these rows another value, then roll back again.';\nEND IF;\n"
    )
