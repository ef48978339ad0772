"""Does every command that a message or a page names exist, with each of its flags?"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from guvnor import typed
from guvnor.cli import main
from guvnor.typed import TypedCommand
from tests.support.command import CHECKOUT

_COMMAND = re.compile(r"\bguvnor((?: [a-z][a-z-]*)+|(?= -))((?: (?!-- |--\s|--$)[^\s`|;,)\"&>]+)*)")
_GROUPS = {"migrate", "schema", "db", "config"}


def strings(path: Path) -> Iterator[str]:
    """Each string of a module, with a word for each value in an f-string."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def named() -> set[tuple[str, str]]:
    """What the sources, the pages, the scripts and the examples name: a file and a command with its flags."""
    found = set()
    for path in sorted((CHECKOUT / "guvnor").rglob("*.py")):
        found |= {(path.name, each[0]) for text in strings(path) for each in _COMMAND.finditer(text)}
    places = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    places += [path for path in (CHECKOUT / "deploy").rglob("*") if path.is_file()]
    for path in places:
        found |= {(path.name, each[0]) for each in _COMMAND.finditer(path.read_text("utf-8"))}
    return found


def resolved(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """The command that words begin with, and the words after it."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return (command, words) if command is not main else None


def test_every_command_that_is_named_exists_with_its_flags() -> None:
    wrong, seen = [], 0
    for place, line in sorted(named()):
        words = line.split()[1:]
        found = resolved(words)
        if found is None:
            if words[0] in _GROUPS:
                wrong.append((place, line))
            continue
        command, rest = found
        seen += 1
        if isinstance(command, click.Group) and rest and re.fullmatch("[a-z]+", rest[0]):
            if words[0] in _GROUPS and not line.startswith("guvnor migrate of"):
                wrong.append((place, line))
            continue
        flags = [re.sub(r"[=.:'\]/].*", "", word) for word in rest if word.startswith("--")]
        flags = [flag for flag in flags if flag != "--VALUE"]
        if flags:
            path = words[: len(words) - len(rest)]
            text = CliRunner().invoke(main, [*path, "--help"]).output
            wrong += [(place, line) for flag in flags if not re.search(rf"{flag}\b", text)]
    assert seen > 100
    assert wrong == []


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    typed._typed = None


@pytest.mark.parametrize(
    ("program", "words", "line"),
    [
        ("guvnor", ("migrate", "down"), "guvnor migrate down --confirm new"),
        ("guvnor", ("migrate", "down", "--confirm", "old"), "guvnor migrate down --confirm new"),
        ("guvnor", ("migrate", "down", "--confirm=old"), "guvnor migrate down --confirm new"),
        ("scripts/deploy", ("--to", "3"), "scripts/deploy --to 3 --confirm new"),
        ("alembic", ("downgrade", "-1"), "alembic -x confirm=new downgrade -1"),
        ("alembic", ("-x", "confirm=old", "downgrade", "-1"), "alembic -x confirm=new downgrade -1"),
    ],
)
def test_a_confirmation_is_added_as_the_program_takes_it(program, words, line):
    typed.remember(program, words)
    assert typed.again_with("confirm", "new", when="if you mean it") == f"{line}   # if you mean it"


def test_a_command_is_repeated_as_a_shell_reads_it_and_without_its_password():
    command = TypedCommand("guvnor", ("migrate", "up", "--shadow-dsn", "postgres://me:s3@cret@db/scratch x"))
    assert command.line() == "guvnor migrate up --shadow-dsn 'postgres://***@db/scratch x'"
    for words in (
        ("--shadow-dsn", "host=db password='s3 cret'"),
        ("--shadow-dsn=host=db password=s3cret",),
        ("--backup-command", "curl --header 'Key: s3cret'"),
        ("--backup-command=curl --header 'Key: s3cret'",),
    ):
        line = TypedCommand("scripts/deploy", words).line()
        assert "cret" not in line
        assert words[0].partition("=")[0] in line


def test_only_a_command_that_goes_on_stands_for_up():
    assert typed.going("up") == "guvnor migrate up"
    typed.remember("alembic", ("upgrade", "head"), "up")
    assert (typed.going("up"), typed.going("down")) == ("alembic upgrade head", "guvnor migrate down")


def test_the_next_step_of_a_script_stays_in_production(monkeypatch):
    monkeypatch.setenv("GUVNOR_ENV", "production")
    typed.remember("scripts/deploy", ("--to", "3"), "up", ("--to",))
    for line in (
        typed.again(),
        typed.again_with("confirm", "abc", when="then"),
        typed.again_with_flag("--no-verify", ""),
        typed.going("up"),
    ):
        assert line.startswith("GUVNOR_ENV=production scripts/deploy --to 3")
        assert typed.carried(line) == line
    assert typed.going("down") == "GUVNOR_ENV=production guvnor migrate down"
    assert typed.carried("guvnor migrate status\nthen: guvnor migrate up") == (
        "guvnor migrate status\nthen: GUVNOR_ENV=production guvnor migrate up"
    )
