"""The steps of a revision that is being written: a few lines of Python each, and when they run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from guvnor.schema.statement import Statement, terminated

WIDTH = 100  # of a line of SQL or a comment, before the indentation of the function's body

# How SQLAlchemy's text() reads colons: one before a word is a parameter, unless a backslash is before it.
_PARAMETER = re.compile(r"(?<![:\w$\\]):(?=[\w$]+(?![:\w$]))")
_ESCAPED = re.compile(r"\\(?=:[\w$]*(?![:\w$]))")


class Phase(IntEnum):
    """When a step runs.

    Until the first online step all is one transaction, in which new objects come first and what touches
    tables that the application uses comes last.
    """

    RENAME_BACK = auto()
    ENUM_VALUE = auto()  # online, and before whatever uses the value
    DETACH = auto()
    CREATE = auto()
    CHANGE = auto()
    DROP = auto()
    ATTACH = auto()
    BACKFILL = auto()  # online from here on
    NOT_NULL = auto()
    VALIDATE = auto()
    BUILD = auto()
    DROP_ONLINE = auto()
    FINISH = auto()  # in the last transaction
    VALIDATE_LAST = auto()  # online
    RENAME = auto()


# When an online operation runs.
_PHASES = {
    "add_enum_value": Phase.ENUM_VALUE,
    "set_not_null": Phase.NOT_NULL,
    "validate_constraint": Phase.VALIDATE,
    "create_index_concurrently": Phase.BUILD,
    "drop_index_concurrently": Phase.DROP_ONLINE,
}

ADDED_AGAIN = "lint: ignore ban-drop-constraint: its statement adds it again"
_STOPS = "Stops at a row that holds NULL: where there may be one, op.backfill comes before it."


@dataclass(frozen=True)
class EmittedOperation:
    """A step of a revision.

    :ivar code: lines of Python.
    :ivar remarks: comments above it, for the reviewer.
    :ivar todo: whether it is left to a person; lint and the pre-flight checks refuse it until it is done.
    """

    phase: Phase
    code: str
    remarks: tuple[str, ...] = ()
    todo: bool = False

    def lines(self) -> str:
        """Return the step as it stands in the revision."""
        comments = [f"# {line}" for remark in self.remarks for line in textwrap.wrap(remark, WIDTH)]
        return "\n".join([*comments, self.code])


def execute(phase: Phase, sql: str, *remarks: str) -> EmittedOperation:
    """Return a step that runs one statement."""
    return EmittedOperation(phase, f"op.execute({literal(sql)})", remarks)


def call(
    phase: Phase, operation: str, *arguments: str, remarks: Sequence[str] = (), **named: str
) -> EmittedOperation:
    """Return a step that calls an operation; its arguments are taken as they are."""
    written = [_argument(argument) for argument in arguments]
    written += [f"{name}={_argument(argument)}" for name, argument in named.items()]
    code = f"op.{operation}({', '.join(written)})"
    if len(code) > WIDTH or "\n" in code:
        lines = textwrap.indent(",\n".join(written), "    ")
        code = f"op.{operation}(\n{lines},\n)"
    return EmittedOperation(phase, code, tuple(remarks))


def emitted(
    phase: Phase, statements: Iterable[Statement], *remarks: str, back: bool = False
) -> Iterator[EmittedOperation]:
    """Return what runs the statements for one object; what follows an online operation runs at the end.

    :param back: whether they are of a downgrade, which lint does not look at.
    """
    for statement in statements:
        notes = [*remarks, f"DATA LOSS: {statement.loses}."] if statement.loses else list(remarks)
        if statement.replaces == "constraint" and not back:
            notes.append(ADDED_AGAIN)
        if statement.replaces == "index":
            notes.append("lint: ignore renaming-object: it takes the name of the index that it replaces")
        if statement.operation:
            name, *arguments = statement.operation
            online = _PHASES[name]
            if name == "set_not_null":
                notes.append(_STOPS)
            if phase is Phase.FINISH and online is Phase.VALIDATE:
                online = Phase.VALIDATE_LAST
            yield call(online, name, *arguments, remarks=notes, **statement.keywords)
            phase = max(phase, Phase.FINISH) if online > phase else phase
        elif statement.unless or statement.when:
            yield guarded(phase, statement, *notes)
        else:
            yield execute(phase, "\n".join(statement.clauses), *notes)


def todo(phase: Phase, why: str, statements: Iterable[str] = ()) -> EmittedOperation:
    """Return a step that a person has to write, with what is known of it."""
    lines = textwrap.wrap(f"TODO: {why}", WIDTH - 7)
    lines += terminated(statements).splitlines()
    return EmittedOperation(
        phase, f"op.execute({literal(chr(10).join(f'-- {line}' for line in lines))})", todo=True
    )


def guarded(phase: Phase, statement: Statement, *remarks: str) -> EmittedOperation:
    """Return what looks, before it locks anything, whether a statement has to run."""
    inner = terminated(["\n".join(statement.clauses)])
    tag = "$$" if "$$" not in inner else "$guard$"
    lines = [
        f"DO {tag}",
        "BEGIN",
        f"    IF {'' if statement.when else 'NOT '}EXISTS (",
        textwrap.indent(statement.when or statement.unless, " " * 8),
        "    ) THEN",
        indented(inner, " " * 8),
        "    END IF;",
        "END",
        tag,
    ]
    return execute(phase, "\n".join(lines), *remarks)


def literal(sql: str) -> str:
    """Return SQL as a Python string for ``op.execute``, in which a colon may begin a parameter."""
    return string(_PARAMETER.sub(r"\\:", _ESCAPED.sub(r"\\\\", sql)))


def string(text: str, indent: str = "    ") -> str:
    """Return text as a Python string; several lines stand between triple quotes.

    :param indent: of lines that are not kept to the letter.
    """
    if '"""' in text:
        return repr(text)
    if "\n" not in text and '"' not in text and "\\" not in text and len(text) <= WIDTH - 12:
        return f'"{text}"'
    prefix = "r" if "\\" in text else ""
    if kept_to_the_letter(text):
        return f'{prefix}"""{text.strip()}\n"""'
    return f'{prefix}"""\n{indented(text.strip(), indent)}\n"""'


