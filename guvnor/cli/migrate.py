"""``guvnor migrate``: apply, roll back and look at migrations."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from guvnor.bookkeeping import state
from guvnor.cli.base import (
    Group,
    allow_plaintext_option,
    confirm_option,
    lock_wait_option,
    max_wait_option,
    print_json,
    request_for,
    resolve_settings,
    rollback_backup_options,
    wait_for_server_option,
)
from guvnor.cli.console import Console, result_kept_clean, say, show, show_table
from guvnor.commands import migrate as commands
from guvnor.errors import GuvnorError
from guvnor.migrate import roles as least_privilege
from guvnor.migrate.roles import Names
from guvnor.revisions.direction import Direction
from guvnor.revisions.script import downgrade_steps, read_revisions, upgrade_steps


@click.group(cls=Group)
def migrate() -> None:
    """Apply, roll back and look at migrations."""


@migrate.command()
@click.option("--to", metavar="REV", help="The last revision to apply; all by default.")
@click.option("--strict", is_flag=True, help="Fail when the database is ahead of the migration files.")
@click.option("--no-verify", is_flag=True, help="Do not compare the schema with the expected one afterwards.")
@wait_for_server_option
@lock_wait_option
@max_wait_option
@confirm_option
@allow_plaintext_option
def up(
    to: str | None,
    strict: bool,
    no_verify: bool,
    wait_for_server: float,
    lock_wait: str | None,
    max_wait: str | None,
    confirm: str | None,
) -> None:
    """Apply pending migrations."""
    from guvnor.migrate import engine

    shown = Console()
    with shown.explaining():
        verify = "no" if no_verify else None
        settings = resolve_settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm, verify=verify)
        request = request_for(
            shown,
            settings,
            Direction.UP,
            upgrade_steps(to),
            patience=wait_for_server,
            strict=strict,
        )
        shown.outcome(engine.migrate(request))


@migrate.command()
@click.option("--to", metavar="REV", help="The revision that remains applied, or base; one step by default.")
@rollback_backup_options
@lock_wait_option
@max_wait_option
@confirm_option
@allow_plaintext_option
def down(to: str | None, lock_wait: str | None, max_wait: str | None, confirm: str | None) -> None:
    """Roll back migrations, one step by default."""
    shown = Console()
    with shown.explaining():
        from guvnor.migrate import engine

        settings = resolve_settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm)
        shown.outcome(engine.migrate(request_for(shown, settings, Direction.DOWN, downgrade_steps(to))))


@migrate.command()
@click.argument("direction", type=click.Choice(["up", "down"]), default="up")
@click.option("--to", metavar="REV", help="As for the command itself.")
@click.option("--shadow-dsn", metavar="DSN", help="A scratch database, in which locks can be seen.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(direction: str, to: str | None, shadow_dsn: str | None, as_json: bool) -> None:
    """Show what an up (or down) would do: SQL, objects, locks and lost data. Nothing is changed."""
    from guvnor.commands.preview import preview
    from guvnor.reports import plan as plan_report

    with Console().explaining():
        settings = resolve_settings(**{"shadow.dsn": shadow_dsn})
        with result_kept_clean():
            found = preview(settings, direction, to)
        if as_json:
            print_json(plan_report.as_json(found))
        else:
            for line in plan_report.lines(found):
                say(line)


@migrate.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--exit-code", is_flag=True, help="Exit with 8 when migrations are pending, 5 when a decision is needed."
)
def status(as_json: bool, exit_code: bool) -> None:
    """Show which version the database is at."""
    from guvnor.reports import status as status_report

    with Console().explaining():
        settings = resolve_settings()
        found = commands.status(settings)
        if as_json:
            print_json(status_report.as_json(settings, found))
        else:
            for line in status_report.lines(settings, found):
                say(line)
    if exit_code:
        sys.exit(found.exit_code)


@migrate.command()
@click.option("--since", metavar="WHEN", help="Leave out what is older: 2026-03-01, 03:00, 90min or 7d.")
@click.option("--failed", is_flag=True, help="Leave out what succeeded.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def history(since: str | None, failed: bool, as_json: bool) -> None:
    """Show every attempt: who, when, how long, and how it ended."""
    from guvnor.reports import history as history_report

    with Console().explaining():
        found = commands.entries(resolve_settings(), since, failed=failed)
        if as_json:
            print_json(history_report.as_json(found))
        elif not found:
            say(history_report.nothing(filtered=failed or since is not None))
        else:
            show_table(history_report.as_table(found))


@migrate.command()
@click.argument("name")
def create(name: str) -> None:
    """Write a migration file with the next number."""
    with Console().explaining():
        resolve_settings()
        say(f"✅ Created {commands.create(name)}")


@migrate.command()
@click.argument("rev")
@lock_wait_option
@confirm_option
@allow_plaintext_option
def force(rev: str, lock_wait: str | None, confirm: str | None) -> None:
    """Set the version to REV (a number, or base) and clear the dirty flag; the schema is left as it is."""
    shown = Console()
    with shown.explaining():
        before = commands.force(resolve_settings(lock_wait=lock_wait, confirm=confirm), rev, shown.ask)
        was = f"{before.version or 'none'}{' (dirty)' if before.dirty else ''}"
        say(f"✅ Version set to {rev}; it was {was}. The schema was not changed.")


@migrate.command()
@click.option(
    "--forward", "way", flag_value="forward", help="Run the interrupted revision again, to its end."
)
@click.option("--back", "way", flag_value="back", help="Undo the interrupted revision.")
@click.option("--as-is", "way", flag_value="as-is", help="Run nothing and take the version as it is.")
@rollback_backup_options
@lock_wait_option
@max_wait_option
@confirm_option
@allow_plaintext_option
def repair(way: str | None, lock_wait: str | None, max_wait: str | None, confirm: str | None) -> None:
    """Show the ways out of a dirty state, or take one."""
    shown = Console()
    with shown.explaining():
        settings = resolve_settings(lock_wait=lock_wait, max_wait=max_wait, confirm=confirm)
        found, choices = commands.repair_choices(settings)
        if not choices:
            state.check(found, read_revisions())
            say("✅ Nothing to repair")
            return
        shown.choices(found, choices, commands.describe_interrupted(settings, found))
        if way is None:
            sys.exit(state.DirtyError.exit_code)
        if way == "as-is":
            commands.force(settings, choices[-1].to_version or "base", shown.ask)
            say(f"✅ Version set to {choices[-1].to_version or 'none'}. The schema was not changed.")
        else:
            from guvnor.migrate import engine

            request = request_for(shown, settings, Direction.UP, upgrade_steps(None), repair=way)
            shown.outcome(engine.migrate(request))


@migrate.command()
@click.option(
    "--at", metavar="REV", help="The revision that the schema is at; by default what the tables say."
)
@click.option("--accept-drift", is_flag=True, help="Go on where the schema differs from the revision.")
@lock_wait_option
@confirm_option
@allow_plaintext_option
def adopt(at: str | None, accept_drift: bool, lock_wait: str | None, confirm: str | None) -> None:
    """Take over a database that golang-migrate migrated, after comparing its schema."""
    from guvnor.commands import adopt as adoption
    from guvnor.reports import drift as drift_report

    shown = Console()
    with shown.explaining():
        settings = resolve_settings(lock_wait=lock_wait, confirm=confirm)
        done = adoption.adopt(settings, at, shown.ask, accept_drift=accept_drift)
        if done.revision is None or done.report is None:
            say("✅ Nothing to adopt: the version tables agree")
            return
        if not done.report.clean:
            show(drift_report.as_terminal(done.report))
        say(f"✅ Adopted at version {done.revision.number}; the schema was not changed")


@migrate.command()
@wait_for_server_option
@allow_plaintext_option
def preflight(wait_for_server: float) -> None:
    """Run the pre-flight checks alone."""
    shown = Console()
    with shown.explaining():
        try:
            settings = resolve_settings()
        except GuvnorError as error:
            shown.configuration_failed(error)
            raise
        commands.run_preflight(settings, shown.checked, wait_for_server)


@migrate.command()
@click.option("--check", is_flag=True, help="Compare the configured database's set-up with it instead.")
@click.option("--owner", metavar="ROLE", help="Owns the objects.  [default: storage.role, else guvnor_owner]")
@click.option("--migrator", metavar="ROLE", default=Names.migrator, show_default=True, help="Migrates.")
@click.option(
    "--application", metavar="ROLE", default=Names.application, show_default=True, help="Uses rows."
)
@click.option("--read-only", metavar="ROLE", default=Names.read_only, show_default=True, help="Only looks.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def roles(
    check: bool, owner: str | None, migrator: str, application: str, read_only: str, as_json: bool
) -> None:
    """Print the SQL for four roles with exactly the rights they need, or check such a set-up."""
    with Console().explaining():
        settings = resolve_settings()
        names = Names(owner or settings.role or Names.owner, migrator, application, read_only)
        if not check:
            sql = least_privilege.script(names)
            print_json({"roles": asdict(names), "sql": sql}) if as_json else say(sql.rstrip("\n"))
            return
        found = least_privilege.check(settings, names)
        if as_json:
            print_json([asdict(finding) for finding in found])
        else:
            for finding in found:
                say(f"{'❌' if finding.kind == least_privilege.MISSING else '⚠️ '} {finding}")
        if missing := sum(finding.kind == least_privilege.MISSING for finding in found):
            raise least_privilege.RolesError(f"The roles lack what is needed in {missing} things.")
        if not as_json:
            say("✅ The roles have the rights they need" + (", and more" if found else " and no more"))
