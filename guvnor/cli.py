"""The command line. Each command calls one library function and shows its result; nothing else prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from guvnor import __version__, config, logs, postgres
from guvnor.console import Console, say
from guvnor.errors import GuvnorError
from guvnor.migrate import commands, state

if TYPE_CHECKING:
    from guvnor.migrate.move import Request

F = TypeVar("F", bound=Callable[..., Any])

# Flags that every command takes, before and after its name.
_GLOBAL = (
    click.Option(
        ["--config", "config_"], metavar="PATH", help="The application's YAML file.  [env: GUVNOR_CONFIG]"
    ),
    click.Option(
        ["--log-level"], metavar="LEVEL", help="debug, info, warning or error.  [env: GUVNOR_LOG_LEVEL]"
    ),
    click.Option(["-v", "--verbose"], is_flag=True, help="The same as --log-level debug."),
)


def _take_global_flags(context: click.Context) -> None:
    """Move the global flags of a command to the root's, the innermost winning."""
    flags = context.find_root().meta.setdefault("guvnor.flags", {})
    for name, option in (("config_", "config"), ("log_level", "log.level")):
        if (value := context.params.pop(name, None)) is not None:
            flags[option] = value
    if context.params.pop("verbose", False):
        flags["log.level"] = "debug"


class Command(click.Command):
    """A command that takes the global flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the global flags."""
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL)

    def invoke(self, ctx: click.Context) -> Any:
        """Take the global flags, then run."""
        _take_global_flags(ctx)
        return super().invoke(ctx)


class Group(click.Group):
    """A group of commands that takes the global flags."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the global flags."""
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL)

    def invoke(self, ctx: click.Context) -> Any:
        """Take the global flags, then run."""
        _take_global_flags(ctx)
        return super().invoke(ctx)


def _settings(**flags: str | None) -> config.Settings:
    """Resolve the settings from the flags of this call, and set up logging by them."""
    context = click.get_current_context()
    settings = config.load({**context.find_root().meta.get("guvnor.flags", {}), **flags})
    logs.configure(settings)
    return settings


def _request(shown: Console, settings: config.Settings, **options: Any) -> Request:
    from guvnor.migrate.move import Request

    return Request(settings, shown.checked, shown.ask, shown.progressed, **options)


