"""What earlier statements say of a column: its type, the checks and the indexes that a new type touches.

Lint has no database. What no statement says plainly (a type that a block builds at run time) is not known,
and then a change of type is not taken for harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from guvnor.lint import tables
from guvnor.lint.parsing import ParsedStatement, last_name, nodes


@dataclass(frozen=True)
class DeclaredType:
    """The type of a column: its name without a schema, and what stands in its parentheses."""

    name: str
    modifiers: tuple[int, ...] = ()
    is_array: bool = False


@dataclass(frozen=True)
class _Part:
    """A check or an index.

    :ivar columns: the columns that it is about.
    :ivar plain: whether it is an index on columns alone, without an expression and a condition.
    :ivar unique: whether it may tell rows apart.
    """

    columns: frozenset[str]
    plain: bool
    unique: bool = False


@dataclass
class _Table:
    columns: dict[str, DeclaredType] = field(default_factory=dict)
    parts: dict[str, _Part] = field(default_factory=dict)
    complete: bool = False  # whether all that it was created with is known


class KnownSchema:
    """The tables as a series of statements leaves them."""

    def __init__(self, statements: Iterable[ParsedStatement]) -> None:
        """Follow the statements in their order."""
        self._tables: dict[str, _Table] = {}
        for statement in statements:
            self._follow(statement)

    def type_of(self, table: str, column: str) -> DeclaredType | None:
        """Return the type of a column; None where it is not known."""
        known = self._tables.get(table)
        return known.columns.get(column) if known else None

    def has_key(self, table: str) -> bool | None:
        """Tell whether a table may have a key that tells its rows apart; None where that is not known."""
        known = self._tables.get(table)
        if known is None or not known.complete:
            return None
        return any(part.unique for part in known.parts.values())

    def keys_of(self, table: str) -> set[str]:
        """Return the columns of a table that tell its rows apart, each by itself."""
        parts = self._tables[table].parts.values() if table in self._tables else ()
        return {name for part in parts if part.unique and len(part.columns) == 1 for name in part.columns}

    def in_the_way(self, table: str, column: str, *, plain: bool) -> set[str]:
        """Return the names of the checks and indexes that the server verifies or builds anew for a new type.

        :param plain: whether indexes on the column alone count, too.
        """
        parts = self._tables[table].parts if table in self._tables else {}
        return {name for name, part in parts.items() if column in part.columns and (plain or not part.plain)}

    def _follow(self, statement: ParsedStatement) -> None:
        node = statement.node
        match statement.kind:
            case "CreateStmt":
                table = self._tables.setdefault(node["relation"]["relname"], _Table())
                for element in node.get("tableElts", ()):
                    _define(table, element)
                copies = [*nodes(node, "TableLikeClause"), *node.get("inhRelations", ())]
                table.complete = "ofTypename" not in node and not copies
            case "AlterTableStmt":
                table = self._tables.setdefault(node["relation"]["relname"], _Table())
                for command in tables.commands(statement):
                    _alter(table, command)
            case "IndexStmt":
                table = self._tables.setdefault(node["relation"]["relname"], _Table())
                table.parts.setdefault(node.get("idxname", ""), _index(node))
            case "RenameStmt":
                self._rename(node)
            case "DropStmt":
                for name in map(_last, nodes(node["objects"], "List")):
                    self._tables.pop(name, None)
                    for table in self._tables.values():
                        table.parts.pop(name, None)

    def _rename(self, node: dict[str, Any]) -> None:
        old = node.get("relation", {}).get("relname", "")
        if old not in self._tables:
            return
        if node["renameType"] == "OBJECT_TABLE":
            self._tables[node["newname"]] = self._tables.pop(old)
        elif node["renameType"] == "OBJECT_COLUMN":
            del self._tables[old]  # what is known of it names the old column


def type_in(node: dict[str, Any]) -> DeclaredType:
    """Read a type from the parse tree of its name."""
    modifiers = tuple(
        item.get("ival", {}).get("ival", 0) for item in nodes(node.get("typmods", []), "A_Const")
    )
    return DeclaredType(last_name(node["names"]), modifiers, "arrayBounds" in node)


def _define(table: _Table, element: dict[str, Any]) -> None:
    """Take a line of CREATE TABLE."""
    if column := element.get("ColumnDef"):
        name = column["colname"]
        table.columns[name] = type_in(column["typeName"])
        for number, constraint in enumerate(tables.constraints(column)):
            _constrain(table, constraint, f"{name} {number}", frozenset({name}))
    if whole := element.get("Constraint"):
        _constrain(table, whole, f"constraint {len(table.parts)}", frozenset())


def _constrain(table: _Table, constraint: dict[str, Any], unnamed: str, own: frozenset[str]) -> None:
    name = constraint.get("conname", unnamed)
    if constraint["contype"] == "CONSTR_CHECK":
        table.parts[name] = _Part(own | _columns(constraint.get("raw_expr")), plain=False)
    elif constraint["contype"] in ("CONSTR_PRIMARY", "CONSTR_UNIQUE"):
        keys = frozenset(_strings(constraint.get("keys", [])))
        table.parts[name] = _Part(own | keys, plain=True, unique=True)
    elif constraint["contype"] == "CONSTR_EXCLUSION":
        table.parts[name] = _Part(own | _columns(constraint) | _indexed(constraint), plain=False)


def _alter(table: _Table, command: dict[str, Any]) -> None:
    """Take a command of ALTER TABLE."""
    name, definition = command.get("name", ""), command.get("def", {})
    match command["subtype"]:
        case "AT_AddColumn":
            if definition["ColumnDef"]["colname"] not in table.columns:
                _define(table, definition)
        case "AT_AlterColumnType":
            table.columns[name] = type_in(definition["ColumnDef"]["typeName"])
        case "AT_AddConstraint":
            _define(table, definition)
        case "AT_DropConstraint":
            table.parts.pop(name, None)
        case "AT_DropColumn":
            table.columns.pop(name, None)
            table.parts = {key: part for key, part in table.parts.items() if name not in part.columns}


def _index(node: dict[str, Any]) -> _Part:
    expressions = [item for item in nodes(node["indexParams"], "IndexElem") if "expr" in item]
    named = _indexed(node) | _columns(node["indexParams"]) | _columns(node.get("whereClause"))
    plain = not expressions and "whereClause" not in node
    return _Part(named, plain=plain, unique=plain and bool(node.get("unique")))


def _indexed(node: dict[str, Any]) -> frozenset[str]:
    return frozenset(item["name"] for item in nodes(node, "IndexElem") if "name" in item)


def _columns(tree: Any) -> frozenset[str]:
    """Return the columns that an expression names."""
    return frozenset(name for column in nodes(tree, "ColumnRef") for name in _strings(column["fields"][-1:]))


def _strings(items: Any) -> Iterator[str]:
    yield from (item["sval"] for item in nodes(items, "String"))


def _last(items: dict[str, Any]) -> str:
    return list(_strings(items["items"]))[-1]
