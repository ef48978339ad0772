"""DDL statements as values, and the names and queries that they use for objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guvnor.postgres.quoting import constant, unquoted
from guvnor.schema.snapshot import Object

_WITH_ARGUMENTS = ("function", "procedure", "aggregate")
_QUOTED_NAME = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Statement:
    """One statement, as a person runs it and as a revision runs it.

    :ivar clauses: the SQL, in parts that may stand on lines of their own.
    :ivar operation: the online operation that a revision calls instead, and its arguments; empty where the
        SQL runs in the revision's transaction.
    :ivar keywords: the operation's keyword arguments.
    :ivar unless: a query; a revision skips the statement when it returns a row.
    :ivar when: a query; a revision skips the statement when it returns no row.
    :ivar loses: the data that the statement loses; empty where it loses none.
    :ivar replaces: the kind of the object that the statement replaces; empty where it replaces none.
    """

    clauses: tuple[str, ...]
    operation: tuple[str, ...] = ()
    keywords: Mapping[str, str] = field(default_factory=dict)
    unless: str = ""
    when: str = ""
    loses: str = ""
    replaces: str = ""

    @property
    def sql(self) -> str:
        """The SQL in one piece."""
        return " ".join(self.clauses)


def statement(*clauses: str, **more: Any) -> Statement:
    """Make a statement from its clauses; empty ones are left out."""
    return Statement(tuple(clause for clause in clauses if clause), **more)


def terminated(statements: Iterable[str]) -> str:
    """Join statements, each on a line of its own and with a semicolon."""
    return "\n".join(f"{sql.rstrip().rstrip(';')};" for sql in statements if sql)


def safe(statements: Sequence[Statement] | None) -> str | None:
    """Return statements as one text; None where there are none, or where data would be lost."""
    if not statements or any(statement.loses for statement in statements):
        return None
    return terminated(statement.sql for statement in statements)


def each(texts: str | list[str]) -> list[Statement]:
    """Make a statement from each text."""
    return [statement(text) for text in ([texts] if isinstance(texts, str) else texts)]


def find(kind: str, table: str, name: str) -> str:
    """Return the query that finds an object in the catalogs by its name.

    :param table: the table that it is on; empty for what is not on a table.
    """
    here = "current_schema()::regnamespace"
    catalog, place, column = {
        "column": ("pg_attribute", "attrelid", "attname"),
        "constraint": ("pg_constraint", "conrelid", "conname"),
        "trigger": ("pg_trigger", "tgrelid", "tgname"),
        "policy": ("pg_policy", "polrelid", "polname"),
        "rule": ("pg_rewrite", "ev_class", "rulename"),
        "type": ("pg_type", "typnamespace", "typname"),
        "function": ("pg_proc", "pronamespace", "proname"),
        "procedure": ("pg_proc", "pronamespace", "proname"),
        "statistics": ("pg_statistic_ext", "stxnamespace", "stxname"),
    }.get(kind, ("pg_class", "relnamespace", "relname"))
    where = here if place.endswith("namespace") else f"{constant(table)}::regclass"
    there = " AND NOT attisdropped" if kind == "column" else ""
    return f"SELECT FROM {catalog}\nWHERE {place} = {where} AND {column} = {constant(unquoted(name))}{there}"


def table_of(item: Object) -> str:
    """Return the table that an object is on."""
    return item.parents[0].partition(":")[2] if item.parents else ""


def plain_name(item: Object) -> str:
    """Return an object's own name, a function's without its arguments."""
    if item.kind not in _WITH_ARGUMENTS:
        return item.name
    quoted = _QUOTED_NAME.match(item.name)
    return quoted[0] if quoted else item.name.partition("(")[0]


def target(item: Object) -> str:
    """Return what ALTER, DROP and COMMENT call an object."""
    if item.kind == "column":
        return item.identity
    # Another table may have one with the same name.
    on_table = item.kind in ("trigger", "policy", "rule")
    return f"{item.name} ON {table_of(item)}" if on_table else item.name
