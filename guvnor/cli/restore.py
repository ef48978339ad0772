"""``guvnor restore``: puts a backup back, into the live database or into a new one."""

from __future__ import annotations

import getpass
import sys
from dataclasses import asdict
from pathlib import Path

import click

from guvnor import typed
from guvnor.cli import completing
from guvnor.cli.base import (
    Command,
    allow_plaintext_option,
    backup_identity_option,
    confirm_option,
    json_option,
    lock_wait_option,
    max_stall_option,
    max_wait_option,
    resolve_settings,
)
from guvnor.cli.console import Console
from guvnor.errors import UsageError


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completing.files)
@click.option("--into", metavar="DATABASE", help="The new database, for a backup of a whole one.")
@click.option("--no-owner", is_flag=True, help="With --into: restore neither owners nor privileges.")
@backup_identity_option
@lock_wait_option
@max_wait_option
@max_stall_option
@confirm_option
@allow_plaintext_option
@json_option
@click.pass_obj
def restore(shown: Console, file: Path, into: str | None, no_owner: bool, as_json: bool) -> None:
    """Restore a backup, and compare it row by row.

    What a rollback dropped goes back into the tables that it came from: run `guvnor migrate up` first. A
    backup of the whole database goes into a new one (--into). After a failure, the same command goes on.
    """
    from guvnor.backup.opened import Kind, open_backup
    from guvnor.commands import restore as restoring, restore_whole, restored

    if as_json:
        shown.answer_in_json()
    settings = resolve_settings()
    backup = open_backup(file, settings.backup_identity, _ask_passphrase)
    shown.record.found |= {"backup": str(backup.path), "holds": backup.kind.value}
    if backup.kind is Kind.WHOLE:
        if into is None:
            raise UsageError(
                f"{file} holds the whole database, which is restored into a new one.",
                next_step=typed.again_with("into", "DATABASE", when="its name"),
            )
        results = restore_whole.restore_whole(
            settings, backup, into, shown.ask, shown.progressed, owners=not no_owner
        )
    else:
        if into is not None or no_owner:
            raise UsageError(
                f"{file} holds what a rollback dropped. It goes into the tables that it came from, so "
                "--into and --no-owner are of no use.",
                next_step=f"guvnor restore {file}",
            )
        results = restoring.restore_dropped(settings, backup, shown.ask, shown.progressed)
    shown.settled()
    shown.record.found["parts"] = [asdict(part) for part in results]
    for part in results:
        unit, mark = "values" if part.kind == "values" else "rows", "⚠️ " if part.different else "✅"
        without = f"; the rows of {part.gone:,} are gone" if part.gone else ""
        shown.say(
            f"{mark} {part.name}: {part.equal:,} of {part.rows:,} {unit} equal{without}",
            style="yellow" if part.different else "",
        )
        for line in part.different:
            shown.say(f"   {line}")
    total, equal = sum(part.rows for part in results), sum(part.equal for part in results)
    gone = sum(part.gone for part in results)
    counts = f"{equal:,} of {total:,} rows and values are as in the backup"
    if differing := [part for part in results if part.different]:
        beside = "DROP SCHEMA guvnor_restore CASCADE;   -- once you have decided"
        decided = [beside] if into is None else []
        raise restored.DifferencesError(
            f"The backup is restored, but not all of it: {counts}.",
            state=_state(into),
            next_step="\n".join([*map(restored.shows, differing), *decided]),
        )
    if into is None:
        shown.say(f"✅ Restored: {counts}" + (f"; {gone:,} have no row any more" if gone else ""))
    else:
        shown.say(f"✅ Restored into database {into}: {counts}")


def _state(into: str | None) -> str:
    if into is not None:
        return f"Database {into} is restored, but its rows are not those of the backup: do not use it."
    return (
        "What the application has written since is as it left it. The backup's values of these rows are kept "
        "in schema guvnor_restore; all others are back."
    )


def _ask_passphrase(prompt: str) -> str | None:
    """Read a passphrase from the terminal; None without one."""
    if not sys.stdin.isatty():
        return None
    return getpass.getpass(prompt, sys.stderr)
