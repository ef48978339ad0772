"""The schema as an Entity-Relationship diagram in Mermaid, drawn from the metadata of ``guvnor.models``."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, UniqueConstraint
from sqlalchemy.dialects import postgresql

from guvnor import models

INTRODUCTION = """\
# Schema

The tables of a Guvnor database at the newest revision, with their columns, keys and relationships, drawn
from `guvnor/models.py`. Do not edit this page: change the models, then run
`guvnor schema diagram > docs/schema.md`.
"""


def page() -> str:
    """Return the text of ``docs/schema.md``: an introduction and the diagram in a Mermaid block."""
    return f"{INTRODUCTION}\n```mermaid\n{diagram(models.metadata)}```\n"


def diagram(metadata: MetaData) -> str:
    """Return a Mermaid ``erDiagram`` of the tables, in the order of their definition.

    The grammar is in Mermaid's documentation, "Entity Relationship Diagrams".
    """
    lines = ["erDiagram"]
    for table in metadata.tables.values():
        lines.append(f"    {table.name} {{")
        lines.extend(f"        {_attribute(column)}" for column in table.columns)
        lines.append("    }")
    for table in metadata.tables.values():
        for column in table.columns:
            ends = f"{'|o' if column.nullable else '||'}--o{{ {table.name} : {column.name}"
            lines += [f"    {key.column.table.name} {ends}" for key in column.foreign_keys]
    return "".join(f"{line}\n" for line in lines)


def _attribute(column: Column[object]) -> str:
    name = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    name = name.replace("timestamp with time zone", "timestamptz")  # Mermaid wants a type in one word
    kinds = {"PK": column.primary_key, "FK": column.foreign_keys, "UK": _is_unique(column)}
    keys = [key for key, holds in kinds.items() if holds]
    return " ".join(filter(None, (name, column.name, ", ".join(keys))))


def _is_unique(column: Column[object]) -> bool:
    """Return whether a unique constraint holds for this column alone."""
    return any(
        isinstance(constraint, UniqueConstraint) and list(constraint.columns) == [column]
        for constraint in column.table.constraints
    )
