"""What all commands share: the global flags, the settings of a call, options and JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from guvnor import config, logs
from guvnor.cli.console import Console, say

if TYPE_CHECKING:
    from guvnor.migrate.request import Request
    from guvnor.revisions.direction import Direction
    from guvnor.revisions.script import FindSteps

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
    flags = _flags(context)
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


def resolve_settings(**flags: str | None) -> config.Settings:
    """Resolve the settings from the flags of this call, and set up logging by them."""
    context = click.get_current_context()
    settings = config.load({**_flags(context), **flags})
    logs.configure(settings)
    return settings


def request_for(
    shown: Console, settings: config.Settings, direction: Direction, find_steps: FindSteps, **options: Any
) -> Request:
    """Return a request for Guvnor's database that a console observes."""
    from guvnor.application import GUVNOR
    from guvnor.migrate.request import Request

    return Request(settings, GUVNOR, direction, find_steps, shown, **options)


def print_json(value: Any) -> None:
    """Write a value to standard output as JSON."""
    import json

    say(json.dumps(value, indent=2, default=str))


lock_wait_option = click.option(
    "--lock-wait",
    metavar="TIME",
    help="How long to wait for another migration.  [env: GUVNOR_LOCK_WAIT; 5min]",
)
max_wait_option = click.option(
    "--max-wait",
    metavar="TIME",
    help="How long to try for the locks of a revision.  [env: GUVNOR_MAX_WAIT; 10min]",
)
confirm_option = click.option(
    "--confirm", metavar="HASH", help="Let this plan through the production guard.  [env: GUVNOR_CONFIRM]"
)


def _flags(context: click.Context) -> dict[str, str]:
    """Return the settings that flags of this call have set so far."""
    flags: dict[str, str] = context.find_root().meta.setdefault("guvnor.flags", {})
    return flags


def _allow_plaintext(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        _flags(context)["allow_plaintext"] = "yes"


def _backup(context: click.Context, option: click.Parameter, given: str | bool) -> None:
    if given:
        wanted = "no" if option.name == "no_backup" else "yes"
        if _flags(context).setdefault("backup", wanted) != wanted:
            raise click.UsageError("--backup and --no-backup exclude each other.", context)
        if isinstance(given, str):
            _flags(context)["backup.directory"] = given


def _recipients(context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> None:
    if given:
        _flags(context)["backup.recipients"] = ",".join(given)


allow_plaintext_option = click.option(
    "--allow-plaintext",
    is_flag=True,
    expose_value=False,
    callback=_allow_plaintext,
    help="In production, let a connection to another machine pass without TLS; put on record.  "
    "[env: GUVNOR_ALLOW_PLAINTEXT]",
)
no_backup_option = click.option(
    "--no-backup",
    is_flag=True,
    expose_value=False,
    callback=_backup,
    help="Take no backup of what a rollback drops.  [env: GUVNOR_BACKUP=no]",
)
backup_recipient_option = click.option(
    "--backup-recipient",
    metavar="KEY",
    multiple=True,
    expose_value=False,
    callback=_recipients,
    help="Encrypt the backup for this age or SSH public key; may be given several times.  "
    "[env: GUVNOR_BACKUP_RECIPIENTS]",
)
_backup_option = click.option(
    "--backup",
    metavar="DIR",
    expose_value=False,
    callback=_backup,
    help="Back up what is dropped to this directory first; in production there has to be one.  "
    "[env: GUVNOR_BACKUP_DIR]",
)


def rollback_backup_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags about the backup of what a rollback drops."""
    return _backup_option(backup_recipient_option(no_backup_option(command)))


wait_for_server_option = click.option(
    "--wait-for-server",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Wait for a server that is still starting.",
)
