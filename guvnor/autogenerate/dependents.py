"""What prevents a change because it depends on what changes: views on a column, functions on a type.

The server changes neither the type of a column that a view uses nor the columns of a view that another view
uses (2BP01, 0A000). So the dependents are dropped and created again in the statement that makes the change;
their privileges, which are not in the models, are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from guvnor.autogenerate import computed
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import indented
from guvnor.postgres.quoting import constant
from guvnor.schema import ddl
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import plain_name, table_of, terminated

_VIEWS = ("view", "materialized view")
_FUNCTIONS = ("function", "procedure")
_REBUILT = (*_VIEWS, *_FUNCTIONS, "rule", "trigger", "policy")
_LINTED = {"view": "view", "materialized view": "view", "function": "function", "procedure": "function"}
_PARTS = ("column", "index", "trigger", "rule")  # of a view


@dataclass(frozen=True)
class Dependents:
    """The objects that are dropped before a change and created again after it.

    :ivar before: as they are now, each after those that it needs.
    :ivar after: as they will be, in the same order; an object may be on one side only.
    :ivar along: what the server drops along with a generated column, by the column's handle.
    """

    before: tuple[Object, ...] = ()
    after: tuple[Object, ...] = ()
    along: Mapping[str, list[Object]] = field(default_factory=dict)

    @property
    def handles(self) -> frozenset[str]:
        """The handles of all of them."""
        return frozenset(item.handle for item in (*self.before, *self.after))

    @property
    def gone(self) -> list[Object]:
        """The generated columns that are only dropped, since they are computed from what changes."""
        again = {item.handle for item in self.after}
        return [item for item in self.before if _is_generated(item) and item.handle not in again]

    @property
    def drops(self) -> list[str]:
        """The statements that drop them."""
        views = {item.handle for item in self.before if item.kind in _VIEWS}
        statements = []
        for item in reversed(self.before):
            if item.handle in self.along or item in self.gone:
                statements.append(computed.dropped(item))
            elif item.kind in _REBUILT and not (item.kind in _PARTS and views & set(item.parents[:1])):
                statements += [made.sql for made in ddl.drop(item) or []]
        return statements

    @property
    def creates(self) -> list[str]:
        """The statements that create them again."""
        made = []
        for item in self.after:
            if item.handle in self.along:
                made += computed.added(item, self.along[item.handle])
                continue
            statements = ddl.further(item) if item.kind == "column" else ddl.create(item, in_use=False)
            made += [_repeatable(statement.sql) for statement in statements or []]
        return made

    def around(self, statements: Iterable[str]) -> list[str]:
        """Return statements between the drops and the creations."""
        return [*self.drops, *statements, *self.creates]

    def block(self, statements: Iterable[str], when: str = "", held: str = "") -> str:
        """Return one statement that drops them, runs others, and creates them again with their privileges.

        :param when: a query; nothing is done when it returns no row. Empty: it is always done.
        :param held: what is done first, with the text variable ``held``.
        """
        inner = held + terminated(self.around(statements))
        again = {item.handle for item in self.after}
        kept = _privileges([item for item in self.before if item.handle in again])
        declared, given = ["    held text;"] if held else [], ""
        if kept:
            declared += [f"    kept text[] := {kept};", "    privilege text;"]
            given = "\nFOREACH privilege IN ARRAY kept LOOP\n    EXECUTE privilege;\nEND LOOP;"
        body = inner + given
        if when:
            body = f"IF EXISTS (\n{indented(when, '    ')}\n) THEN\n{_inside(body)}\nEND IF;"
        tag = next(tag for tag in ("$$", "$guard$", "$block$") if tag not in body)
        head = "\n".join([f"DO {tag}", *(["DECLARE", *declared] if declared else []), "BEGIN"])
        return f"{head}\n{_inside(body)}\nEND\n{tag}"

    @property
    def reasons(self) -> dict[str, str]:
        """Why the block breaks rules of lint on purpose, by rule."""
        kept = {plain_name(item) for item in self.after if item.kind in _LINTED}
        again = [item for item in self.before if item.kind in _LINTED]
        kinds = {"constraint"}
        if all(plain_name(item) in kept for item in again):
            kinds |= {_LINTED[item.kind] for item in again}
        found = {f"ban-drop-{kind}": "the same statement creates it again." for kind in kinds}
        found["idempotent-statements"] = "the same statement drops it first."
        found |= computed.REASONS if self.along else {}
        if self.gone:
            found.pop("ban-drop-column", None)  # the models no longer have it
        return found

    @property
    def losses(self) -> list[str]:
        """What the reviewer has to know of the columns that are only dropped."""
        return [f"DATA LOSS: the column {item.identity} and all that it holds." for item in self.gone]


NONE = Dependents()


@dataclass(frozen=True)
class Replacement:
    """Changes that have to be made together, since the same objects depend on them.

    :ivar columns: the columns that get another type or expression.
    """

    columns: tuple[Alteration, ...]
    dependents: Dependents


def groups(changes: Changes, added_again: Collection[str]) -> list[Replacement]:
    """Find the changes that other objects prevent, and those objects.

    :param added_again: handles of columns that are dropped and added again.
    """
    found: list[tuple[list[Alteration], set[str]]] = []
    for columns, start, replaced in _roots(changes, added_again):
        reached = [*closure(changes.before, start, replaced), *closure(changes.after, start, replaced)]
        # What is new is created later, except for what takes the place of something.
        handles = {item.handle for item in reached if item.handle in changes.before.objects} | replaced
        overlapping = [other for other in found if other[1] & handles]
        found = [other for other in found if other not in overlapping]
        for other_columns, other_handles in overlapping:
            columns, handles = [*other_columns, *columns], handles | other_handles
        if handles:
            found.append((columns, handles))
    return [Replacement(tuple(columns), _both_sides(changes, handles)) for columns, handles in found]


def closure(snapshot: Snapshot, start: Collection[str], replaced: Collection[str] = ()) -> list[Object]:
    """Return what has to be created again when some objects change, each after those that it needs.

    :param start: handles of what changes but stays.
    :param replaced: handles of what is created again itself.
    """
    found = {key: snapshot.objects[key] for key in replaced if key in snapshot.objects}
    reached = {*start, *found}
    size = -1
    while size != len(reached):
        size = len(reached)
        for item in snapshot:
            if item.handle in reached or reached.isdisjoint(item.parents):
                continue
            if item.inherited_from:  # it changes along, and something else may depend on it
                reached.add(item.handle)
                continue
            part = item.kind in _PARTS and item.parents[0] in found
            if part or item.kind in _REBUILT or _is_generated(item):
                found[item.handle] = item
                reached.add(item.handle)
    graph = {key: {p for p in item.parents if p in found} for key, item in sorted(found.items())}
    try:
        return [found[key] for key in TopologicalSorter(graph).static_order()]
    except CycleError:
        return list(found.values())


def fits(changes: Changes, view: Object) -> bool:
    """Tell whether CREATE OR REPLACE VIEW is possible: it can add columns to a view, but not change them."""
    if view.kind != "view":
        return False  # there is no OR REPLACE for a materialized one
    there, wanted = (
        [(c.identity, c.attributes["type"]) for c in side.of_kind("column") if table_of(c) == view.identity]
        for side in (changes.before, changes.after)
    )
    return wanted[: len(there)] == there


def _roots(
    changes: Changes, added_again: Collection[str]
) -> Iterator[tuple[list[Alteration], set[str], set[str]]]:
    """Yield each change that others can prevent: the column's alteration, what changes, what is replaced."""
    for alteration in changes.altered:
        item, names = alteration.after, set(alteration.names)
        retyped = bool({"type", "collation"} & names) or item.handle in added_again
        if item.kind == "column" and retyped and not _in_view(changes, item):
            yield [alteration], {item.handle}, set()
        else:
            view = item.kind in _VIEWS and "definition" in names and not fits(changes, item)
            if view or (item.kind in _FUNCTIONS and "result" in names):
                yield [], set(), {item.handle}
    for gone in changes.dropped.values():
        for new in changes.added.values():
            same = plain_name(gone) == plain_name(new) and gone.identity.count(",") == new.identity.count(",")
            if gone.kind == new.kind and gone.kind in _FUNCTIONS and same:
                # CREATE OR REPLACE cannot rename an argument (42P13).
                yield [], set(), {gone.handle, new.handle}


