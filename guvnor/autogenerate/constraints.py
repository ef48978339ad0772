"""Constraints and indexes of tables that the application uses: added, altered and dropped."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.autogenerate.changes import Alteration, Changes, bare_name, unquoted
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, call, execute, guarded, todo
from guvnor.postgres.quoting import constant, suffixed
from guvnor.schema import reconcile
from guvnor.schema.reconcile import extras, own_name, table_of
from guvnor.schema.snapshot import Object


def add(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Add a constraint: one that is validated, or whose index is built, while the application goes on."""
    if changes.comes_with_table(item):
        return
    kind, table, name = item.attributes["type"], table_of(item), own_name(item)
    if kind in ("check", "foreign key"):
        definition = str(item.attributes["definition"])
        validated = item.attributes["validated"]
        # A foreign key may refer to a unique constraint that is only there at the end.
        late = kind == "foreign key" and any(
            parent in changes.added and parent.startswith(("constraint:", "index:"))
            for parent in item.parents
        )
        statement = (
            f"ALTER TABLE {table}\nADD CONSTRAINT {name}\n{definition}{' NOT VALID' if validated else ''}"
        )
        yield guarded(Phase.FINISH if late else Phase.CHANGE, _is_there(item), [statement, *extras(item)])
        if validated:
            yield _validate(item, Phase.VALIDATE_LAST if late else Phase.VALIDATE)
    elif (sql := changes.indexes_after.get(item.handle)) and not _is_partitioned(changes, item):
        yield _build(item, sql, own_name(item))
        yield guarded(
            Phase.FINISH, _is_there(item), [f"ALTER TABLE {table} {_using(item, name)}", *extras(item)]
        )
    else:
        yield todo(
            Phase.CHANGE,
            f"{item} cannot be added to {table} without locking writers out. Where the table is small, take "
            "this:",
            [str(item.sql)],
        )


