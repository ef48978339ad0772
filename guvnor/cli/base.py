"""What all commands share: the global flags, the settings of a call, options and JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from guvnor import config, logs
from guvnor.console import Console, say, show

if TYPE_CHECKING:
    from guvnor.migrate.move import Request


def _flags(context: click.Context) -> dict[str, str]:
    """Return the settings that flags of this call have set so far."""
    flags: dict[str, str] = context.find_root().meta.setdefault("guvnor.flags", {})
    return flags


def _setting(name: str, value: str | None = None) -> dict[str, Any]:
    """Return what makes an option set a setting of the call, instead of being handed to the command.

    :param name: of the setting.
    :param value: what a flag without a value sets.
    """

    def take(context: click.Context, _option: click.Parameter, given: Any) -> None:
        if given:
            _flags(context)[name] = value or (given if isinstance(given, str) else ",".join(given))

    return {"expose_value": False, "callback": take, "is_flag": value is not None}


# Flags that every command takes, before and after its name; the innermost wins. Side by side, --verbose wins
# over --log-level, which is therefore read first.
_GLOBAL = (
    click.Option(
        ["--config"],
        metavar="PATH",
        help="The application's YAML file.  [$GUVNOR_CONFIG]",
        **_setting("config"),
    ),
    click.Option(
        ["--log-level"],
        metavar="LEVEL",
        is_eager=True,
        help="debug, info, warning or error.  [$GUVNOR_LOG_LEVEL]",
        **_setting("log.level"),
    ),
    click.Option(
        ["-v", "--verbose"], help="The same as --log-level debug.", **_setting("log.level", "debug")
    ),
)


class Command(click.Command):
    """A command that takes the global flags, is handed a console and explains its errors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the global flags."""
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error is shown and ends the process with its exit code."""
        ctx.obj = Console()
        with ctx.obj.explaining():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of commands that takes the global flags."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the global flags."""
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL)


def resolve_settings() -> config.Settings:
    """Resolve the settings from the flags of this call, and set up logging by them."""
    settings = config.load(_flags(click.get_current_context()))
    logs.configure(settings)
    return settings


def request_for(shown: Console, settings: config.Settings, **options: Any) -> Request:
    """Return a request whose answers a console shows."""
    from guvnor.migrate.move import Request

    return Request(settings, shown.checked, shown.ask, shown.progressed, **options)


def print_json(value: Any) -> None:
    """Write a value to standard output as JSON."""
    import json

    say(json.dumps(value, indent=2, default=str))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def report_form_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that choose the form of a report, for :func:`print_report`."""
    for form, text in (
        ("github", "Print annotations for GitHub Actions."),
        ("markdown", "Print Markdown, for a comment on a pull request."),
        ("json", "Print JSON."),
    ):
        command = click.option(f"--{form}", "form", flag_value=form, help=text)(command)
    return command


def print_report(report: Any, found: Any, form: str | None) -> None:
    """Write a report to standard output.

    :param report: the module that renders it.
    :param found: the report.
    :param form: ``json``, ``markdown`` or ``github``; None for a terminal.
    """
    if form is None:
        show(report.as_terminal(found))
    else:
        written: str = getattr(report, f"as_{form}")(found)
        say(written.rstrip("\n"))


lock_wait_option = click.option(
    "--lock-wait",
    metavar="TIME",
    help="How long to wait for another run (default: 5min).  [$GUVNOR_LOCK_WAIT]",
    **_setting("lock_wait"),
)
max_wait_option = click.option(
    "--max-wait",
    metavar="TIME",
    help="How long to try for locks (default: 10min).  [$GUVNOR_MAX_WAIT]",
    **_setting("max_wait"),
)
confirm_option = click.option(
    "--confirm",
    metavar="HASH",
    help="Let this plan through the production guard.  [$GUVNOR_CONFIRM]",
    **_setting("confirm"),
)
no_verify_option = click.option(
    "--no-verify",
    help="Do not compare the schema with the expected one afterwards.  [$GUVNOR_VERIFY=no]",
    **_setting("verify", "no"),
)
shadow_dsn_option = click.option(
    "--shadow-dsn",
    metavar="DSN",
    help="A scratch database to build the expected schema in.  [$GUVNOR_SHADOW_DSN]",
    **_setting("shadow.dsn"),
)
allow_plaintext_option = click.option(
    "--allow-plaintext",
    help="In production, connect to another machine without TLS, on record.  [$GUVNOR_ALLOW_PLAINTEXT]",
    **_setting("allow_plaintext", "yes"),
)
backup_recipient_option = click.option(
    "--backup-recipient",
    metavar="KEY",
    multiple=True,
    help="Encrypt the backup for this age or SSH public key; repeatable.  [$GUVNOR_BACKUP_RECIPIENTS]",
    **_setting("backup.recipients"),
)


def _backup(context: click.Context, option: click.Parameter, given: str | bool) -> None:
    if given:
        wanted = "no" if option.name == "no_backup" else "yes"
        if _flags(context).setdefault("backup", wanted) != wanted:
            raise click.UsageError("--backup and --no-backup exclude each other.", context)
        if isinstance(given, str):
            _flags(context)["backup.directory"] = given


no_backup_option = click.option(
    "--no-backup",
    is_flag=True,
    expose_value=False,
    callback=_backup,
    help="Take no backup of what a rollback drops.  [$GUVNOR_BACKUP=no]",
)
_backup_option = click.option(
    "--backup",
    metavar="DIR",
    expose_value=False,
    callback=_backup,
    help="First back up what is dropped to this directory; required in production.  [$GUVNOR_BACKUP_DIR]",
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
