"""``guvnor migrate deploy``: the job that a pipeline runs before the new application version starts."""

from __future__ import annotations

from pathlib import Path

import click

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
from guvnor.cli.console import Console
from guvnor.cli.result_file import write_result
from guvnor.cli.streams import on_one_terminal, tell_lines
from guvnor.errors import UsageError
from guvnor.revisions.script import Direction, upgrade_steps


@click.command(cls=Command)
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
    wait_for_server: float,
    as_json: bool,
) -> None:
    """Run the deploy job: pre-flight, plan, backup, up, verification.

    It is safe to run again after any failure.
    """
    from guvnor.backup.take import BackupOptions
    from guvnor.commands import deploy as deploying
    from guvnor.reports import plan as plan_report

    if as_json:
        shown.answer_in_json()
    settings = resolve_settings()
    if wait_only:
        version = deploying.wait_until_current(settings, max(wait_for_server, settings.max_wait))
        shown.record.found["version"] = version
        shown.say(f"✅ The database is at version {version}")
        return
    given = {name for name, origin in settings.origins.items() if origin.startswith("flag")}
    if (directory or command) and "backup" in given:
        raise UsageError(
            "--no-backup excludes --backup and --backup-command.", next_step="guvnor migrate deploy --help"
        )
    if (require_encryption or "backup.recipients" in given) and not directory:
        raise UsageError(
            "To encrypt a backup, also give --backup DIR.", next_step="guvnor migrate deploy --help"
        )
    wanted = None
    if directory or command:
        wanted = BackupOptions(directory, settings.backup_recipients, command, require_encryption)
    deployment = deploying.Deployment(shown)
    if as_json:
        shown.answer_in_json(lambda _code, _problem: {**deployment.result(), **shown.record.found})
    if result is not None:
        write_result(result, deploying.UNDER_WAY)
    with deployment.recorded():
        request = request_for(
            deployment, settings, Direction.UP, upgrade_steps(to), patience=wait_for_server, backup=wanted
        )
        if dry_run:
            previewed = deployment.run_dry(request, to)
            shown.record.found["plan"] = plan_report.as_json(previewed)
            if not as_json:
                tell_lines(plan_report.lines(previewed))
        else:
            shown.outcome(deployment.run(request))
    # On a terminal, the error follows, and says why.
    summary = deployment.summary(reason=not on_one_terminal())
    shown.say(("❌ " if deployment.error else "✅ ") + summary)
    if result is not None:
        with deployment.recorded():
            write_result(result, deployment.result())
    if deployment.error is not None:
        raise deployment.error