def drop(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop a constraint."""
    table_goes = item.parents[0] in changes.dropped
    # A foreign key is in the way of dropping what it refers to, even where its own column goes as well.
    if item.attributes["type"] == "foreign key":
        goes_along = table_goes and not changes.reversed.refers_to_later(item)
    else:
        goes_along = changes.goes_along(item)
    if not goes_along:
        statement = _dropped(item)
        yield execute(
            Phase.DETACH, statement.replace("TABLE", "TABLE IF EXISTS", 1) if table_goes else statement
        )


def alter(changes: Changes, _probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Put a constraint in the place of another one; new rows are checked at every moment."""
    before, after = alteration.before, alteration.after
    names = set(alteration.names)
    kind, name = after.attributes["type"], own_name(after)
    if names == {"validated", "definition"} and reconcile.only_to_validate(after, before):
        yield _validate(after, Phase.VALIDATE)
        return
    if names & {"definition", "type", "validated", "deferrable", "initially deferred"}:
        names = {"comment"} & names
        if kind in ("check", "foreign key"):
            definition = str(after.attributes["definition"])
            marked = " NOT VALID" if after.attributes["validated"] else ""
            yield execute(
                Phase.CHANGE,
                f"{_dropped(before)},\n    ADD CONSTRAINT {name} {definition}{marked}",
                *added_again(changes),
            )
            if after.attributes["validated"]:
                yield _validate(after, Phase.VALIDATE)
        elif (sql := changes.indexes_after.get(after.handle)) and not _is_partitioned(changes, after):
            yield _build(after, sql, beside(after))
            yield guarded(
                Phase.FINISH,
                f"EXISTS FROM pg_class\nWHERE relname = {constant(unquoted(beside(after)))}\n"
                "  AND relnamespace = current_schema()::regnamespace",
                [f"{_dropped(before)},\n    {_using(after, beside(after))}"],
                *added_again(changes),
            )
        else:
            yield todo(Phase.CHANGE, f"{after} becomes another one.", [_dropped(before), str(after.sql)])
    yield from _others(alteration, names)


def added_again(changes: Changes) -> list[str]:
    """Return what to say to lint, which finds drops on the way forward, where nothing is lost by one."""
    return [] if changes.back else ["lint: ignore ban-drop-constraint: its statement adds it again"]


def add_index(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Build an index; on a table that is there already, while the application goes on."""
    if changes.comes_with_table(item):
        relation = changes.added[item.parents[0]]
        phase = Phase.ATTACH if relation.kind == "materialized view" else Phase.CREATE
        statement = str(item.sql).replace("INDEX ", "INDEX IF NOT EXISTS ", 1)
        yield execute(phase, _split(item, statement))
        yield from (execute(phase, statement) for statement in extras(item))
    elif _is_partitioned(changes, item):
        yield _by_hand(item, [_with_partitions(item)])
    else:
        yield _build(item, str(item.sql), own_name(item))
        yield from (execute(Phase.FINISH, statement) for statement in extras(item))


def drop_index(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop an index while the application goes on."""
    if changes.goes_along(item):
        return
    if _is_partitioned(changes, item):
        yield _by_hand(item, [f"DROP INDEX {own_name(item)}"])
    else:
        yield call(Phase.DROP_ONLINE, "drop_index_concurrently", bare_name(item))


def alter_index(changes: Changes, _probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Build the new index beside the old one, which is dropped afterwards."""
    after = alteration.after
    names = set(alteration.names)
    name, other = own_name(after), beside(after)
    if "definition" in names and _is_partitioned(changes, after):
        names &= {"comment"}
        yield _by_hand(after, [f"DROP INDEX {name}", _with_partitions(after)])
    elif "definition" in names:
        names &= {"comment"}
        yield _build(after, str(after.sql), other)
        yield call(Phase.DROP_ONLINE, "drop_index_concurrently", bare_name(after))
        yield guarded(
            Phase.FINISH,
            f"EXISTS FROM pg_class\nWHERE relname = {constant(unquoted(other))}\n"
            "  AND relnamespace = current_schema()::regnamespace",
            [f"ALTER INDEX {other} RENAME TO {name}", *extras(after)],
            "lint: ignore renaming-object: it takes the name of the index that it replaces",
        )
    elif names == {"valid"} and after.attributes["valid"]:
        names.clear()
        yield _build(after, str(after.sql), name)
    yield from _others(alteration, names)


def _others(alteration: Alteration, names: set[str]) -> Iterator[Step]:
    for attribute in sorted(names):
        statements = reconcile.alterations(alteration.after, alteration.before, [attribute])
        if statements is None:
            yield todo(Phase.FINISH, f"{attribute} of the {alteration.after}.")
        else:
            yield from (execute(Phase.FINISH, statement) for statement in statements)


def _validate(item: Object, phase: Phase) -> Step:
    return call(phase, "validate_constraint", unquoted(table_of(item)), bare_name(item))


def _build(item: Object, sql: str, name: str) -> Step:
    """Return the step that builds an index concurrently under a name."""
    named = sql.replace(f"INDEX {own_name(item)} ON", f"INDEX {name} ON", 1)
    concurrently = named.replace("INDEX ", "INDEX CONCURRENTLY IF NOT EXISTS ", 1)
    return call(
        Phase.BUILD, "create_index_concurrently", unquoted(name), _split(item, concurrently, always=True)
    )


def _split(item: Object, sql: str, *, always: bool = False) -> str:
    """Set the parts of a long CREATE INDEX on lines of their own."""
    lines = sql.replace(f" ON {table_of(item)} USING btree ", f" ON {table_of(item)} ", 1)
    if always or len(lines) > 80:
        lines = lines.replace(f" ON {table_of(item)} ", f"\nON {table_of(item)} ", 1)
        predicate = item.attributes.get("predicate")
        if predicate and len(lines.splitlines()[-1]) > 80:
            lines = lines.replace(f" WHERE {predicate}", f"\nWHERE {predicate}")
    return lines


def beside(item: Object, suffix: str = "_new") -> str:
    """Return the name of what stands beside an object for a while, as SQL writes it.

    :param suffix: what its name ends with.
    """
    return suffixed(own_name(item), suffix)


def _using(item: Object, index: str) -> str:
    """Return what adds a constraint that takes an index over."""
    kind = str(item.attributes["type"]).upper()
    deferred = " DEFERRABLE" if item.attributes["deferrable"] else ""
    deferred += " INITIALLY DEFERRED" if item.attributes["initially deferred"] else ""
    return f"ADD CONSTRAINT {own_name(item)} {kind} USING INDEX {index}{deferred}"


def _dropped(item: Object) -> str:
    return f"ALTER TABLE {table_of(item)} DROP CONSTRAINT IF EXISTS {own_name(item)}"


def _is_there(item: Object) -> str:
    return (
        f"FROM pg_constraint\nWHERE conrelid = {constant(table_of(item))}::regclass AND conname = "
        f"{constant(bare_name(item))}"
    )


def _by_hand(item: Object, statements: list[str]) -> Step:
    return todo(
        Phase.BUILD,
        f"the {item} is of a partitioned table: the server neither builds nor drops it concurrently. "
        "Build it on each partition and attach it. Where the table is small, take this:",
        statements,
    )


def _with_partitions(item: Object) -> str:
    """Return the statement that makes an index of a partitioned table and of all its partitions."""
    return str(item.sql).replace(" ON ONLY ", " ON ", 1)


def _is_partitioned(changes: Changes, item: Object) -> bool:
    table = changes.after.get(item.parents[0])
    return table is not None and table.attributes.get("partition key") is not None
