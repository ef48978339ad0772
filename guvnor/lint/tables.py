"""The tables that a parsed statement creates and names, and which of them are in use by the application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guvnor.lint.parsing import ParsedStatement, nodes
from guvnor.lint.revision import RevisionSource


def in_order(source: RevisionSource) -> Iterator[tuple[ParsedStatement, frozenset[str]]]:
    """Yield the statements of both directions in order, each with the tables that its direction has created.

    Nobody uses a table that the revision itself has just created.
    """
    for rendered in source.directions:
        new: set[str] = set()
        for statement in source.statements:
            if statement.call.direction == rendered.direction:
                yield statement, frozenset(new)
                if name := created(statement):
                    new.add(name)


def created(statement: ParsedStatement) -> str | None:
    """Return the name of the table or materialized view that a statement creates; None for none."""
    if statement.kind == "CreateStmt":
        return str(statement.node["relation"]["relname"])
    if statement.kind == "CreateTableAsStmt":
        return str(statement.node["into"]["rel"]["relname"])
    return None


def target(statement: ParsedStatement) -> str | None:
    """Return the table that a statement is about: ``ALTER TABLE``, ``UPDATE``, ``CREATE INDEX``."""
    name = statement.node.get("relation", {}).get("relname")
    return None if name is None else str(name)


def named(tree: Any) -> set[str]:
    """Return the names of the relations below a parse tree, without the system's catalogs."""
    found = {item["relname"] for item in nodes(tree, "RangeVar") if "schemaname" not in item}
    return {name for name in found if not name.startswith("pg_")}


def commands(statement: ParsedStatement) -> list[dict[str, Any]]:
    """Return the commands of an ``ALTER TABLE``, or nothing for another statement."""
    if statement.kind != "AlterTableStmt":
        return []
    return [item["AlterTableCmd"] for item in statement.node["cmds"]]


def constraints(column: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the constraints in the definition of a column, its default included."""
    return [item["Constraint"] for item in column.get("constraints", ())]
