"""The operations of a generated revision: a few lines of Python each, and the phase in which they run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, auto

from guvnor.autogenerate.todos import Todo
from guvnor.postgres import escaped_colons
from guvnor.schema.statement import Statement, terminated

WIDTH = 100  # of a line of SQL or a comment, before the indentation of the function's body

# How SQLAlchemy's text() reads colons: one before a word starts a parameter, unless a backslash precedes it.
_PARAMETER = re.compile(r"(?<![:\w$\\]):(?=[\w$]+(?![:\w$]))")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*""")  # comments too: an apostrophe in them is none
_ESCAPED = re.compile(r"\\(?=:[\w$]*(?![:\w$]))")


class Phase(IntEnum):
    """When an operation runs.

    Everything before the first online step is one transaction, in which new objects come first and changes of
    tables that the application uses come last. What takes away comes after every online step and every TODO:
    when one of those fails, nothing is lost yet, and what was enforced still is.
    """

    RENAME_BACK = auto()
    ENUM_VALUE = auto()  # online, and before whatever uses the value
    DETACH = auto()  # only what would prevent a change
    CREATE = auto()
    CHANGE = auto()
    REPLACE = auto()  # together with the objects that depend on it
    ATTACH = auto()
    SWAP = auto()  # what an object of the same kind has just replaced
    BACKFILL = auto()  # online from here on
    NOT_NULL = auto()
    VALIDATE = auto()
    BUILD = auto()
    FINISH = auto()  # in the next transaction
    VALIDATE_LAST = auto()  # online
    LEAVE = auto()  # what could not be written
    UNTIE = auto()  # from here on, what takes away: first what depends on the rest
    VALIDATE_TIED = auto()  # online
    DROP_ONLINE = auto()
    DROP = auto()  # in the last transaction: what is done again after a failure may read what is dropped here
    TAKE_NAME = auto()  # of what has just been dropped
    REMAKE = auto()  # of a type, after all that used it is gone
    UNLOAD = auto()  # of an extension, in the same way
    RENAME = auto()
    RENAMED = auto()  # what names something by its new name


# When an online operation runs.
_PHASES = {
    "add_enum_value": Phase.ENUM_VALUE,
    "set_not_null": Phase.NOT_NULL,
    "validate_constraint": Phase.VALIDATE,
    "create_index_concurrently": Phase.BUILD,
    "drop_index_concurrently": Phase.DROP_ONLINE,
}

# Why a statement breaks a rule of lint, by the kind of what it replaces.
_REPLACES = {
    "constraint": {"ban-drop-constraint": "the same statement adds it again."},
    "index": {"renaming-object": "it takes the name of the index that it replaces."},
}

# Which arguments of an operation are names instead of SQL, where that is not the first one alone.
_NAMES = {"set_not_null": (0, 1), "validate_constraint": (0, 1)}

_STOPS = "Fails when a row holds NULL: if there may be one, put op.backfill before it."


@dataclass(frozen=True)
class EmittedOperation:
    """An operation of Alembic that a revision calls.

    :ivar name: its name, such as ``execute`` or ``validate_constraint``.
    :ivar remarks: comments above it, for the reviewer.
    :ivar todo: why a person has to write it; until then, lint and the pre-flight checks refuse it.
    :ivar shown: the statements that a TODO shows in place of the operation.
    :ivar reasons: why it breaks a rule of lint on purpose, by rule, where that is not what
        :mod:`guvnor.autogenerate.ignores` says of every operation.
    """

    phase: Phase
    name: str
    arguments: tuple[str, ...]
    keywords: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    todo: Todo | None = None
    shown: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    def code(self) -> str:
        """Return the code of the operation in the revision's function."""
        lines = [f"    # {line}" for remark in self.remarks for line in textwrap.wrap(remark, WIDTH)]
        if self.name == "execute":
            return "\n".join([*lines, f"    op.execute({self._sql()})"])
        written = [
            _on_one_line(text) if place in _NAMES.get(self.name, (0,)) else _argument(text)
            for place, text in enumerate(self.arguments)
        ]
        written += [f"{name}={_argument(text)}" for name, text in self.keywords.items()]
        lines.append(f"    op.{self.name}({', '.join(written)})")
        if len(lines[-1]) > WIDTH + 4 or "\n" in lines[-1]:
            lines[-1:] = [f"    op.{self.name}(", *(f"        {text}," for text in written), "    )"]
        return "\n".join(lines)

    @property
    def needs_text(self) -> bool:
        """Whether its SQL has a backslash before a colon that older releases of this tool would take out."""
        return self.name == "execute" and escaped_colons.is_in(self.arguments[0])

    def _sql(self) -> str:
        """Return the SQL as a Python expression."""
        (sql,) = self.arguments
        if not self.needs_text:
            return _argument(sql, closing=" " * 4)
        escaped = _PARAMETER.sub(r"\\:", _ESCAPED.sub(r"\\\\", sql))
        return f"text({_argument(escaped, closing=' ' * 4)})"


def imports(operations: Iterable[EmittedOperation]) -> set[str]:
    """Return the imports that operations need beside ``op``."""
    return {"from sqlalchemy import text"} if any(found.needs_text for found in operations) else set()


