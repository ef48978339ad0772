"""SQL as PostgreSQL's own parser reads it (libpg_query), the statements within DO blocks included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from guvnor.errors import ConfigurationError

Node = dict[str, Any]


class MissingToolError(ConfigurationError):
    """What lint stands on is not installed."""

    state = "Nothing was changed."
    next_step = "pip install 'guvnor-migrations[lint]'"


class SyntaxProblem(Exception):  # noqa: N818 - it is what is wrong with a text, not with this program
    """PostgreSQL's parser refuses a text."""


@dataclass(frozen=True)
class Parsed:
    """One statement.

    :ivar kind: what it is: ``AlterTableStmt``.
    :ivar node: its parse tree.
    :ivar line: its first line within the text that was parsed, from 0.
    :ivar guarded: whether it stands in a DO block, under a condition or with its errors caught.
    """

    kind: str
    node: Node
    sql: str
    line: int
    guarded: bool = False


def parse(text: str) -> list[Parsed]:
    """Parse a text into its statements; a DO block stands for the statements within it.

    :raises SyntaxProblem: when PostgreSQL does not understand it.
    :raises MissingToolError: when the parser is not installed.
    """
    return [part for statement in _statements(text) for part in _opened(statement)]


def nodes(tree: Any, kind: str) -> Iterator[Node]:
    """Return the nodes of a kind below a parse tree, such as each ``FuncCall``."""
    for name, value in _pairs(tree):
        if name == kind:
            yield value
        yield from nodes(value, kind)


def _pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        for item in tree:
            yield from _pairs(item)


def _library() -> Any:
    try:
        import pgparse
    except ImportError:
        raise MissingToolError("The wheel pgparse is not installed.") from None
    return pgparse


def _statements(text: str) -> Iterator[Parsed]:
    library = _library()
    try:
        items = library.parse(text)
    except library.PGQueryError as error:
        raise SyntaxProblem(error.message) from None
    except UnicodeEncodeError as error:
        raise SyntaxProblem(str(error)) from None
    raw = text.encode()
    for item in items:
        ((kind, node),) = item["stmt"].items()
        start = item.get("stmt_location", 0)
        end = start + item["stmt_len"] if "stmt_len" in item else len(raw)
        start = _first_word(raw, start, end)
        sql, line = raw[start:end], raw[:start].count(b"\n")
        yield Parsed(kind, node, sql.decode().strip(), line)


_BLANK = re.compile(rb"(?:\s|--[^\n]*)*")
_EDGE = re.compile(rb"/\*|\*/")


def _first_word(raw: bytes, start: int, end: int) -> int:
    """Return where a statement begins: the parser counts to it the blanks and comments before it."""
    while True:
        if blank := _BLANK.match(raw, start, end):
            start = blank.end()
        if not raw.startswith(b"/*", start, end):
            return start
        depth = 0  # comments nest
        for edge in _EDGE.finditer(raw, start, end):
            depth += 1 if edge[0] == b"/*" else -1
            if depth == 0:
                start = edge.end()
                break


def _opened(statement: Parsed) -> Iterator[Parsed]:
    """Return the statements of a DO block; any other statement as it is."""
    if statement.kind != "DoStmt":
        yield statement
        return
    body = next(nodes(_arguments(statement.node)["as"], "String"))["sval"]
    top = statement.line + statement.sql[: statement.sql.find(body)].count("\n")
    library = _library()
    try:
        functions = library.parse_pgsql(statement.sql)
    except library.PGQueryError as error:
        raise SyntaxProblem(error.message) from None
    inside = [
        replace(inner, line=top + line - 1 + inner.line, guarded=guarded)
        for line, sql, guarded in _executed(functions, guarded=False)
        for inner in _statements(sql)
    ]
    yield from inside or [statement]


def _arguments(node: Node) -> dict[str, Any]:
    return {item["DefElem"]["defname"]: item["DefElem"]["arg"] for item in node["args"]}


_CONDITIONS = {"PLpgSQL_stmt_if", "PLpgSQL_stmt_case", "PLpgSQL_stmt_fors", "PLpgSQL_exception_block"}
_STATEMENTS = {"PLpgSQL_stmt_execsql": "sqlstmt", "PLpgSQL_stmt_perform": "expr"}
_ENDS = {"PLpgSQL_stmt_commit": "COMMIT", "PLpgSQL_stmt_rollback": "ROLLBACK"}


def _executed(tree: Any, *, guarded: bool) -> Iterator[tuple[int, str, bool]]:
    """Return line, text and guard of each SQL statement that a PL/pgSQL tree runs."""
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
    """Return the text of an expression that is one constant; None for any other."""
    targets = [target["val"] for target in nodes(_library().parse(f"SELECT {expression}"), "ResTarget")]
    constant: str | None = targets[0].get("A_Const", {}).get("sval", {}).get("sval")
    return constant
