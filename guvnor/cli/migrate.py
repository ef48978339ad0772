"""``guvnor migrate``: apply, roll back and inspect migrations."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from guvnor import terminal
from guvnor.bookkeeping import consistency
from guvnor.cli import completing
from guvnor.cli.base import (
    Group,
    accept_edited_option,
    allow_plaintext_option,
    confirm_option,
    json_option,
    lock_wait_option,
    no_verify_option,
    print_json,
    request_for,
    resolve_settings,
    rollback_backup_options,
    run_options,
    shadow_dsn_option,
    wait_for_server_option,
)
from guvnor.cli.console import Console
from guvnor.cli.result_file import write_metrics
from guvnor.cli.streams import result_kept_clean, say, tell, tell_lines
from guvnor.commands import migrate as commands, roles as least_privilege
from guvnor.commands.roles import Names
from guvnor.errors import PreflightError, UsageError
from guvnor.revisions.identifiers import number
from guvnor.revisions.script import Direction, downgrade_steps, read_revisions, upgrade_steps


@click.group(cls=Group)
def migrate() -> None:
    """Apply, roll back and inspect migrations."""


@migrate.command()
@click.option(
    "--to",
    metavar="REV",
    shell_complete=completing.revisions,
    help="The last revision to apply; all by default.",
)
@click.option("--strict", is_flag=True, help="Fail when the database is ahead of the files.")
@no_verify_option
@wait_for_server_option
@accept_edited_option
@run_options
@json_option
@click.pass_obj
def up(shown: Console, to: str | None, strict: bool, wait_for_server: float, as_json: bool) -> None:
    """Apply pending migrations."""
    from guvnor.migrate import engine

    if as_json:
        shown.answer_in_json()
    settings = resolve_settings()
    request = request_for(
        shown, settings, Direction.UP, upgrade_steps(to), patience=wait_for_server, strict=strict
    )
    shown.outcome(engine.migrate(request))


@migrate.command()
@click.option(
    "--to",
    metavar="REV",
    shell_complete=completing.revisions,
    help="The last revision to keep, or base; one step back by default.",
)
@rollback_backup_options
@accept_edited_option
@run_options
@json_option
@click.pass_obj
def down(shown: Console, to: str | None, as_json: bool) -> None:
    """Roll back migrations, one step by default."""
    from guvnor.migrate import engine

    if as_json:
        shown.answer_in_json()
    request = request_for(shown, resolve_settings(), Direction.DOWN, downgrade_steps(to), relative=to is None)
    shown.outcome(engine.migrate(request))


@migrate.command()
@click.argument("direction", type=click.Choice(["up", "down"]), default="up")
@click.option("--to", metavar="REV", shell_complete=completing.revisions, help="As for `up` or `down`.")
@shadow_dsn_option
@json_option
def plan(direction: str, to: str | None, as_json: bool) -> None:
    """Show what up (or down) would do, and change nothing.

    The plan shows the SQL, the objects, the locks and the data that is lost. The locks are seen in a scratch
    database: that of --shadow-dsn, else one that is made and dropped where the role may do so, but never in
    production.
    """
    from guvnor.commands.preview import preview
    from guvnor.reports import plan as plan_report
    from guvnor.review import scratch

    settings = resolve_settings()
    with result_kept_clean():
        found = preview(settings, direction, to, make_scratch=scratch.database)
    if as_json:
        print_json(plan_report.as_json(found))
    else:
        tell_lines(plan_report.lines(found))


@migrate.command()
@json_option
@click.option("--exit-code", is_flag=True, help="Exit with 8 when pending, 5 when a decision is needed.")
def status(as_json: bool, exit_code: bool) -> None:
    """Show which version the database is at."""
    from guvnor.reports import status as status_report

    settings = resolve_settings()
    found = commands.status(settings)
    if as_json:
        print_json(status_report.as_json(settings, found))
    else:
        tell_lines(status_report.lines(settings, found))
    if exit_code:
        sys.exit(found.exit_code)


@migrate.command()
@click.option("--since", metavar="WHEN", help="Leave out older attempts: 2026-03-01, 03:00, 90min or 7d.")
@click.option("--failed", is_flag=True, help="Leave out attempts that succeeded.")
@json_option
def history(since: str | None, failed: bool, as_json: bool) -> None:
    """Show every attempt: who, when, how long, and how it ended."""
    from guvnor.reports import history as history_report

    found = commands.history_entries(resolve_settings(), since, failed=failed)
    if as_json:
        print_json(history_report.as_json(found))
    elif not found:
        say("No attempt matches." if failed or since is not None else "No migrations have been run.")
    else:
        tell_lines(history_report.as_terminal(found, terminal.columns(sys.stdout)))


@migrate.command()
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write them to this file instead, for node_exporter's textfile collector.",
)
@click.option("--check", is_flag=True, help="Also count the differences between the schema and its revision.")
def metrics(output: Path | None, check: bool) -> None:
    """Print metrics for Prometheus.

    They are made of the state and the history; a role that may only read is enough.
    """
    from guvnor.commands import metrics as measuring
    from guvnor.reports import metrics as metrics_report

    settings = resolve_settings()
    with result_kept_clean():
        text = metrics_report.as_text(measuring.read(settings, check=check))
    if output is None:
        say(text.rstrip("\n"))
    else:
        write_metrics(output, text)


@migrate.command()
@click.argument("name")
def create(name: str) -> None:
    """Write a migration file with the next number."""
    resolve_settings()
    say(f"✅ Created {commands.create(name)}")


@migrate.command()
@click.argument("file", shell_complete=completing.revision_files)
def renumber(file: str) -> None:
    """Give a new migration file the next number.

    It is for a file whose number another branch has taken; FILE is its path or its name. The file, its
    revision and down_revision and its docstring are changed, and further new files follow it. What is applied
    to the configured or the local database keeps its number.
    """
    from guvnor.commands import renumber as renumbering

    done = renumbering.renumber(resolve_settings(), file)
    for why in done.unasked:
        tell(
            f"⚠️  WARNING: it is not known whether a database has the revision: {why}",
            sys.stderr,
            style="yellow",
        )
    for move in done.moved:
        what = (
            f"{move.old} is {move.new} now" if move.old != move.new else f"{move.new} follows the others now"
        )
        tell(f"✅ {what}")
    if not done.moved:
        tell(f"✅ No change: {file} has the right number")
    if done.merge is not None:
        tell(f"Next: git merge {done.merge}   # which has what comes before it")


@migrate.command()
@click.argument("rev", shell_complete=completing.revisions)
@lock_wait_option
@confirm_option
@allow_plaintext_option
@click.pass_obj
def force(shown: Console, rev: str) -> None:
    """Set the version to REV and clear the dirty flag.

    REV is a revision's number, or base. The schema is left as it is.
    """
    before = commands.force(resolve_settings(), rev, shown.ask)
    was = f"{before.version or 'none'}{' (dirty)' if before.dirty else ''}"
    shown.say(f"✅ Version set to {rev}; it was {was}. The schema was not changed.", version=rev)


@migrate.command()
@click.option("--forward", is_flag=True, help="Finish the interrupted revision.")
@click.option("--back", is_flag=True, help="Undo the interrupted revision.")
@click.option("--as-is", is_flag=True, help="Run nothing; accept the version as it is.")
@rollback_backup_options
@run_options
@json_option
@click.pass_obj
def repair(shown: Console, forward: bool, back: bool, as_is: bool, as_json: bool) -> None:
    """Show the ways out of a dirty state, or take one."""
    if as_json:
        shown.answer_in_json()
    given = [way for way, taken in (("forward", forward), ("back", back), ("as-is", as_is)) if taken]
    if len(given) > 1:
        raise UsageError(
            f"--{' and --'.join(given)} exclude each other.", next_step="guvnor migrate repair   # shows each"
        )
    way = given[0] if given else None
    settings = resolve_settings()
    from guvnor.migrate import diagnosis, signals

    with signals.interruptible("No revision was being run."):
        found, choices = commands.repair_choices(settings)
        if not choices:
            consistency.check(found, read_revisions())
            shown.say("✅ Nothing to repair")
            return
        shown.choices(found, choices, diagnosis.describe(settings, found))
    if way is None:
        shown.undecided(found)
        sys.exit(consistency.DirtyError.exit_code)
    taken = next(choice for choice in choices if choice.name == way)
    if taken.direction is None:
        commands.force(settings, taken.to_version or "base", shown.ask, shown=found)
        shown.record.found["version"] = number(taken.to_version)
        shown.say(f"✅ Version set to {taken.to_version or 'none'}. The schema was not changed.")
    else:
        from guvnor.migrate import engine

        request = request_for(shown, settings, Direction.UP, upgrade_steps(None), repair=taken)
        shown.outcome(engine.migrate(request))


@migrate.command()
@click.option(
    "--at",
    metavar="REV",
    shell_complete=completing.revisions,
    help="The schema's revision; by default that of the version tables.",
)
@click.option("--accept-drift", is_flag=True, help="Go on although the schema differs from the revision.")
@lock_wait_option
@confirm_option
@allow_plaintext_option
@json_option
@click.pass_obj
def adopt(shown: Console, at: str | None, accept_drift: bool, as_json: bool) -> None:
    """Take over a database that golang-migrate has migrated.

    First, its schema is compared with that of the revision.
    """
    if as_json:
        shown.answer_in_json()
    from guvnor.commands import adopt as adoption

    settings = resolve_settings()
    adopted = adoption.adopt(settings, at, shown.ask, accept_drift=accept_drift)
    shown.record.found["adopted"] = adopted is not None
    if adopted is None:
        shown.say("✅ Nothing to adopt: the version tables agree")
        return
    shown.record.found["version"] = number(adopted.version)
    shown.record.found["differences"] = [finding.title for finding in adopted.report.findings]
    if not adopted.report.clean:
        shown.differences(adopted.report)
    how = "as a database with no migrations applied"
    if adopted.version:
        how = f"at version {number(adopted.version)}"
    shown.say(f"✅ Adopted {how}; the schema was not changed", version=number(adopted.version))


@migrate.command()
@wait_for_server_option
@allow_plaintext_option
@json_option
@click.pass_obj
def preflight(shown: Console, wait_for_server: float, as_json: bool) -> None:
    """Run only the pre-flight checks."""
    from guvnor.migrate.preflight import reported

    shown.each_check = True
    if as_json:
        shown.answer_in_json()
    with reported("configuration", shown.checked):
        settings = resolve_settings()
    commands.run_preflight(settings, shown.checked, wait_for_server)


@migrate.command()
@click.option("--check", is_flag=True, help="Check the configured database's roles instead.")
@click.option("--owner", metavar="ROLE", help=f"The owner.  [default: storage.role or {Names.owner}]")
@click.option("--migrator", metavar="ROLE", default=Names.migrator, show_default=True, help="Migrates.")
@click.option(
    "--application",
    metavar="ROLE",
    default=Names.application,
    show_default=True,
    help="Reads and writes rows.",
)
@click.option("--read-only", metavar="ROLE", default=Names.read_only, show_default=True, help="Only reads.")
@json_option
def roles(
    check: bool, owner: str | None, migrator: str, application: str, read_only: str, as_json: bool
) -> None:
    """Print the SQL for least-privilege roles, or check the roles.

    The SQL creates four roles with exactly the rights that they need.
    """
    settings = resolve_settings()
    names = Names(owner or settings.storage_role or Names.owner, migrator, application, read_only)
    if not check:
        sql = least_privilege.script(names)
        print_json({"roles": asdict(names), "sql": sql}) if as_json else say(sql.rstrip("\n"))
        return
    found = least_privilege.check(settings, names)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            tell(f"{'❌' if finding.kind == least_privilege.MISSING else '⚠️ '} {finding}")
    if missing := sum(finding.kind == least_privilege.MISSING for finding in found):
        raise PreflightError(
            f"The set-up of the roles is incomplete ({missing} missing).",
            next_step="guvnor migrate roles | psql   # as an administrator of the database",
        )
    if not as_json:
        say("✅ The roles have the rights they need" + (", and more" if found else " and no more"))
