"""What a revision may allow itself beyond the limits of every revision, each with the reason.

They stand beside ``revision`` and ``down_revision``, the reason on the same line or directly above it::

    max_idle = "10min"  # reads the addresses from a file

    # regions has 40 rows, and the application reads it once an hour
    max_stall = "5s"
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from guvnor.config import seconds, stall

_IDLE = 60.0  # seconds that a transaction may be idle where its revision says nothing
_DIRECTIVE = re.compile(r"(noqa|nosec|type:|mypy:|ruff:|pylint:|fmt:)", re.IGNORECASE)  # to a tool: no reason


@dataclass(frozen=True)
class Allowance:
    """A limit that a revision sets for itself.

    :ivar name: what it limits: ``max_idle``, ``max_stall``.
    :ivar seconds: the limit.
    :ivar text: the limit as the file has it.
    :ivar reason: why, in the words of the file.
    """

    name: str
    seconds: float
    text: str
    reason: str

    def __str__(self) -> str:
        """Return what the history says: ``max_stall 5s: why``."""
        return f"{self.name} {self.text}: {self.reason}"


class AllowanceError(ValueError):
    """A revision does not say properly what it allows itself; the message goes on after the file's name."""


def max_idle(revision: ModuleType | None) -> float:
    """Return the seconds for which the server lets a revision's transaction be idle: its locks last as long.

    :param revision: its file as a module; None for a step that runs none.
    :raises AllowanceError: when the file does not say it as this module's docstring does.
    """
    found = _read(revision, "max_idle", _idle, "10min")
    return found.seconds if found else _IDLE


def max_stall(revision: ModuleType | None) -> Allowance | None:
    """Return how long a revision says that it may make the application wait; None when it says nothing.

    :param revision: its file as a module; None for a step that runs none.
    :raises AllowanceError: when the file does not say it as this module's docstring does.
    """
    return _read(revision, "max_stall", stall, "5s")


def _idle(text: str) -> float:
    found = seconds(text)
    if found < 0.001:  # 0 would mean no limit
        raise ValueError(f"{text!r} is too short: 1ms is the shortest")
    return found


def _read(
    revision: ModuleType | None, name: str, read: Callable[[str], float], example: str
) -> Allowance | None:
    """Read one limit from a revision, and its reason from the revision's file."""
    if revision is None or not hasattr(revision, name):
        return None
    value = getattr(revision, name)
    try:
        if not isinstance(value, str):
            raise ValueError("it has to be text")
        limit = read(value)
    except ValueError as error:
        raise AllowanceError(f'says {name} = {value!r}: {error}. Write {name} = "{example}"  # why') from None
    reason = _reason(revision, name)
    if reason is None:
        raise AllowanceError(
            f"does not say why it needs {name} = {value!r}. "
            f'Write the reason beside it: {name} = "{value}"  # why'
        )
    return Allowance(name, limit, value.strip(), reason)


@cache  # the pre-flight checks read the file as it is loaded; it may be edited while the run waits for a lock
def _reason(revision: ModuleType, name: str) -> str | None:
    """Return the comment on the last line of an assignment, else the one directly above it."""
    with tokenize.open(revision.__file__ or "") as file:
        source = file.read()
    comments = {
        token.start[0]: (token.string, not token.line[: token.start[1]].strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = [node for node in ast.parse(source).body if _assigns(node, name)]
    if not found:
        return None
    node = found[-1]
    beside, _ = comments.get(node.end_lineno or 0, ("", False))
    above: list[str] = []
    line = node.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    return next(filter(None, (_words([beside]), _words(above))), None)


def _assigns(node: ast.stmt, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _words(comments: list[str]) -> str:
    """Return comments as one line of text; a directive to a tool, such as ``noqa``, is no reason."""
    texts = [comment.lstrip("#: ").rstrip() for comment in comments]
    return " ".join(text for text in texts if re.search(r"\w", text) and not _DIRECTIVE.match(text))
