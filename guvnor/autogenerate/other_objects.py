"""Objects for which ``guvnor.schema.ddl`` has the statements: when they run, and what a person has to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guvnor.autogenerate import retyped_columns
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, emitted, todo
from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import constant
from guvnor.schema import ddl, inheritance
from guvnor.schema.shadow import Shadow
from guvnor.schema.snapshot import Object
from guvnor.schema.statement import Statement, statement, table_of

# Objects that name columns or functions: they are created after those are changed, and dropped before.
_ATTACHED = ("trigger", "policy", "rule", "view", "materialized view", "statistics")
_OF_TABLES = ("table", "column", "constraint", "index", "type")

_WAS_THERE = (
    "Delete this where the extension may have been there before. It fails while anything depends on it."
)
_TIES = {
    "ban-drop-constraint": "it is added again, and uses the index that takes over.",
    "require-concurrent-index-deletion": "a foreign key moves from it to the index that takes over.",
}
"""Why a drop breaks rules of lint where a foreign key stays that uses what is dropped."""

_WITH_INDEX = ("unique", "primary key", "exclusion")
_AGAIN = {"ban-drop-constraint": "it is added again, for the new type of its column."}

# Attributes with long values, which the statement shows anyway.
_LONG = ("definition", "body", "sql body")


def add(changes: Changes, _shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Create an object; on a table in use, what takes long is done while the application keeps running."""
    own = changes.comes_with_table(item)
    if own and item.kind == "constraint":
        return  # CREATE TABLE creates it
    renamed = changes.by_new_name(item)
    item = renamed or item
    beside = takes_name(changes, item)
    statements = ddl.create(item, in_use=not own, beside=beside)
    phase = (
        Phase.ATTACH if (item.kind in _ATTACHED and not own) or _needs_change(changes, item) else Phase.CREATE
    )
    phase = Phase.RENAMED if renamed else phase
    phase = Phase.DETACH if item.kind == "extension" else phase  # before whatever it brings is used
    if item.kind == "constraint":
        phase = _phase_of_key(changes, item)
    elif own and changes.added[item.parents[0]].kind in ("view", "materialized view"):
        phase = Phase.ATTACH
    if statements is None:
        yield todo(Phase.CREATE, Todo.NO_STATEMENT, item=str(item))
    elif item.kind == "constraint" and ddl.locks_writers(item):
        facts = {"constraint": str(item), "table": table_of(item)}
        more = [made.sql for made in ddl.further(item)]
        keys = {"unique": "add_unique_constraint", "primary key": "add_primary_key"}
        operation = keys.get(item.attributes["type"])
        if operation and ddl.is_partitioned(str(item.attributes["index"]), item):
            yield todo(phase, Todo.PARTITIONED_KEY, [str(item.sql), *more], operation=operation, **facts)
        else:
            yield todo(phase, Todo.BLOCKS_WRITERS, [str(item.sql), *more], **facts)
    elif beside:
        yield from emitted(phase, statements[:1])
        yield from emitted(Phase.TAKE_NAME, statements[1:])
    elif item.kind == "sequence":  # the column that owns it comes after it
        yield from emitted(phase, statements[:1])
        yield from emitted(Phase.ATTACH, statements[1:])
        yield from emitted(Phase.ATTACH, _continued(changes, item))
    else:
        yield from emitted(phase, statements)


def drop(changes: Changes, shadow: Shadow, item: Object) -> Iterator[EmittedOperation]:
    """Drop an object, unless it goes along with another one."""
    goes_along = changes.goes_along(item)
    if item.kind == "constraint" and item.attributes["type"] == "foreign key":
        # It prevents dropping the object that it refers to, even where its own column is dropped, too.
        goes_along = item.parents[0] in changes.dropped and not changes.reversed.refers_to_later(item)
    first = retyped_columns.goes_first(changes, shadow, item) and not _keys_that_use(changes, item)
    if goes_along and not first:
        return
    statements = ddl.drop(item) or []
    if item.kind == "extension" and changes.back:
        yield from emitted(Phase.UNLOAD, statements, _WAS_THERE)
    elif item.kind == "extension":
        yield todo(Phase.LEAVE, Todo.EXTENSION_STAYS, extension=item.identity)
    else:
        phase, reasons = _phase_of_drop(changes, item), None
        if first:
            phase, reasons = Phase.DETACH, retyped_columns.GOES_FIRST
        users, to_come = _keys_that_use(changes, item), _keys_to_come(changes, item)
        phase = Phase.UNTIE if users else phase  # the keys are validated before the last transaction
        phase = Phase.FINISH if to_come else phase
        for key in users:
            yield from emitted(phase, ddl.drop(key) or [], reasons=_TIES)
        if item.kind == "index" and (
            users or to_come or reasons
        ):  # online, it would be a moment without the key
            statements = [statement(f"DROP INDEX IF EXISTS {item.name}")]
            reasons = reasons or _TIES
        yield from emitted(phase, statements, reasons=reasons)
        for key in users:
            yield from emitted(phase, ddl.create(key) or [])