def _in_view(changes: Changes, column: Object) -> bool:
    relation = changes.after.objects.get(column.parents[0])
    return relation is not None and relation.kind in _VIEWS


def _both_sides(changes: Changes, handles: set[str]) -> Dependents:
    before, after = closure(changes.before, (), handles), closure(changes.after, (), handles)
    return Dependents(tuple(before), tuple(after), along(after, changes.after, changes.before))


def along(items: Iterable[Object], snapshot: Snapshot, other: Snapshot) -> dict[str, list[Object]]:
    """Return what the server drops along with the generated columns among some objects.

    :param other: see :func:`guvnor.autogenerate.computed.along_with`.
    """
    columns = [item for item in items if _is_generated(item)]
    return {column.handle: computed.along_with(snapshot, other, column) for column in columns}


def _is_generated(item: Object) -> bool:
    return item.kind == "column" and item.attributes["generated"] is not None


def _inside(sql: str) -> str:
    """Indent SQL, but not the body of a function, which the server stores with its white space."""
    return sql if "$function$" in sql or "$procedure$" in sql else indented(sql, " " * 4)


def _repeatable(sql: str) -> str:
    return (
        sql.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1) if sql[:14] == "CREATE TRIGGER" else sql
    )


def _privileges(items: Iterable[Object]) -> str:
    """Return an expression for the statements that give back the privileges; empty where none is needed."""
    named = {kinds: [i.identity for i in items if i.kind in kinds] for kinds in (_VIEWS, _FUNCTIONS)}
    arrays = [
        _GRANTS[kinds].replace("?", ", ".join(map(constant, names)))
        for kinds, names in named.items()
        if names
    ]
    return " || ".join(arrays)


_GRANT = """
        SELECT format('GRANT %s ON {kind} %s TO %s', a.privilege_type, o.name,
                      COALESCE(quote_ident(r.rolname), 'PUBLIC'))
               || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM {objects} AS o
        CROSS JOIN aclexplode(o.acl) AS a
        LEFT JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE o.name IN (?)
    )"""
_RELATIONS = """(
            SELECT quote_ident(relname) AS name, relacl AS acl
            FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace
        )"""
_ROUTINES = """(
            SELECT format('%I(%s)', proname, pg_get_function_identity_arguments(oid)) AS name, proacl AS acl
            FROM pg_proc
            WHERE pronamespace = current_schema()::regnamespace
        )"""
_GRANTS = {
    _VIEWS: "ARRAY(" + _GRANT.format(kind="TABLE", objects=_RELATIONS),
    _FUNCTIONS: f"""ARRAY(
        SELECT format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', o.name)
        FROM {_ROUTINES} AS o
        WHERE o.acl IS NOT NULL AND o.name IN (?)
        UNION ALL"""
    + _GRANT.format(kind="ROUTINE", objects=_ROUTINES),
}