def _argument(text: str) -> str:
    """Return an argument of an operation; a name must not get blank space around it."""
    return string(text, indent="") if "\n" in text or len(text) > WIDTH - 12 else _short(text)


def _short(text: str) -> str:
    return f'"{text}"' if '"' not in text and "\\" not in text else repr(text)


def indented(text: str, prefix: str) -> str:
    """Indent SQL as the server prints it, but not lines that begin within a string: they would change."""
    lines, inside = [], False
    for line in text.splitlines(keepends=True):
        lines.append(line if inside or not line.strip() else prefix + line)
        if inside or not line.lstrip().startswith("--"):
            inside ^= line.count("'") % 2 == 1
    return "".join(lines)


def kept_to_the_letter(text: str) -> bool:
    """Tell whether there is a function's body in a text: the server keeps it with its blank space."""
    return "$function$" in text or "$procedure$" in text


def body(steps: Sequence[EmittedOperation]) -> str:
    """Return steps as the body of a function, indented, in the order of their phases."""
    lines = []
    for step in sorted(steps, key=lambda step: step.phase):
        if kept_to_the_letter(step.code):
            head, _, tail = step.lines().partition("op.execute(")
            lines += [*textwrap.indent(head, "    ").splitlines(), f"    op.execute({tail}"]
        elif step.code.startswith("op.execute("):
            comments = step.lines().removesuffix(step.code)
            lines.append(textwrap.indent(comments, "    ") + indented(step.code, "    "))
        else:
            lines.append(textwrap.indent(step.lines(), "    "))
    return "\n".join(lines)