def alter(
    changes: Changes, shadow: Shadow, alteration: Alteration, *remarks: str
) -> Iterator[EmittedOperation]:
    """Alter an object, or replace it."""
    before, after = alteration.before, alteration.after
    renamed = changes.by_new_name(after)
    after = renamed or after
    phase = Phase.ATTACH if after.kind in _ATTACHED or _needs_change(changes, after) else Phase.CREATE
    phase = Phase.CHANGE if after.kind in _OF_TABLES else phase
    phase = Phase.RENAMED if renamed else phase
    phase = _phase_of_key(changes, after) if after.kind == "constraint" else phase
    statements, left = ddl.alter(after, before, alteration.names)
    remade = after.kind == "constraint" and phase is Phase.ATTACH and ddl.DEFINING & set(alteration.names)
    if remade and retyped_columns.goes_first(changes, shadow, before):
        yield from emitted(Phase.DETACH, ddl.drop(before) or [], reasons=_AGAIN)
    users = _keys_that_use(changes, after) if after.handle in _replaced(changes) else []
    reasons = None
    if (
        after.kind == "index"
        and (users or _keys_to_come(changes, before))
        and _is_built_anew(alteration, left)
    ):
        # A key uses the first index that fits: the old one has to be gone by then.
        yield from emitted(phase, statements[:1])
        gone = statement(f"DROP INDEX IF EXISTS {after.name}")
        phase, statements, reasons = Phase.FINISH, [gone, *statements[2:]], _TIES
    for key in users:
        yield from emitted(Phase.FINISH, ddl.drop(key) or [], reasons=_TIES)
    yield from emitted(phase, statements, *remarks, reasons=reasons)
    for key in users:
        yield from emitted(Phase.FINISH, ddl.create(key) or [])
    if left:
        what = "; ".join(_changed(alteration, name) for name in left)
        yield todo(phase, Todo.ATTRIBUTES, [after.sql or ""], changes=what)


def _phase_of_drop(changes: Changes, item: Object) -> Phase:
    """Return when an object is dropped: as late as possible, but not while another one needs it."""
    if item.kind in ("trigger", "policy", "rule"):
        # Two of them would both act on a row, and for as long as the online steps take.
        same = (new for new in changes.added.values() if new.kind == item.kind)
        return Phase.SWAP if any(_same_table(new, item) for new in same) else Phase.UNTIE
    if item.attributes.get("type") == "foreign key" and not _replaced(changes).isdisjoint(item.parents):
        return Phase.FINISH  # it prevents the change of the constraint that it uses
    if item.kind in _ATTACHED or item.attributes.get("type") == "foreign key":
        return Phase.UNTIE
    depends_on_view = {p for p in item.parents if p in changes.dropped and "view" in changes.dropped[p].kind}
    return Phase.UNTIE if depends_on_view and item.kind != "index" else Phase.DROP


def _phase_of_key(changes: Changes, constraint: Object) -> Phase:
    """Return when a constraint is added or altered: a foreign key after the index that it needs."""
    change = Phase.ATTACH if retyped_columns.comes_later(changes, constraint) else Phase.CHANGE
    if constraint.attributes["type"] != "foreign key":
        return change
    replaced = _replaced(changes)
    gone = [*changes.dropped.values(), *(a.before for a in changes.altered if a.after.handle in replaced)]
    if not replaced.isdisjoint(constraint.parents) or any(
        constraint in _keys_to_come(changes, item) for item in gone
    ):
        return Phase.UNTIE
    unique = (p for p in constraint.parents if p.startswith(("constraint:", "index:")))
    return Phase.FINISH if any(p in changes.added for p in unique) else change


