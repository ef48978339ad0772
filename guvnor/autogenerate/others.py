"""Triggers, functions, views and whatever else a schema has: the server's own statement makes each."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.autogenerate.changes import Alteration, Changes, bare_name
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, execute, guarded, todo
from guvnor.postgres.quoting import constant
from guvnor.schema import reconcile
from guvnor.schema.reconcile import extras, own_name, table_of
from guvnor.schema.snapshot import Object

# What looks for an object that has no IF NOT EXISTS: catalog, column of the table and column of the name.
_CATALOGS = {
    "trigger": ("pg_trigger", "tgrelid", "tgname"),
    "policy": ("pg_policy", "polrelid", "polname"),
}
_OR_REPLACE = ("function", "procedure", "view", "rule", "trigger")
_IF_NOT_EXISTS = {
    "sequence": "SEQUENCE",
    "statistics": "STATISTICS",
    "materialized view": "MATERIALIZED VIEW",
}
_ON_TABLE = ("trigger", "policy", "rule")
_ATTACHED = ("trigger", "policy", "rule", "view", "materialized view", "statistics")


def add(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Make an object that no table is made of."""
    own = changes.comes_with_table(item)
    phase = Phase.ATTACH if item.kind in _ATTACHED and not own else Phase.CREATE
    if item.sql is None:
        yield todo(phase, f"the {item} is written by hand.")
    elif item.kind in _CATALOGS:
        catalog, table, name = _CATALOGS[item.kind]
        condition = (
            f"FROM {catalog}\nWHERE {table} = {constant(table_of(item))}::regclass AND {name} = "
            f"{constant(bare_name(item))}"
        )
        # Set apart where the server prints one line.
        statement = item.sql.replace(f" ON {table_of(item)} ", f"\nON {table_of(item)} ", 1)
        yield guarded(phase, condition, [statement, *extras(item)])
    else:
        yield execute(phase, _repeatable(item))
        yield from (execute(phase, statement) for statement in extras(item))
    if item.kind == "sequence" and item.attributes["owned by"]:
        yield execute(Phase.ATTACH, f"ALTER SEQUENCE {item.identity} OWNED BY {item.attributes['owned by']}")


def drop(changes: Changes, _probe: Probe, item: Object) -> Iterator[Step]:
    """Drop an object that no table is made of."""
    if changes.goes_along(item):
        return
    if item.kind == "extension":
        yield todo(Phase.DROP, f"the extension {item.identity} may serve others in this database: it stays.")
        return
    phase = Phase.DETACH if item.kind in _ATTACHED else Phase.DROP
    if any(
        index.kind == "index" and item.handle in index.parents and not changes.goes_along(index)
        for index in changes.dropped.values()
    ):
        phase = Phase.FINISH  # the index is dropped while the application goes on
    target = f"{own_name(item)} ON {table_of(item)}" if item.kind in _ON_TABLE else own_name(item)
    remarks = [f"DATA LOSS: the numbers that {item} has given."] if item.kind == "sequence" else []
    yield execute(phase, f"DROP {item.kind.upper()} IF EXISTS {target}", *remarks)


def alter(changes: Changes, probe: Probe, alteration: Alteration) -> Iterator[Step]:
    """Put an object in the place of another one, or alter it."""
    before, after = alteration.before, alteration.after
    phase = Phase.ATTACH if after.kind in _ATTACHED else Phase.CREATE
    names = [name for name in alteration.names if name != "owner"]
    if after.kind == "view" and "definition" in names and not _fits(changes, after):
        yield execute(Phase.DETACH, f"DROP VIEW IF EXISTS {after.identity}")
        yield from (execute(phase, statement) for statement in (_repeatable(after), *extras(after)))
        return
    if after.kind == "trigger" and set(names) & {"definition", "deferrable", "initially deferred"}:
        names = [name for name in names if name == "state"]
        if str(after.sql).startswith("CREATE CONSTRAINT"):  # it has no OR REPLACE
            yield execute(phase, f"DROP TRIGGER IF EXISTS {own_name(after)} ON {table_of(after)}")
            yield from add(changes, probe, after)
            return
        yield execute(phase, _repeatable(after))
    if after.kind == "policy" and names != ["comment"]:
        yield execute(phase, f"DROP POLICY IF EXISTS {own_name(after)} ON {table_of(after)}")
        yield execute(phase, str(after.sql))
        yield from (execute(phase, statement) for statement in extras(after))
        return
    if after.kind in ("function", "procedure") and set(names) - {"comment"}:
        if {"result", "kind"} & set(names):
            yield todo(
                phase,
                f"the {after} returns something else: drop it, and what uses it, before.",
                [str(after.sql)],
            )
            return
        names = [name for name in names if name == "comment"]
        yield execute(phase, str(after.sql))
    for name in names:
        statements = reconcile.alterations(after, before, [name])
        if statements is None:
            yield todo(phase, f"{name} of the {after}.", [after.sql] if after.sql else [])
        else:
            yield from (execute(phase, statement) for statement in statements)


def _repeatable(item: Object) -> str:
    """Return the statement that makes an object, in a form that can be run again."""
    sql = str(item.sql)
    word = item.kind.upper()
    if item.kind in _OR_REPLACE and not sql.startswith(("CREATE OR REPLACE", "CREATE CONSTRAINT")):
        return sql.replace(f"CREATE {word}", f"CREATE OR REPLACE {word}", 1)
    if item.kind in _IF_NOT_EXISTS:
        return sql.replace(
            f"CREATE {_IF_NOT_EXISTS[item.kind]}", f"CREATE {_IF_NOT_EXISTS[item.kind]} IF NOT EXISTS", 1
        )
    return sql


def _fits(changes: Changes, view: Object) -> bool:
    """Tell whether CREATE OR REPLACE VIEW will do: columns may be added to a view, but not changed."""
    prefix = f"column:{view.identity}."

    def columns(objects: object) -> dict[str, str]:
        assert isinstance(objects, dict)
        return {key: item.attributes["type"] for key, item in objects.items() if key.startswith(prefix)}

    there, wanted = columns(dict(changes.before.objects)), columns(dict(changes.after.objects))
    return there.items() <= wanted.items()
