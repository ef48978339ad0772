"""Is every help text whole on a terminal of 80 columns?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from guvnor.cli import main

WIDTH = 80


def contexts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """A context for each command and group on such a terminal, of which click leaves two columns empty."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH - 2)
    yield context
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from contexts(below, name, context)


ALL = list(contexts(main, "guvnor"))
each = pytest.mark.parametrize("context", ALL, ids=lambda context: context.command_path)


@each
def test_every_line_is_whole(context):
    usage, *lines = context.get_help().splitlines()
    assert usage.startswith(f"Usage: {context.command_path} [OPTIONS]")
    for line in lines:
        assert len(line) <= WIDTH, line
        assert "..." not in line, line
        assert line.count("[") == line.count("]"), f"a default or a variable is torn apart: {line}"


@each
def test_every_flag_is_described(context):
    flags = [flag for flag in context.command.params if isinstance(flag, click.Option)]
    assert [flag.name for flag in flags if not flag.help] == []


@each
def test_lists_show_the_first_sentence_of_each_command(context):
    listed = context.get_help().partition("Commands:\n")[2]
    shown = dict(re.findall(r"^  (\S+) +(\S.*)$", listed, re.MULTILINE))
    below = {c.info_name: c.get_help() for c in ALL if c.parent is context}
    assert shown.keys() == below.keys()
    for name, text in below.items():
        paragraph = " ".join(text.split("\n\n")[1].split())
        assert shown[name].endswith(".")
        assert paragraph.startswith(shown[name])
