"""How this process was called: what messages repeat, and where a misplaced command belongs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from guvnor import typed

# The scripts name themselves in it; each stands for a command of two words.
SCRIPT = "GUVNOR_TYPED"
_WORDS = "guvnor.words"
# Commands that go on from a failed step when they are run again.
_DIRECTIONS: dict[tuple[str, ...], str] = {
    ("migrate", "up"): "up",
    ("migrate", "deploy"): "up",
    ("migrate", "down"): "down",
}


def remember(context: click.Context) -> None:
    """Remember a command of ``guvnor``, or of the script that calls it, for messages that repeat it."""
    words: Sequence[str] = context.find_root().meta.get(_WORDS, sys.argv[1:])
    direction = _DIRECTIONS.get(tuple(_path(context)), "")
    flags = [flag for option in context.command.params for flag in option.opts]
    if script := os.environ.get(SCRIPT):
        typed.remember(script, words[2:], direction, flags)
    else:
        typed.remember("guvnor", words, direction, flags)


def remember_alembic(options: Any) -> None:
    """Remember a command of plain ``alembic``.

    :param options: what Alembic read from the command line; None where it was called from Python.
    """
    if not hasattr(options, "cmd"):
        return
    target = str(getattr(options, "revision", ""))
    # Repeated after some of its steps are done, a command of several relative ones would go too far.
    steps = {"upgrade": "up", "downgrade": "down"} if target[:1] not in "+-" or target[1:] == "1" else {}
    typed.remember("alembic", sys.argv[1:], steps.get(options.cmd[0].__name__, ""))


def keep_words(context: click.Context, words: Sequence[str]) -> None:
    """Keep the arguments of a call for :func:`remember`."""
    context.meta[_WORDS] = tuple(words)


def elsewhere(context: click.Context, name: str) -> str | None:
    """Return where a command stands that was typed in the wrong place: ``guvnor migrate up`` for ``up``."""
    root = context.find_root().command
    assert isinstance(root, click.Group)
    return next((" ".join(("guvnor", *path)) for path in _commands(root) if path[-1] == name), None)


def _commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*above, name))


def _path(context: click.Context) -> list[str]:
    names: list[str] = []
    here: click.Context | None = context
    while here is not None and here.parent is not None:
        names.insert(0, here.info_name or "")
        here = here.parent
    return names