def _json(value: Any) -> None:
    import json

    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Database migrations of Guvnor: the application never notices one."""


@main.group()
def migrate() -> None:
    """Apply, roll back and look at migrations."""


_lock_wait = click.option(
    "--lock-wait",
    metavar="TIME",
    help="How long to wait for another migration.  [env: GUVNOR_LOCK_WAIT; 5min]",
)
_max_wait = click.option(
    "--max-wait",
    metavar="TIME",
    help="How long to try for the locks of a revision.  [env: GUVNOR_MAX_WAIT; 10min]",
)
_confirm = click.option(
    "--confirm", metavar="HASH", help="Let this plan through the production guard.  [env: GUVNOR_CONFIRM]"
)
_wait_for_server = click.option(
    "--wait-for-server",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Wait for a server that is still starting.",
)


@migrate.command()
@click.option("--to", metavar="REV", help="The last revision to apply; all by default.")
@click.option("--strict", is_flag=True, help="Fail when the database is ahead of the migration files.")
@_wait_for_server
@_lock_wait
@_max_wait
@_confirm
def up(
    to: str | None,
    strict: bool,
    wait_for_server: float,
    lock_wait: str | None,
    max_wait: str | None,
    confirm: str | None,
) -> None:
    """Apply pending migrations."""
    shown = Console()
    with shown.explaining():
        settings = _settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm)
        shown.outcome(commands.up(_request(shown, settings, patience=wait_for_server, strict=strict), to))


@migrate.command()
@click.option("--to", metavar="REV", help="The revision that remains applied, or base; one step by default.")
@_lock_wait
@_max_wait
@_confirm
def down(to: str | None, lock_wait: str | None, max_wait: str | None, confirm: str | None) -> None:
    """Roll back migrations, one step by default."""
    shown = Console()
    with shown.explaining():
        settings = _settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm)
        shown.outcome(commands.down(_request(shown, settings), to))


@migrate.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--exit-code", is_flag=True, help="Exit with 8 when migrations are pending, 5 when a decision is needed."
)
def status(as_json: bool, exit_code: bool) -> None:
    """Show which version the database is at."""
    from guvnor import status_report

    with Console().explaining():
        settings = _settings()
        found = commands.status(settings)
        if as_json:
            _json(status_report.as_json(settings, found))
        else:
            for line in status_report.lines(settings, found):
                say(line)
    if exit_code:
        sys.exit(5 if found.problem else 8 if found.pending else 0)


@migrate.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def history(as_json: bool) -> None:
    """Show every attempt: who, when, how long, and how it ended."""
    from guvnor import history_report

    with Console().explaining():
        found = commands.entries(_settings())
        if as_json:
            _json(history_report.as_json(found))
        else:
            history_report.show(found)


@migrate.command()
@click.argument("name")
def create(name: str) -> None:
    """Write a migration file with the next number."""
    with Console().explaining():
        _settings()
        say(f"✅ Created {commands.create(name)}")


@migrate.command()
@click.argument("rev")
@_lock_wait
@_confirm
def force(rev: str, lock_wait: str | None, confirm: str | None) -> None:
    """Set the version to REV (a number, or base) and clear the dirty flag; the schema is left as it is."""
    shown = Console()
    with shown.explaining():
        before = commands.force(_settings(lock_wait=lock_wait, confirm=confirm), rev, shown.ask)
        was = f"{before.version or 'none'}{' (dirty)' if before.dirty else ''}"
        say(f"✅ Version set to {rev}; it was {was}. The schema was not changed.")


@migrate.command()
@click.option(
    "--forward", "way", flag_value="forward", help="Run the interrupted revision again, to its end."
)
@click.option("--back", "way", flag_value="back", help="Undo the interrupted revision.")
@click.option("--as-is", "way", flag_value="as-is", help="Run nothing and take the version as it is.")
@_lock_wait
@_max_wait
@_confirm
def repair(way: str | None, lock_wait: str | None, max_wait: str | None, confirm: str | None) -> None:
    """Show the ways out of a dirty state, or take one."""
    shown = Console()
    with shown.explaining():
        settings = _settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm)
        found, choices = commands.repair_choices(settings)
        if not choices:
            state.check(found, commands.read_revisions())
            say("✅ Nothing to repair")
            return
        shown.choices(found, choices)
        if way is None:
            sys.exit(state.DirtyError.exit_code)
        if way == "as-is":
            commands.force(settings, choices[-1].to_version or "base", shown.ask)
            say(f"✅ Version set to {choices[-1].to_version or 'none'}. The schema was not changed.")
        else:
            shown.outcome(commands.run_repair(_request(shown, settings, repair=way)))


@migrate.command()
@_wait_for_server
def preflight(wait_for_server: float) -> None:
    """Run the pre-flight checks alone."""
    shown = Console()
    with shown.explaining():
        try:
            settings = _settings()
        except GuvnorError as error:
            shown.configuration_failed(error)
            raise
        commands.check(settings, shown.checked, wait_for_server)


@main.group()
def db() -> None:
    """The local development server, and the production mark of a database."""


def _server() -> Any:
    from guvnor.embedded import LocalServer

    return LocalServer(postgres.local_server_home())


@db.command()
@click.option("--tcp", is_flag=True, help="Listen on 127.0.0.1 too, with a generated password.")
def start(tcp: bool) -> None:
    """Start the local server; it stays up until `guvnor db stop`."""
    with Console().explaining():
        _settings()
        server = _server()
        server.start(tcp=tcp)
        say(f"✅ The local server is running: {server.url()}")


@db.command()
def stop() -> None:
    """Stop the local server."""
    with Console().explaining():
        _settings()
        say("✅ The local server is stopped" if _server().stop() else "✅ The local server was not running")


@db.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def db_status(as_json: bool) -> None:
    """Show whether the local server runs, and where it lives."""
    import dataclasses

    with Console().explaining():
        _settings()
        found = _server().status()
        if as_json:
            _json(dataclasses.asdict(found))
        else:
            say(f"Local Server: {'✅ running' if found.running else 'not running'}")
            for name, value in dataclasses.asdict(found).items():
                if name != "running" and value is not None:
                    say(f"{name.replace('_', ' ').capitalize()}: {value}")


@db.command()
def url() -> None:
    """Print the connection string of the local server."""
    with Console().explaining():
        _settings()
        say(_server().url())


@db.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def shell(arguments: tuple[str, ...]) -> None:
    """Open psql on the local server; ARGUMENTS go to psql (after --)."""
    with Console().explaining():
        _settings()
        server = _server()
        server.start()
        server.shell(arguments)


@db.command()
@click.option("--production/--not-production", default=True, show_default=True)
@_confirm
def mark(production: bool, confirm: str | None) -> None:
    """Mark the configured database as production, so that the guard asks wherever it is reached from."""
    shown = Console()
    with shown.explaining():
        commands.mark(_settings(confirm=confirm), production=production, ask=shown.ask)
        say(f"✅ The database is {'marked' if production else 'no longer marked'} as production")


@main.group(name="config")
def config_group() -> None:
    """The configuration."""


@config_group.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(as_json: bool) -> None:
    """Show each setting with its value and where that came from; passwords are masked."""
    with Console().explaining():
        settings = _settings()
        rows = [
            {
                "name": o.name,
                "value": config_value(settings, o.name),
                "origin": settings.origins[o.name],
                "meaning": o.meaning,
            }
            for o in config.OPTIONS
        ]
        if as_json:
            _json(rows)
        else:
            for row in rows:
                say(f"{row['name']:<13} {row['value'] or '(empty)':<40} {row['origin']:<35} {row['meaning']}")


def config_value(settings: config.Settings, name: str) -> str:
    """Return the value of a setting as it may be shown."""
    value = settings.values[name]
    if name == "storage.dsn" and value:
        try:
            return postgres.masked(value)
        except GuvnorError:
            return "(malformed, not shown)"
    return value


@main.group()
def schema() -> None:
    """The schema that the migrations make."""


@schema.command()
def diagram() -> None:
    """Print docs/schema.md: the schema as an entity-relationship diagram."""
    from guvnor.diagram import document

    say(document().rstrip("\n"))


@main.command()
def version() -> None:
    """Show the version of this tool and of what it stands on."""
    from importlib.metadata import version as installed

    say(f"guvnor {__version__}")
    for package in ("alembic", "SQLAlchemy", "psycopg2-binary"):
        say(f"{package} {installed(package)}")
    say(f"Python {sys.version.split()[0]}")


_COMPLETION = {
    "bash": 'eval "$(_GUVNOR_COMPLETE=bash_source guvnor)"   # in ~/.bashrc',
    "zsh": 'eval "$(_GUVNOR_COMPLETE=zsh_source guvnor)"   # in ~/.zshrc',
    "fish": "_GUVNOR_COMPLETE=fish_source guvnor | source   # in ~/.config/fish/config.fish",
}


@main.command()
@click.argument("shell_name", metavar="SHELL", type=click.Choice(list(_COMPLETION)))
def completion(shell_name: str) -> None:
    """Print the script that completes commands and flags in SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell_name)
    assert kind is not None
    say(kind(main, {}, "guvnor", "_GUVNOR_COMPLETE").source())
