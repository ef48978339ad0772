"""``guvnor migrate deploy``: the job that a pipeline runs before the new application version starts."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guvnor import records
from guvnor.cli import completing
from guvnor.cli.base import (
    Command,
    accept_edited_option,
    backup_recipient_option,
    json_option,
    no_backup_option,
    no_verify_option,
    request_for,
    resolve_settings,
    run_options,
    wait_for_server_option,
)
from guvnor.cli.console import Console, unexpected
from guvnor.cli.result_file import write_metrics, write_result
from guvnor.cli.streams import on_one_terminal, tell_lines
from guvnor.errors import UsageError
from guvnor.migrate.request import Observer
from guvnor.revisions.script import Direction, upgrade_steps

if TYPE_CHECKING:
    from guvnor.backup.take import BackupOptions
    from guvnor.commands.preview import Preview
    from guvnor.config import Settings


class _Deploy(Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags; where they are wrong, an older result file must not pass for that of this call."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            found = (word for before, word in pairwise(("", *words)) if before == "--result")
            joined = (word.partition("=")[2] for word in words if word.startswith("--result="))
            for path in (*found, *joined):
                _record_wrong_usage(Path(path), error.format_message())
            raise


def _record_wrong_usage(path: Path, message: str) -> None:
    from guvnor.commands.deploy import Deployment

    deployment = Deployment(Observer(), partial(write_result, path))
    with contextlib.suppress(UsageError):  # the error that follows says enough
        deployment.begin()
        deployment.fail(UsageError(message, next_step="guvnor migrate deploy --help"))
        deployment.end()


@click.command(cls=_Deploy)
@click.option(
    "--to",
    "--at-most",
    "to",
    metavar="REV",
    shell_complete=completing.revisions,
    help="The last revision to apply; all by default.",
)
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--wait-only", is_flag=True, help="Only wait until all revisions are applied.")
@click.option(
    "--backup",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=completing.directories,
    help="Back up the whole database to this directory first.",
)
@backup_recipient_option
@click.option("--backup-command", "command", metavar="COMMAND", help="Run this instead of pg_dump.")
@no_backup_option
@click.option("--require-encryption", is_flag=True, help="Refuse to write an unencrypted backup.")
@no_verify_option
@click.option(
    "--result",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a record of all stages to this file, as JSON.",
)
@click.option(
    "--metrics",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write metrics to this file after every stage, for node_exporter's textfile collector.",
)
@wait_for_server_option
@accept_edited_option
@run_options
@json_option
@click.pass_obj
def deploy(
    shown: Console,
    to: str | None,
    dry_run: bool,
    wait_only: bool,
    directory: Path | None,
    command: str | None,
    require_encryption: bool,
    result: Path | None,
    metrics: Path | None,
    wait_for_server: float,
    as_json: bool,
) -> None:
    """Run the deploy job: pre-flight, plan, backup, up, verification.

    It is safe to run again after any failure.
    """
    from guvnor.commands import deploy as deploying

    deployment = deploying.Deployment(
        shown,
        partial(write_result, result) if result else None,
        measure=partial(_measure, metrics) if metrics else None,
    )
    if as_json:
        shown.answer_in_json(lambda _code, _problem: {**deployment.result(), **shown.record.found})
    try:
        with deployment.recorded():
            deployment.begin()  # an older result goes first, whatever happens next
            settings = resolve_settings()
            deployment.configured(settings)
            if wait_only:
                deployment.wait(settings, max(wait_for_server, settings.max_wait))
            else:
                backup = _backup(settings, directory, command, require_encryption)
                request = request_for(
                    deployment,
                    settings,
                    Direction.UP,
                    upgrade_steps(to),
                    patience=wait_for_server,
                    backup=backup,
                )
                if dry_run:
                    previewed = deployment.run_dry(request, to)
                    _show_plan(shown, previewed)
                else:
                    shown.outcome(deployment.run(request))
    except Exception as failure:
        deployment.fail(unexpected(failure)[0])
        deployment.end()
        raise
    with deployment.recorded():
        deployment.end()
    if deployment.error is None or not wait_only:
        # On a terminal, the error follows, and says why.
        summary = deployment.summary(reason=not on_one_terminal())
        known = {name: deployment.result()[name] for name in ("stage", "exit_code", "version")}
        shown.say(("❌ " if deployment.error else "✅ ") + summary, **known)
    if deployment.error is not None:
        raise deployment.error


def _measure(path: Path, settings: Settings) -> None:
    from guvnor.commands import metrics as measuring
    from guvnor.reports import metrics as metrics_report

    write_metrics(path, metrics_report.as_text(measuring.read(settings)))


def _backup(
    settings: Settings, directory: Path | None, command: str | None, require_encryption: bool
) -> BackupOptions | None:
    """Return how the whole database is backed up first; None where it is not."""
    from guvnor.backup.take import BackupOptions

    given = {name for name, origin in settings.origins.items() if origin.startswith("flag")}
    if (directory or command) and "backup" in given:
        raise UsageError(
            "--no-backup excludes --backup and --backup-command.", next_step="guvnor migrate deploy --help"
        )
    if (require_encryption or "backup.recipients" in given) and not directory:
        raise UsageError(
            "To encrypt a backup, also give --backup DIR.", next_step="guvnor migrate deploy --help"
        )
    if not directory and not command:
        return None
    return BackupOptions(directory, settings.backup_recipients, command, require_encryption)


def _show_plan(shown: Console, previewed: Preview) -> None:
    from guvnor.reports import plan as plan_report

    document = plan_report.as_json(previewed)
    shown.record.found["plan"] = document
    if records.on():
        shown.say("plan", plan=document)
    elif shown.document is None:
        tell_lines(plan_report.lines(previewed))
