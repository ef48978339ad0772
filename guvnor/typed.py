"""The command that a person typed, so that a message can repeat it: ``guvnor``, ``alembic`` or a script."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_USERINFO = re.compile(r"://.*@", re.DOTALL)
_COMMAND = "--backup-command"  # may hold a key of the store that it writes to
_PRODUCTION = "GUVNOR_ENV"
# Commands that can lose data, each where a line or a part of it begins.
_GUARDED = re.compile(
    rf"(?m)(^|: )(?!{_PRODUCTION}=)(?=(?:[A-Z_]+=\S+ )*"
    r"(?:guvnor (?:migrate (?:up|down|deploy|force|repair|adopt)|db mark|restore)"
    r"|alembic .*\b(?:upgrade|downgrade|stamp)|\S*scripts/deploy)\b)"
)


@dataclass(frozen=True)
class TypedCommand:
    """A command line.

    :ivar program: what was run: ``guvnor``, ``alembic``, ``scripts/deploy``.
    :ivar words: its arguments.
    :ivar flags: the flags that the command takes.
    :ivar direction: ``up`` or ``down`` where running it again goes on from a failed step in that direction;
        empty for every other command.
    """

    program: str
    words: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    direction: str = ""

    def line(self) -> str:
        """Return the line as a shell reads it, without what may hold a password."""
        before = (self.program, *self.words)
        return shlex.join(map(_without_secret, ("", *before), before))

    def with_setting(self, setting: str, value: str) -> str:
        """Return the line with a flag that sets a setting, instead of the value that it may have given.

        :param setting: its name: ``confirm``.
        """
        flag, words = f"--{setting.replace('_', '-')}", list(self.words)
        if self.program == "alembic":
            given = [
                n for n, word in enumerate(words) if word.startswith(f"{setting}=") and words[n - 1] == "-x"
            ]
            for place in reversed(given):
                del words[place - 1 : place + 1]
            words = ["-x", f"{setting}={value}", *words]
        else:
            while flag in words:
                del words[words.index(flag) : words.index(flag) + 2]
            words = [word for word in words if not word.startswith(f"{flag}=")] + [flag, value]
        return TypedCommand(self.program, tuple(words)).line()


def _without_secret(before: str, word: str) -> str:
    """Return a word of a command line, masked where it may hold a password.

    :param before: the word before it.
    """
    if before == _COMMAND:
        return "COMMAND"
    if word.startswith(f"{_COMMAND}="):
        return f"{_COMMAND}=COMMAND"
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{equals}***" if "password" in value.lower() else _USERINFO.sub("://***@", word)


_typed: TypedCommand | None = None


def environment() -> str:
    """Return the variable that makes this command one in production, as a shell sets it before a command.

    It may have been set for this command alone. Empty where no variable does so.
    """
    given = os.environ.get(_PRODUCTION, "").strip()
    return f"{_PRODUCTION}={given} " if given.lower() in ("production", "prod") else ""


def carried(text: str) -> str:
    """Return commands to type, as in a ``Next:``, so that they run in production where this command does."""
    return _GUARDED.sub(rf"\g<1>{environment()}", text) if environment() else text


def remember(program: str, words: Sequence[str], direction: str = "", flags: Iterable[str] = ()) -> None:
    """Remember what was typed; see :class:`TypedCommand`."""
    global _typed
    _typed = TypedCommand(program, tuple(words), frozenset(flags), direction)


def again(before: str = "", *, when: str = "") -> str:
    """Return the line that repeats the command, for a ``Next:``.

    :param before: variables to set for it: ``GUVNOR_BACKUP=no``.
    :param when: when to do so, in words.
    """
    if _typed is None:
        line = f"Run the same command again{f' with {before}' if before else ''}"
        return f"{line}{f' {when}' if when else ''}."
    line = " ".join(filter(None, (before, _typed.line())))
    return f"{environment()}{line}" + (f"   # {when}" if when else "")


def again_with(setting: str, value: str, *, when: str) -> str:
    """Return the line that repeats the command with a setting, for a ``Next:``; see :func:`again`."""
    if _typed is None:
        flag = f"--{setting.replace('_', '-')}"
        return f"Run the same command with {flag} {value} (plain alembic: -x {setting}={value}), {when}."
    return f"{environment()}{_typed.with_setting(setting, value)}   # {when}"


def again_allowing(setting: str, *, when: str) -> str:
    """Return the line that repeats the command with a setting at ``yes``, as that command takes it.

    :param setting: its name: ``allow_plaintext``.
    """
    flag, variable = f"--{setting.replace('_', '-')}", f"GUVNOR_{setting.upper()}=yes"
    if _typed is not None and _typed.program == "alembic":
        return again_with(setting, "yes", when=when)
    if _typed is not None and flag in _typed.flags:
        return f"{again_with_flag(flag, '')}   # {when}"
    return again(variable, when=when)


def or_flag(flag: str, value: str = "") -> str:
    """Return words that name a flag as another way, where the command takes it; else nothing."""
    return f"; or {f'{flag} {value}'.strip()}" if _typed is not None and flag in _typed.flags else ""


def again_with_flag(flag: str, otherwise: str) -> str:
    """Return the line that repeats the command with one flag more.

    :param otherwise: the line where nothing was typed.
    """
    if _typed is None:
        return otherwise
    return f"{environment()}{TypedCommand(_typed.program, (*_typed.words, flag)).line()}"


def going(direction: str) -> str:
    """Return the command that goes on in a direction: what was typed where it does, else ours.

    :param direction: ``up`` or ``down``.
    """
    if _typed is not None and _typed.direction == direction:
        return f"{environment()}{_typed.line()}"
    return f"{environment()}guvnor migrate {direction}"