def execute(
    phase: Phase, sql: str, *remarks: str, reasons: Mapping[str, str] | None = None
) -> EmittedOperation:
    """Return the operation that runs one statement.

    :param reasons: see :class:`EmittedOperation`.
    """
    return EmittedOperation(phase, "execute", (sql,), remarks=remarks, reasons=reasons or {})


def emitted(
    phase: Phase,
    statements: Iterable[Statement],
    *remarks: str,
    reasons: Mapping[str, str] | None = None,
) -> Iterator[EmittedOperation]:
    """Return the operations for statements on one object; after an online one, the rest runs at the end.

    :param reasons: see :class:`EmittedOperation`.
    """
    for statement in statements:
        notes = [*remarks, f"DATA LOSS: {statement.loses}."] if statement.loses else list(remarks)
        own = {**_REPLACES.get(statement.replaces, {}), **(reasons or {})}
        if statement.operation:
            name, *arguments = statement.operation
            online = _PHASES[name]
            if name == "set_not_null":
                notes.append(_STOPS)
            if online is Phase.VALIDATE and phase >= Phase.FINISH:
                online = Phase.VALIDATE_LAST if phase < Phase.UNTIE else Phase.VALIDATE_TIED
            yield EmittedOperation(
                online, name, tuple(arguments), statement.keywords, tuple(notes), reasons=own
            )
            if online > phase:
                phase = Phase.TAKE_NAME if online is Phase.DROP_ONLINE else Phase.FINISH
        elif statement.unless or statement.when:
            yield guarded(phase, statement, *notes, reasons=own)
        else:
            yield execute(phase, "\n".join(statement.clauses), *notes, reasons=own)


def todo(phase: Phase, kind: Todo, statements: Iterable[str] = (), **facts: str) -> EmittedOperation:
    """Return a TODO for a person, with the SQL as far as it is known.

    :param facts: what the reason names.
    """
    why = kind.value.format(**facts)
    shown = tuple(statements)
    lines = [*textwrap.wrap(f"TODO: {why}", WIDTH - 7), *terminated(shown).splitlines()]
    sql = "\n".join(f"-- {line}" for line in lines)
    return EmittedOperation(phase, "execute", (sql,), todo=kind, shown=shown)


def tried(operation: EmittedOperation) -> list[EmittedOperation]:
    """Return what is run of an operation on empty tables: of a TODO, the statements that it shows."""
    if operation.todo is None or operation.name != "execute":
        return [operation]
    shown = operation.shown if operation.todo.complete else ()
    return [execute(operation.phase, sql) for sql in shown if sql]


def as_todo(operation: EmittedOperation, kind: Todo, **facts: str) -> EmittedOperation:
    """Return an operation that a person has to confirm: with a TODO in a comment above it.

    :param facts: what the reason names.
    """
    remarks = (f"TODO: {kind.value.format(**facts)}", *operation.remarks)
    return replace(operation, remarks=remarks, todo=kind)


def guarded(
    phase: Phase, statement: Statement, *remarks: str, reasons: Mapping[str, str] | None = None
) -> EmittedOperation:
    """Return the operation that runs a statement only if a query, which takes no lock, says so.

    :param reasons: see :class:`EmittedOperation`.
    """
    inner = terminated(["\n".join(statement.clauses)])
    tag = "$$" if "$$" not in inner else "$guard$"
    lines = [
        f"DO {tag}",
        "BEGIN",
        f"    IF {'' if statement.when else 'NOT '}EXISTS (",
        indented(statement.when or statement.unless, " " * 8),
        "    ) THEN",
        indented(inner, " " * 8),
        "    END IF;",
        "END",
        tag,
    ]
    return execute(phase, "\n".join(lines), *remarks, reasons=reasons)


def call(name: str, *arguments: str) -> str:
    """Return the call of an operation on one line, as a comment shows it."""
    return f"op.{name}({', '.join(_on_one_line(text) for text in arguments)})"


def _on_one_line(text: str) -> str:
    return repr(text) if set('"\\\n') & set(text) else f'"{text}"'


def _argument(text: str, closing: str = " " * 8) -> str:
    """Return an argument of an operation as a Python string.

    :param closing: the indentation of the closing triple quotes.
    """
    if "\n" not in text and len(text) <= WIDTH - 12:
        return _on_one_line(text)
    if '"""' in text:
        return repr(text)
    prefix = "r" if "\\" in text else ""
    if "$function$" in text or "$procedure$" in text:  # the server stores a body with its white space
        return f'{prefix}"""{text.strip()}\n"""'
    return f'{prefix}"""\n{indented(text.strip(), " " * 8)}\n{closing}"""'


def indented(sql: str, prefix: str) -> str:
    """Indent SQL, except lines that begin within a string or a name, which would change it."""
    inside = [match.span() for match in _QUOTED.finditer(sql) if not match[0].startswith("--")]

    def indent(match: re.Match[str]) -> str:
        begins_within = any(start < match.start() < end for start, end in inside)
        return "" if begins_within else prefix

    return re.sub(r"^(?=[^\n]*\S)", indent, sql, flags=re.MULTILINE)


def body(operations: Iterable[EmittedOperation]) -> str:
    """Return operations as the body of a function, in the order of their phases."""
    return "\n".join(found.code() for found in sorted(operations, key=lambda found: found.phase))
