"""``guvnor db``: the local development server, and the production mark of a database."""

from __future__ import annotations

import os
from typing import Any

import click

from guvnor.cli.base import (
    Group,
    allow_plaintext_option,
    confirm_option,
    print_json,
    resolve_settings,
)
from guvnor.cli.console import Console, say
from guvnor.commands import migrate as commands
from guvnor.database import local_server_home
from guvnor.errors import LocalServerError


@click.group(cls=Group)
def db() -> None:
    """The local development server, and the production mark of a database."""


def _server() -> Any:
    from guvnor.embedded import LocalServer

    return LocalServer(local_server_home())


@db.command()
@click.option("--tcp", is_flag=True, help="Listen on 127.0.0.1 too, with a generated password.")
def start(tcp: bool) -> None:
    """Start the local server; it stays up until `guvnor db stop`."""
    with Console().explaining():
        resolve_settings()
        server = _server()
        server.start(tcp=tcp)
        say(f"✅ The local server is running: {server.url()}")


@db.command()
def stop() -> None:
    """Stop the local server."""
    with Console().explaining():
        resolve_settings()
        say("✅ The local server is stopped" if _server().stop() else "✅ The local server was not running")


@db.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def db_status(as_json: bool) -> None:
    """Show whether the local server runs, and where it lives."""
    import dataclasses

    with Console().explaining():
        resolve_settings()
        found = _server().status()
        if as_json:
            print_json(dataclasses.asdict(found))
        else:
            say(f"Local Server: {'✅ running' if found.running else 'not running'}")
            for name, value in dataclasses.asdict(found).items():
                if name != "running" and value is not None:
                    say(f"{name.replace('_', ' ').capitalize()}: {value}")


@db.command()
def url() -> None:
    """Print the connection string of the local server."""
    with Console().explaining():
        resolve_settings()
        say(_server().url())


@db.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def shell(arguments: tuple[str, ...]) -> None:
    """Open psql on the local server; ARGUMENTS go to psql (after --)."""
    with Console().explaining():
        resolve_settings()
        from guvnor.embedded import binaries

        server = _server()
        if not server.status().running:
            server.start()
        # The connection goes by the environment, which no process list shows.
        psql = binaries() / "psql"
        try:
            os.execve(psql, [str(psql), *arguments], {**os.environ, **server.environment()})  # noqa: S606
        except OSError as error:
            raise LocalServerError(
                f"{psql} cannot be run: {error.strerror}.",
                state="The local server is running.",
                next_step='psql "$(guvnor db url)"   # with a psql from elsewhere',
            ) from None


@db.command()
@click.option("--production/--not-production", default=True, show_default=True)
@confirm_option
@allow_plaintext_option
def mark(production: bool, confirm: str | None) -> None:
    """Mark the configured database as production, so that the guard asks wherever it is reached from."""
    shown = Console()
    with shown.explaining():
        commands.set_production_mark(resolve_settings(confirm=confirm), shown.ask, marked=production)
        say(f"✅ The database is {'marked' if production else 'no longer marked'} as production")
