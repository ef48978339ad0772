"""SQL as PostgreSQL's own parser reads it (libpg_query), including the statements within DO blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from guvnor.errors import ConfigurationError
from guvnor.lint.problem import Violation
from guvnor.lint.rendering import RenderedCall
from guvnor.lint.server_parser import ServerParser

Node = dict[str, Any]

PARSER = 17
"""The major version of PostgreSQL that the parser is taken from."""

NEWER = "NewerStmt"
"""The kind of a text that only a newer server understands: its parse tree is empty."""

_BLANK = re.compile(rb"(?:\s|--[^\n]*|/\*(?:/\*.*?\*/|.)*?\*/)*", re.DOTALL)  # a comment may hold another


class MissingToolError(ConfigurationError):
    """A tool that lint needs is not installed."""

    state = "Nothing was changed."
    next_step = "pip install 'guvnor-migrations[lint]'"


class SyntaxProblem(Exception):  # noqa: N818 - the error is in the SQL that was read, not in this program
    """PostgreSQL's parser does not understand a text."""


@dataclass(frozen=True)
class ParsedStatement:
    """One statement of a call, which may run several.

    :ivar kind: the name of its node: ``AlterTableStmt``.
    :ivar node: its parse tree.
    :ivar offset: how many lines of the call's SQL come before it.
    :ivar guarded: whether it is in a DO block, under a condition or with its errors caught.
    """

    call: RenderedCall
    kind: str
    node: Node
    sql: str
    offset: int
    guarded: bool = False

    def line_of(self, number: int) -> int:
        """Return the line of the revision file that a line of the statement comes from.

        :param number: the number of the line within the statement, from 0.
        """
        return self.call.line_of(self.offset + number)

    @property
    def opening(self) -> str:
        """Its first three words, by which a message names it."""
        return " ".join(self.sql.split()[:3]).rstrip("(;")

    def violation(self, message: str) -> Violation:
        """Return a violation at the statement's first line."""
        return Violation(self.line_of(0), self.call.direction, message)


def parse_statements(call: RenderedCall, server: ServerParser | None = None) -> list[ParsedStatement]:
    """Parse the SQL of a call; a DO block is replaced by the statements within it.

    :param server: is asked for what the parser does not understand; its SQL may be newer.
    :raises SyntaxProblem: when PostgreSQL does not understand it.
    :raises MissingToolError: when the parser is not installed.
    """
    try:
        found = _statements(call, call.sql, server)
        return [inner for statement in found for inner in _unwrapped(statement, server)]
    except (_parser().PGQueryError, UnicodeEncodeError) as error:
        raise SyntaxProblem(_complaint(getattr(error, "message", None) or str(error), server)) from None


def _complaint(said: str, server: ServerParser | None) -> str:
    if server is not None and server.major is not None and server.major >= PARSER:
        return f"PostgreSQL {server.major} does not understand the SQL: {said}."
    return (
        f"The SQL is not understood by lint's parser, which is PostgreSQL {PARSER}'s: {said}. SQL of a newer "
        "server is read by that server: guvnor schema lint --shadow-dsn DSN."
    )


def nodes(tree: Any, kind: str) -> Iterator[Any]:
    """Return all values of a key in a parse tree, at any depth: each ``FuncCall``, each ``schemaname``."""
    for name, value in _pairs(tree):
        if name == kind:
            yield value
        yield from nodes(value, kind)


def last_name(parts: list[Node]) -> str:
    """Return the last part of a name that may be qualified: of a function, a type, an operator."""
    return str(parts[-1]["String"]["sval"])


def set_by_calls(statement: ParsedStatement) -> Iterator[str]:
    """Return the names of the settings that calls of ``set_config()`` change."""
    for call in nodes(statement.node, "FuncCall"):
        if last_name(call["funcname"]) == "set_config":
            for constant in nodes(call["args"][:1], "A_Const"):
                yield constant.get("sval", {}).get("sval", "").lower()


def _pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        for item in tree:
            yield from _pairs(item)


def _parser() -> Any:
    try:
        import pgparse
    except ImportError:
        raise MissingToolError("The package pgparse is not installed.") from None
    return pgparse


def _statements(call: RenderedCall, text: str, server: ServerParser | None) -> Iterator[ParsedStatement]:
    """Parse a text that a call runs."""
    raw = text.encode()
    try:
        parsed = _parser().parse(text)
    except _parser().PGQueryError:
        if server is None or server.complaint(text) is not None:
            raise
        yield ParsedStatement(call, NEWER, {}, text.strip(), 0)
        return
    for item in parsed:
        ((kind, node),) = item["stmt"].items()
        start = item.get("stmt_location", 0)
        end = start + item["stmt_len"] if "stmt_len" in item else len(raw)
        # The parser counts blanks and comments before a statement as a part of it.
        if blank := _BLANK.match(raw, start, end):
            start = blank.end()
        yield ParsedStatement(call, kind, node, raw[start:end].decode().strip(), raw.count(b"\n", 0, start))


def _unwrapped(statement: ParsedStatement, server: ServerParser | None) -> Iterator[ParsedStatement]:
    """Return the statements within a DO block, or any other statement itself."""
    if statement.kind != "DoStmt":
        yield statement
        return
    arguments = {item["DefElem"]["defname"]: item["DefElem"]["arg"] for item in statement.node["args"]}
    body = arguments["as"]["String"]["sval"]
    top = statement.offset + statement.sql[: statement.sql.find(body)].count("\n")
    try:
        block = _parser().parse_pgsql(statement.sql)
    except _parser().PGQueryError:
        if server is None or server.complaint(body) is not None:
            raise
        yield replace(statement, kind=NEWER, node={}, guarded=True)
        return
    inside = [
        replace(inner, offset=top + line - 1 + inner.offset, guarded=guarded)
        for line, sql, guarded in _executed(block, guarded=False)
        for inner in _statements(statement.call, sql, server)
    ]
    yield from inside or [statement]


_CONDITIONS = {"PLpgSQL_stmt_if", "PLpgSQL_stmt_case", "PLpgSQL_stmt_fors", "PLpgSQL_exception_block"}
_STATEMENTS = {"PLpgSQL_stmt_execsql": "sqlstmt", "PLpgSQL_stmt_perform": "expr"}
_ENDS = {"PLpgSQL_stmt_commit": "COMMIT", "PLpgSQL_stmt_rollback": "ROLLBACK"}


def _executed(tree: Any, *, guarded: bool) -> Iterator[tuple[int, str, bool]]:
    """Return the line and text of each SQL statement in a PL/pgSQL tree, and whether it is guarded."""
    for name, value in _pairs(tree):
        if name in _STATEMENTS:
            yield value["lineno"], value[_STATEMENTS[name]]["PLpgSQL_expr"]["query"], guarded
        elif name in _ENDS:
            yield value["lineno"], _ENDS[name], guarded
        elif name == "PLpgSQL_stmt_dynexecute":
            if sql := _constant(value["query"]["PLpgSQL_expr"]["query"]):
                yield value["lineno"], sql, guarded
        else:
            caught = isinstance(value, dict) and "exceptions" in value
            yield from _executed(value, guarded=guarded or caught or name in _CONDITIONS)


def _constant(expression: str) -> str | None:
    """Return the text of an expression that is a single constant; None for any other expression."""
    targets = [target["val"] for target in nodes(_parser().parse(f"SELECT {expression}"), "ResTarget")]
    constant: str | None = targets[0].get("A_Const", {}).get("sval", {}).get("sval")
    return constant
