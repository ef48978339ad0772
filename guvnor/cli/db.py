"""``guvnor db``: the local development server, and the production mark of a database."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import click

from guvnor.cli.base import (
    Group,
    allow_plaintext_option,
    confirm_option,
    json_option,
    print_json,
    resolve_settings,
)
from guvnor.cli.console import Console
from guvnor.cli.streams import say
from guvnor.commands import migrate as commands
from guvnor.database import local_server_home
from guvnor.errors import LocalServerError


@click.group(cls=Group)
def db() -> None:
    """Run the local server; mark a database as production."""


def _server() -> Any:
    from guvnor.embedded import LocalServer

    resolve_settings()
    return LocalServer(local_server_home())


@db.command()
@click.option("--tcp", is_flag=True, help="Listen on 127.0.0.1 too, with a generated password.")
def start(tcp: bool) -> None:
    """Start the local server; it stays up until `guvnor db stop`."""
    server = _server()
    server.start(tcp=tcp)
    say(f"✅ The local server is running: {server.url()}")


@db.command()
def stop() -> None:
    """Stop the local server."""
    say("✅ The local server is stopped" if _server().stop() else "✅ The local server was not running")


@db.command()
def reset() -> None:
    """Start the local database afresh: drop all that is in it.

    It is never another database that is configured, and never one that is production.
    """
    from guvnor.commands.reset import reset as empty

    empty(resolve_settings())
    say("✅ The local database is empty\nNext: guvnor migrate up")


@db.command(name="status")
@json_option
def db_status(as_json: bool) -> None:
    """Show whether the local server runs, and where it lives."""
    found = _server().status()
    if as_json:
        print_json(asdict(found))
        return
    say(f"Local Server: {'✅ running' if found.running else 'not running'}")
    for name, value in asdict(found).items():
        if name != "running" and value is not None:
            title = name.upper() if name in ("pid", "tcp") else name.replace("_", " ").capitalize()
            say(f"{title}: {'yes' if value is True else 'no' if value is False else value}")


@db.command()
def url() -> None:
    """Print the connection string of the local server."""
    say(_server().url())


@db.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def shell(arguments: tuple[str, ...]) -> None:
    """Open psql on the configured database; ARGUMENTS go to psql.

    Without a configured database, it is that of the local server. Flags of psql stand after --.
    """
    settings = resolve_settings()
    if settings.storage_type == "embedded" or not settings.storage_dsn:
        from guvnor.embedded import binaries

        server = _server()
        if not server.status().running:
            server.start()
        psql, environment = str(binaries() / "psql"), {**os.environ, **server.environment()}
    else:
        from guvnor.commands import shell as commands_shell

        psql, environment = commands_shell.on_configured(settings)
    try:
        # The connection is passed in the environment, which no process list shows.
        os.execve(psql, [psql, *arguments], environment)  # noqa: S606
    except OSError as error:
        raise LocalServerError(
            f"{psql} cannot be run: {error.strerror}.",
            state="Nothing was changed.",
            next_step="psql --version   # is there another one?",
        ) from None


@db.command()
@click.option("--production/--not-production", default=True, help="Set the mark (default) or remove it.")
@confirm_option
@allow_plaintext_option
@click.pass_obj
def mark(shown: Console, production: bool) -> None:
    """Mark the configured database as production, or remove the mark.

    The production guard protects a marked database, whatever the configuration says.
    """
    commands.set_production_mark(resolve_settings(), shown.ask, marked=production)
    shown.say(f"✅ The database is {'marked' if production else 'no longer marked'} as production")
