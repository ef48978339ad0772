"""A person's answers to the TODOs of a revision, as far as the reasons say what to do."""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass

from guvnor.autogenerate.todos import Todo
from guvnor.postgres.quoting import quoted
from tests.schema_pairs.rows import backfill
from tests.schema_pairs.things import Schema

# Autogenerate says these when it has failed, so none may be in a revision.
FAILURES = (Todo.NOTHING_FOUND, Todo.REFUSED, Todo.LEFT, Todo.REACHES_OUTSIDE)
# "If the table is small, use this", and the like: the statements below are run.
USED = (
    Todo.REWRITES_TABLE, Todo.CHANGES_TYPE, Todo.BECOMES_GENERATED, Todo.BLOCKS_WRITERS, Todo.PARTITIONED_KEY,
    Todo.BUILDS_VIEW, Todo.NO_LONGER_COMPUTED,
)  # fmt: skip
DELETED = (Todo.REORDER_COLUMNS, Todo.POSSIBLE_RENAME_OF_TABLE)

_REASONS = {
    kind: re.compile(
        re.sub(r"\\\{\w+\\\}", "(.*)", re.escape(" ".join(f"TODO: {kind.value}".split()))), re.DOTALL
    )
    for kind in Todo
}


@dataclass
class Found:
    """One TODO.

    :ivar sql: the statements below it.
    :ivar said: what it says.
    """

    kind: Todo
    node: ast.Call
    said: str
    sql: str = ""


class UnknownTodoError(Exception):
    """A TODO that is of no kind."""


def find(text: str) -> list[Found]:
    """Find the TODOs of a revision."""
    found = []
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if (
            not isinstance(node, ast.Call)
            or not isinstance(node.func, ast.Attribute)
            or ast.unparse(node.func.value) != "op"
        ):
            continue
        above, number = [], node.lineno - 2
        while lines[number].startswith("    # "):
            above.insert(0, lines[number][6:])
            number -= 1
        if above and above[0].startswith("TODO: "):
            found.append(_found(node, above))
        elif node.func.attr == "execute" and (sql := _string(node.args[0]).strip()).startswith("-- TODO: "):
            found.append(_found(node, [re.sub(r"^\s*-- ?", "", line) for line in sql.splitlines()]))
    return found


def _string(node: ast.expr) -> str:
    return str(ast.literal_eval(node.args[0] if isinstance(node, ast.Call) else node)).strip()


def _found(node: ast.Call, lines: list[str]) -> Found:
    for count in range(len(lines), 0, -1):
        said = " ".join(" ".join(lines[:count]).split())
        for kind, reason in _REASONS.items():
            if reason.fullmatch(said):
                return Found(kind, node, said, "\n".join(lines[count:]))
    raise UnknownTodoError("\n".join(lines))


def used(text: str) -> str:
    """Use the statements below the TODOs, and delete those that have none."""
    lines = text.splitlines()
    for todo in sorted(find(text), key=lambda todo: -todo.node.lineno):
        assert todo.kind in (*USED, *DELETED), todo.said
        instead = f"op.execute({todo.sql!r})" if todo.kind in USED else "pass"
        lines[todo.node.lineno - 1 : todo.node.end_lineno] = [f"    {instead}"]
    return "\n".join(lines) + "\n"


def answered(text: str, first: Schema, second: Schema) -> str | None:
    """Answer all TODOs; None where one asks for statements that a person has to write."""
    todos = find(text)
    if any(
        todo.kind not in (*USED, *DELETED, Todo.FILL_COLUMN, Todo.POSSIBLE_RENAME, Todo.POSSIBLE_RENAME_BACK)
        for todo in todos
    ):
        return None
    if any(_is_renamed_table(todo, first, second) for todo in todos):
        return None  # it takes two revisions
    second_now = _before_renames(first, second, text)
    lines = text.splitlines()
    down = next(number for number, line in enumerate(lines) if line.startswith("def downgrade"))
    for todo in sorted(todos, key=lambda todo: -todo.node.lineno):
        begin, end = todo.node.lineno - 1, todo.node.end_lineno or 0
        back = begin > down
        target = first if back else second_now
        instead = ["    pass"]
        if todo.kind in USED:
            instead = [f"    op.execute({part!r})" for part in [todo.sql]]
        elif todo.kind is Todo.FILL_COLUMN:
            snippet = re.search(r'op\.backfill\(.*?NULL["\']\)', todo.said)
            assert snippet, todo.said
            table, sets, where = ast.literal_eval(snippet[0].removeprefix("op.backfill"))
            instead = [
                f"    op.backfill({table!r}, {sets.replace('...', backfill(target, target[_column(target, sets)]))!r}, {where!r})"
            ]
        elif todo.kind in (Todo.POSSIBLE_RENAME, Todo.POSSIBLE_RENAME_BACK):
            table, sets, where = map(_string, todo.node.args)
            while lines[begin - 1].startswith("    # "):
                begin -= 1
            old, new = _pair_of(first, second, sets, where, back=back)
            if old == new:
                instead = lines[todo.node.lineno - 1 : end]
            elif target[new].facts.get("not null") and not target[new].facts.get("default"):
                name = target.name(new)
                instead = [
                    f"    op.backfill({table!r}, {f'{name} = {backfill(target, target[new])}'!r}, {f'{name} IS NULL'!r})"
                ]
        lines[begin:end] = instead
    return "\n".join(lines) + "\n"


def _is_renamed_table(todo: Found, first: Schema, second: Schema) -> bool:
    if todo.kind is not Todo.POSSIBLE_RENAME_OF_TABLE:
        return False
    both = [(table, second[table.number]) for table in first.of("table") if table.number in second]
    return any(
        f"table {before} is dropped and {after} is added" in todo.said
        for old, new in both
        for before in (" ".join(old.name.split()), " ".join(quoted(old.name).split()))
        for after in (" ".join(new.name.split()), " ".join(quoted(new.name).split()))
    )


def _before_renames(first: Schema, second: Schema, text: str) -> Schema:
    """The second schema while the upgrade fills columns: it renames types only after that."""
    found = copy.deepcopy(second)
    said = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    for thing in found.things.values():
        if thing.kind in ("enum", "domain", "composite") and thing.number in first:
            renames = [f"RENAME TO {name};" for name in (thing.name, quoted(thing.name))]
            if any(isinstance(sql, str) and rename in sql for sql in said for rename in renames):
                thing.name = first[thing.number].name
    return found


def _column(schema: Schema, text: str) -> int:
    """The column whose name a text begins with; no two columns have the same."""
    there = schema.of("column")
    names = {quoted(c.name): c.number for c in there} | {c.name: c.number for c in there}
    return names[max((name for name in names if text.startswith((name + " ", name + ":"))), key=len)]


def _pair_of(first: Schema, second: Schema, sets: str, where: str, *, back: bool) -> tuple[int, int]:
    source, target = (second, first) if back else (first, second)
    old = where.removesuffix(" IS NOT NULL").rpartition(" AND ")[2]
    return _column(source, f"{old} "), _column(target, sets)