def _replaced(changes: Changes) -> set[str]:
    """Return the handles of the unique constraints and indexes that make place for others of their name."""
    return {
        alteration.after.handle
        for alteration in changes.altered
        if alteration.after.kind in ("constraint", "index") and ddl.DEFINING & set(alteration.names)
    }


def _keys_that_use(changes: Changes, item: Object) -> list[Object]:
    """Return the foreign keys that stay, and that use an index or unique constraint which is dropped."""
    if item.kind != "index" and item.attributes.get("type") not in ("unique", "primary key"):
        return []
    return [
        key
        for key in inheritance.own_objects(changes.after.of_kind("constraint"))
        if (there := changes.before.objects.get(key.handle)) is not None and item.handle in there.parents
    ]


def _keys_to_come(changes: Changes, item: Object) -> list[Object]:
    """Return the foreign keys that are added, and could use an index or constraint that makes place.

    The server takes the first one that fits.
    """
    if not item.attributes.get("unique") and item.attributes.get("type") not in ("unique", "primary key"):
        return []
    columns = {parent for parent in item.parents if parent.startswith("column:")}
    keys = (new for new in changes.added.values() if new.attributes.get("type") == "foreign key")
    return [key for key in keys if not columns.isdisjoint(_referred(key))]


def _referred(key: Object) -> Sequence[str]:
    """Return the handles of the table that a foreign key refers to, and of the columns there."""
    tables = [place for place, parent in enumerate(key.parents) if parent.startswith("relation:")]
    return key.parents[tables[-1] :]


def _is_built_anew(alteration: Alteration, left: list[str]) -> bool:
    """Tell whether an index is built under another name, and replaces the old one afterwards."""
    return "definition" in alteration.names and "definition" not in left


def takes_name(changes: Changes, item: Object) -> bool:
    """Tell whether a new object with an index takes the place of one that is dropped, which comes later.

    Either they have the same name, or they are primary keys of one table.
    """
    kind = item.attributes.get("type")
    if item.kind != "index" and kind not in _WITH_INDEX[: 3 if changes.comes_with_table(item) else 2]:
        return False
    return any(
        gone.name == item.name
        or (kind == "primary key" == gone.attributes.get("type") and _same_table(gone, item))
        for gone in changes.dropped.values()
        if gone.kind == "index" or gone.attributes.get("type") in _WITH_INDEX
    )


def _same_table(one: Object, other: Object) -> bool:
    return one.parents[:1] == other.parents[:1]


def _needs_change(changes: Changes, item: Object) -> bool:
    """Tell whether an object needs a column or view that is added, or is changed, only after new objects."""
    changed = {a.after.handle for a in changes.altered if a.after.kind in ("column", "view")}
    added = {
        key
        for key, new in changes.added.items()
        if new.kind in _ATTACHED or (new.kind == "column" and not changes.comes_with_table(new))
    }
    return item.kind in ("function", "procedure") and not (changed | added).isdisjoint(item.parents)


def _continued(changes: Changes, sequence: Object) -> list[Statement]:
    """Return the statement that lets a new sequence go on after the numbers that a column holds already."""
    owner = next((changes.after.objects[p] for p in sequence.parents if p.startswith("column:")), None)
    if owner is None or owner.handle in changes.added or owner.handle not in changes.before.objects:
        return []
    last = "min" if sequence.attributes["increment"] < 0 else "max"
    return [
        statement(
            f"SELECT setval({constant(sequence.name)}, {last}({owner.name}))",
            f"FROM {table_of(owner)}",
            f"HAVING {last}({owner.name}) IS NOT NULL AND NOT (SELECT is_called FROM {sequence.name})",
        )
    ]


def _changed(alteration: Alteration, name: str) -> str:
    sides = alteration.before, alteration.after
    before, after = (side.kind if name == "kind" else side.attributes.get(name) for side in sides)
    values = "" if name in _LONG else f": {before} becomes {after}"
    return f"{name} of the {alteration.after}{values}"
