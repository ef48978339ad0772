"""The command line. Each command calls one library function and shows its result; nothing else prints."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from guvnor import __version__
from guvnor.cli.base import Group
from guvnor.cli.configuration import config_group
from guvnor.cli.db import db
from guvnor.cli.deploy import deploy
from guvnor.cli.migrate import migrate
from guvnor.cli.schema import schema
from guvnor.cli.streams import open_closed_streams, say
from guvnor.config import MASK
from guvnor.errors import ExitCode

_USERINFO = re.compile(r"://[^\s]*@")


class Root(Group):
    """The root of the command line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and mask a connection string that was typed in the wrong place in the error message."""
        open_closed_streams()
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            message = error.format_message()
            shown = _USERINFO.sub(f"://{MASK}@", message)
            (error if shown == message else click.UsageError(shown, getattr(error, "ctx", None))).show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(ExitCode.INTERRUPTED)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Database migrations of Guvnor that the application never notices."""


migrate.add_command(deploy)
for group in (migrate, schema, db, config_group):
    main.add_command(group)


@main.command()
def version() -> None:
    """Show the versions of this tool, its libraries and Python."""
    from importlib.metadata import version as installed

    say(f"guvnor {__version__}")
    for package in ("alembic", "SQLAlchemy", "psycopg2-binary"):
        say(f"{package} {installed(package)}")
    say(f"Python {sys.version.split()[0]}")


@main.command()
@click.argument("shell_name", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell_name: str) -> None:
    """Print the script that completes commands and flags in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell_name)
    assert kind is not None
    say(kind(main, {}, "guvnor", "_GUVNOR_COMPLETE").source())
