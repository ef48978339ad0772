"""What all commands share: the global flags, the settings of a call, options and JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from guvnor import config, logs, records, typed
from guvnor.cli import completing, invocation
from guvnor.cli.console import Console
from guvnor.cli.streams import say, tell_lines

if TYPE_CHECKING:
    from guvnor.migrate.request import Observer, Request
    from guvnor.revisions.script import Direction, FindSteps

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any] | click.Command)
_VARIABLES = {option.name: option.variable for option in config.OPTIONS}


def _flags(context: click.Context) -> dict[str, str]:
    """Return the settings that flags of this call have set so far."""
    flags: dict[str, str] = context.find_root().meta.setdefault("guvnor.flags", {})
    return flags


def _setting(
    setting: str, text: str, *flags: str, value: str | None = None, **attributes: Any
) -> Callable[[_Decorated], _Decorated]:
    """Return an option that sets a setting of this call instead of being passed to the command.

    :param setting: the name of the setting.
    :param text: the help, to which the name of the setting's variable is added.
    :param flags: the names of the option.
    :param value: what the option sets when it is a flag without a value.
    """

    def take(context: click.Context, _option: click.Parameter, given: Any) -> None:
        if given:
            _flags(context)[setting] = value or (given if isinstance(given, str) else ",".join(given))

    variable = _VARIABLES[setting] + (f"={value}" if value else "")
    # `is_flag=False` would let click take an option without its value.
    attributes = {"callback": take, **({"is_flag": True} if value else {}), **attributes}
    return click.option(*flags, expose_value=False, help=f"{text}  [${variable}]", **attributes)


# Flags that every command takes, before and after its name; the innermost wins. Where both are given in one
# place, --verbose wins over --log-level, which is therefore read first.
_GLOBAL = (
    _setting("config", "The application's YAML file.", "--config", metavar="PATH", type=click.Path()),
    _setting(
        "log.level",
        "debug, info, warning or error.",
        "--log-level",
        metavar="LEVEL",
        is_eager=True,
        shell_complete=completing.levels,
    ),
    _setting("log.level", "Log everything.", "-v", "--verbose", value="debug"),
)


class Duration(click.ParamType[float]):
    """A duration with a unit, such as ``30s``; it becomes seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        try:
            return config.seconds(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class _TakesGlobalFlags(click.Command):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the global flags."""
        super().__init__(*args, **kwargs)
        for add in _GLOBAL:
            add(self)


class Command(_TakesGlobalFlags):
    """A command that takes the global flags, gets a console and explains its errors."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error is shown and ends the process with its exit code."""
        invocation.remember(ctx)
        ctx.obj = Console()
        with records.spoken(wanted=logs.everything_in_json(_flags(ctx))), ctx.obj.explaining():
            return super().invoke(ctx)


class Group(_TakesGlobalFlags, click.Group):
    """A group of commands that takes the global flags."""

    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; one that stands in another group is named in full."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if (place := invocation.elsewhere(ctx, args[0])) is None:
                raise
            raise click.UsageError(
                f"No such command {args[0]!r} here.\nNext: {typed.carried(place)}", ctx
            ) from None


def resolve_settings() -> config.Settings:
    """Resolve the settings of this call, and set up logging accordingly."""
    settings = config.load(_flags(click.get_current_context()))
    logs.configure(settings)
    return settings


def request_for(
    observer: Observer, settings: config.Settings, direction: Direction, find_steps: FindSteps, **options: Any
) -> Request:
    """Return a request for Guvnor's database."""
    from guvnor.application import GUVNOR
    from guvnor.migrate.request import Request

    return Request(settings, GUVNOR, direction, find_steps, observer, **options)


def print_json(value: Any) -> None:
    """Write a value to standard output as JSON."""
    import json

    say(json.dumps(value, indent=2, default=str))


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds several options, shown in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def report_form_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that choose the format of a report, for :func:`print_report`."""
    for form, text in (
        ("github", "Print annotations for GitHub Actions."),
        ("markdown", "Print Markdown, for a comment on a pull request."),
        ("json", "Print JSON."),
    ):
        command = click.option(f"--{form}", "form", flag_value=form, help=text)(command)
    return command


def print_report(report: Any, found: Any, form: str | None) -> None:
    """Write a result to standard output, as its report module renders it.

    :param form: ``json``, ``markdown`` or ``github``; None for a terminal.
    """
    if form is None:
        tell_lines(report.as_terminal(found))
    else:
        written: str = getattr(report, f"as_{form}")(found)
        say(written.rstrip("\n"))


lock_wait_option = _setting(
    "lock_wait", "How long to wait for another run (default: 5min).", "--lock-wait", metavar="TIME"
)
max_wait_option = _setting(
    "max_wait", "How long to keep trying for locks (default: 10min).", "--max-wait", metavar="TIME"
)
max_stall_option = _setting(
    "max_stall",
    "How long a revision may make the application wait, or off.",
    "--max-stall",
    metavar="TIME",
)
confirm_option = _setting(
    "confirm", "Let this plan through the production guard.", "--confirm", metavar="HASH"
)
accept_edited_option = _setting(
    "accept_edited",
    "Go on although the file of this applied revision was changed; repeatable.",
    "--accept-edited",
    metavar="REV",
    multiple=True,
    shell_complete=completing.revisions,
)
no_verify_option = _setting(
    "verify", "Do not compare the schema with the expected one afterwards.", "--no-verify", value="no"
)
shadow_dsn_option = _setting(
    "shadow.dsn", "A scratch database to build the expected schema in.", "--shadow-dsn", metavar="DSN"
)
allow_plaintext_option = _setting(
    "allow_plaintext",
    "In production, connect to another machine without TLS; this is recorded.",
    "--allow-plaintext",
    value="yes",
)
# What every command that runs revisions takes.
run_options = _together(
    lock_wait_option, max_wait_option, max_stall_option, confirm_option, allow_plaintext_option
)
backup_recipient_option = _setting(
    "backup.recipients",
    "Encrypt the backup for this age or SSH public key; repeatable.",
    "--backup-recipient",
    metavar="KEY",
    multiple=True,
)
backup_identity_option = _setting(
    "backup.identity",
    "The private key that decrypts the backup, of age or SSH.",
    "--backup-identity",
    metavar="FILE",
    shell_complete=completing.files,
)


def _backup(context: click.Context, option: click.Parameter, given: str | bool) -> None:
    if given:
        wanted = "no" if option.name == "no_backup" else "yes"
        if _flags(context).setdefault("backup", wanted) != wanted:
            raise click.UsageError("--backup and --no-backup exclude each other.", context)
        if isinstance(given, str):
            _flags(context)["backup.directory"] = given


no_backup_option = _setting(
    "backup", "Take no backup of what a rollback drops.", "--no-backup", value="no", callback=_backup
)
_backup_option = _setting(
    "backup.directory",
    "Back up what is dropped to this directory; required in production.",
    "--backup",
    metavar="DIR",
    type=click.Path(file_okay=True),
    shell_complete=completing.directories,
    callback=_backup,
)


# The backup of what a rollback drops.
rollback_backup_options = _together(_backup_option, backup_recipient_option, no_backup_option)
wait_for_server_option = click.option(
    "--wait-for-server",
    metavar="TIME",
    type=Duration(),
    default="0s",
    help="Wait for a server that is still starting: 60s, 2min.",
)
