"""The command line. Each command calls one library function and shows its result; nothing else prints."""

from __future__ import annotations

import re
import sys
from typing import Any, NoReturn

import click

from guvnor import __version__, logs, records
from guvnor.cli import invocation
from guvnor.cli.base import Group, json_option, print_json
from guvnor.cli.configuration import config_group
from guvnor.cli.db import db
from guvnor.cli.deploy import deploy
from guvnor.cli.migrate import migrate
from guvnor.cli.restore import restore
from guvnor.cli.schema import schema
from guvnor.cli.streams import say
from guvnor.config import MASK
from guvnor.errors import ExitCode, UsageError

_EXTRA = re.compile(r"(Got unexpected extra arguments?) \((.*)\)")  # click shows a tuple
_USERINFO = re.compile(r"://[^\s]*@")


class Root(Group):
    """The root of the command line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Keep the words of the call, which messages repeat."""
        words = list(args)
        context = super().make_context(info_name, args, parent, **extra)
        invocation.keep_words(context, words)
        return context

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and mask a connection string that was typed in the wrong place in the error message."""
        records.open_closed_streams()
        kwargs.setdefault("prog_name", "guvnor")  # not `python -m guvnor`, for which no shell completes
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            message = error.format_message()
            shown = _USERINFO.sub(f"://{MASK}@", message)
            shown = _EXTRA.sub(r"\1: \2", shown)
            if logs.everything_in_json({}):
                _wrong_usage(error, shown)
            (error if shown == message else click.UsageError(shown, getattr(error, "ctx", None))).show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(ExitCode.INTERRUPTED)


def _wrong_usage(error: click.ClickException, shown: str) -> NoReturn:
    """Leave with a record of what is wrong with the command line."""
    context = getattr(error, "ctx", None)
    said, _, other = shown.partition("\nNext: ")
    known = {"exit_code": error.exit_code, "state": UsageError.state}
    next_step = other or f"{context.command_path if context else 'guvnor'} --help"
    records.say("ERROR", said, sys.stderr, **known, next=next_step)
    sys.exit(error.exit_code)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="guvnor %(version)s", help="Show the version of this tool.")
def main() -> None:
    """Database migrations of Guvnor that the application never notices."""


migrate.add_command(deploy)
for group in (migrate, schema, db, config_group):
    main.add_command(group)
main.add_command(restore)


@main.command()
@json_option
def version(as_json: bool) -> None:
    """Show the versions of this tool, its libraries and Python."""
    from importlib.metadata import version as installed

    found = {"guvnor": __version__}
    found |= {package: installed(package) for package in ("alembic", "SQLAlchemy", "psycopg2-binary")}
    found["Python"] = sys.version.split()[0]
    if as_json:
        print_json(found)
        return
    for name, number in found.items():
        say(f"{name} {number}")


@main.command()
@click.argument("shell_name", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell_name: str) -> None:
    """Print the script that completes commands and flags in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell_name)
    assert kind is not None
    say(kind(main, {}, "guvnor", "_GUVNOR_COMPLETE").source())
