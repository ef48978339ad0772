"""Views, functions and triggers as a part of SQLAlchemy's metadata: ``create_all()`` creates them.

They may be declared in any order and in any file, except that a type comes before a function that uses it.
Whatever one of them uses is created before it, and a function that a table uses (in a default, a check, a
generated column or an index) before the tables. Texts are SQL and are sent as they are written: nothing in
them is a parameter, so a colon or a percent sign needs no escape.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import DDL, Table, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_KEY = "guvnor.database_objects"  # of the metadata's info
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_STANDARD_BODY = re.compile(r"\s*(BEGIN\s+ATOMIC|RETURN)\b", re.IGNORECASE)  # of a function of language SQL


@dataclass(frozen=True, eq=False)
class View:
    """A view; see :func:`view`."""

    metadata: MetaData = field(repr=False)
    name: str
    create: tuple[str, ...] = field(repr=False)
    drop: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class Function:
    """A function; see :func:`function`.

    :ivar name: without its arguments, as SQL writes it.
    """

    name: str
    create: tuple[str, ...] = field(repr=False)
    is_sql: bool = field(repr=False)


@dataclass(frozen=True, eq=False)
class Trigger:
    """A trigger; see :func:`trigger`."""

    name: str
    create: tuple[str, ...] = field(repr=False)
    on: Table | View = field(repr=False)


_Declared = View | Function | Trigger
D = TypeVar("D", bound=View | Function | Trigger)


def view(
    metadata: MetaData,
    name: str,
    query: str,
    *,
    materialized: bool = False,
    options: str = "",
    indexes: Sequence[str] = (),
) -> View:
    """Declare a view.

    :param name: without quotes.
    :param query: the ``SELECT``, with ``WITH CHECK OPTION`` at its end where that is wanted. A star stands
        for the columns that are there when the view is created; name the columns instead.
    :param options: what stands in ``WITH (...)``, such as ``security_barrier``.
    :param indexes: of a materialized view, a ``CREATE INDEX`` each. ``REFRESH MATERIALIZED VIEW
        CONCURRENTLY`` needs a unique one.
    """
    quoted = _quoted(name)
    kind = "MATERIALIZED VIEW" if materialized else "VIEW"
    opening = f"CREATE {kind} IF NOT EXISTS" if materialized else "CREATE OR REPLACE VIEW"
    held = f" WITH ({options})" if options else ""
    create = (f"{opening} {quoted}{held} AS\n{_dedented(query)}", *map(_dedented, indexes))
    found = View(metadata, name, create, f"DROP {kind} IF EXISTS {quoted} CASCADE")
    return _declare(metadata, found)


def function(
    metadata: MetaData,
    signature: str,
    *,
    returns: str,
    body: str,
    language: str = "plpgsql",
    options: str = "",
) -> Function:
    """Declare a function.

    :param signature: its name and arguments: ``days_since(moment timestamptz)``.
    :param returns: the type of its result: ``integer``, ``SETOF incidents``, ``trigger``.
    :param body: the text between the dollar quotes, whose common indentation is taken away; the server stores
        the rest as it is. In language ``sql``, a body may also be ``BEGIN ATOMIC ... END`` or ``RETURN ...``.
    :param options: the rest of the statement, such as ``STABLE SECURITY DEFINER SET search_path = public``.
    """
    name = signature.partition("(")[0].strip()
    standard = language.lower() == "sql" and _STANDARD_BODY.match(body)
    text = textwrap.dedent(body)
    last = text.strip() if standard else f"AS {_in_dollars(text)}"
    lines = [
        f"CREATE OR REPLACE FUNCTION {signature} RETURNS {returns}",
        f"LANGUAGE {language}",
        options,
        last,
    ]
    create = "\n".join(line for line in lines if line)
    return _declare(metadata, Function(name, (create,), language.lower() == "sql"))


def trigger(
    name: str,
    on: Table | View,
    event: str,
    calls: Function | str,
    *,
    each: str = "ROW",
    when: str = "",
    referencing: str = "",
    constraint: str | None = None,
) -> Trigger:
    """Declare a trigger.

    :param name: without quotes.
    :param event: what fires it: ``BEFORE UPDATE``, ``AFTER INSERT OR UPDATE OF title``, ``INSTEAD OF
        INSERT``.
    :param calls: the function, or the call with its arguments: ``note('incidents')``.
    :param each: ``ROW`` or ``STATEMENT``.
    :param when: the condition, such as ``OLD.title IS DISTINCT FROM NEW.title``.
    :param referencing: transition tables, such as ``NEW TABLE AS added``.
    :param constraint: of a constraint trigger, when it fires: ``DEFERRABLE INITIALLY DEFERRED``, or an empty
        text. None: it is an ordinary one.
    """
    call = f"{calls.name}()" if isinstance(calls, Function) else calls
    table = _quoted(on.name) if isinstance(on, View) else _DIALECT.identifier_preparer.format_table(on)
    opening = "CREATE OR REPLACE TRIGGER" if constraint is None else "CREATE CONSTRAINT TRIGGER"
    lines = [
        f"{opening} {_quoted(name)}",
        f"{event} ON {table}",
        constraint or "",
        f"REFERENCING {referencing}" if referencing else "",
        f"FOR EACH {each}",
        f"WHEN ({when})" if when else "",
        f"EXECUTE FUNCTION {call}",
    ]
    create = "\n".join(line for line in lines if line)
    return _declare(on.metadata, Trigger(name, (create,), on))


def _declare(metadata: MetaData, item: D) -> D:
    declared: list[_Declared] | None = metadata.info.get(_KEY)
    if declared is None:
        declared = metadata.info[_KEY] = []
        event.listen(metadata, "before_create", partial(_before_tables, declared))
        event.listen(metadata, "after_create", partial(_after_tables, declared))
        event.listen(metadata, "before_drop", partial(_before_drop, declared))
    declared.append(item)
    return item


def _before_tables(
    declared: list[_Declared], metadata: MetaData, connection: Connection, **_: object
) -> None:
    """Create the functions that the tables use."""
    for item in _for_tables(declared, metadata):
        if item.is_sql:  # its body may read a table, which comes later
            _run(connection, "SET check_function_bodies = off")
        _run(connection, *item.create)
        if item.is_sql:
            _run(connection, "SET check_function_bodies = on")


def _after_tables(
    declared: list[_Declared],
    metadata: MetaData,
    connection: Connection,
    *,
    tables: Iterable[Table],
    **_: object,
) -> None:
    """Create the rest: what uses another one after it, the triggers of new tables last."""
    done, new = _for_tables(declared, metadata), set(tables)
    for item in in_order(declared):
        comes = item.on in new or isinstance(item.on, View) if isinstance(item, Trigger) else True
        if comes and item not in done:
            _run(connection, *item.create)


def _before_drop(declared: list[_Declared], _metadata: MetaData, connection: Connection, **_: object) -> None:
    """Drop the views, which would keep the tables from being dropped, and what uses them.

    Other functions stay, as extensions do.
    """
    _run(connection, *(item.drop for item in reversed(in_order(declared)) if isinstance(item, View)))


def _for_tables(declared: list[_Declared], metadata: MetaData) -> list[Function]:
    """Return the functions that tables use, and those that they use in turn, each after what it uses."""
    made: list[Any] = [CreateTable(table) for table in metadata.tables.values()]
    made += [CreateIndex(index) for table in metadata.tables.values() for index in table.indexes]
    text = "\n".join(str(item.compile(dialect=_DIALECT)) for item in made)
    functions = [item for item in declared if isinstance(item, Function)]
    found = [item for item in functions if _names(text, item)]
    for item in found:  # grows meanwhile
        found += [other for other in functions if other not in found and _uses(item, other)]
    return [item for item in in_order(functions) if item in found]


def in_order(declared: Sequence[D]) -> list[D]:
    """Return objects as they are declared, but each after those that it uses; triggers last.

    A word in a text may only look like a name. So of two that seem to use each other, the one that is
    declared first comes first.
    """
    uses = {
        item: [other for other in declared if other is not item and _uses(item, other)] for item in declared
    }
    place = {item: number for number, item in enumerate(declared)}
    found: dict[D, None] = {}

    def reached(item: D, seen: set[D]) -> set[D]:
        for other in uses[item]:
            if other not in seen:
                seen.add(other)
                reached(other, seen)
        return seen

    def visit(item: D) -> None:
        for other in uses[item]:
            if other not in found and (place[other] < place[item] or item not in reached(other, set())):
                visit(other)
        found.setdefault(item)

    for item in sorted(declared, key=lambda item: isinstance(item, Trigger)):
        visit(item)
    return list(found)


def _uses(item: _Declared, other: _Declared) -> bool:
    return not isinstance(other, Trigger) and _names("\n".join(item.create), other)


def _names(text: str, item: _Declared) -> bool:
    """Tell whether a text seems to name an object: not a column of that name, and not an alias."""
    name = re.escape(item.name.strip('"'))
    opening = r'"?\s*[(]' if isinstance(item, Function) else ""
    return re.search(rf"(?<![\w.])(?<!\bAS ){name}(?!\w){opening}", text, re.IGNORECASE) is not None


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]


def _quoted(name: str) -> str:
    return str(_DIALECT.identifier_preparer.quote(name))


def _dedented(sql: str) -> str:
    return textwrap.dedent(sql).strip().rstrip(";")


def _in_dollars(body: str) -> str:
    tag = next(tag for tag in ("$$", "$body$", "$_body_$") if tag not in body)
    return f"{tag}{body}{tag}"
