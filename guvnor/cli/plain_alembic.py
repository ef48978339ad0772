"""The code behind ``alembic/env.py``: plain ``alembic`` does what ``guvnor`` does.

Alembic commands come in four kinds, which the options that Alembic passes on tell apart: SQL written offline,
a new revision file, commands that only read (current, check, revision --autogenerate), and commands that move
the version (upgrade, downgrade, stamp). Only the last kind has a destination.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import alembic
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from guvnor import __version__, config, logs, postgres, records
from guvnor.cli import invocation
from guvnor.cli.console import Console
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import UsageError
from guvnor.migrate import offline
from guvnor.migrate.engine import migrate
from guvnor.migrate.request import Request
from guvnor.postgres.engine import connected
from guvnor.postgres.settings import known_names
from guvnor.project import Project
from guvnor.revisions import files
from guvnor.revisions.identifiers import following
from guvnor.revisions.script import Direction

log = logging.getLogger(__name__)


def run(context: Any, project: Project) -> None:
    """Do what an Alembic command asks for; ``context`` is the module ``alembic.context``."""
    records.open_closed_streams()
    invocation.remember_alembic(context.config.cmd_opts)
    shown = Console()
    flags = {_option(name): value for name, value in context.get_x_argument(as_dictionary=True).items()}
    spoken = records.spoken(wanted=logs.everything_in_json(flags), document=context.is_offline_mode())
    with spoken, shown.explaining(unless=CommandError):
        settings = _settings(context)
        context.configure(dialect_name="postgresql")
        options = context.get_context().opts
        if context.is_offline_mode():
            keep = known_names(settings.session_keep)
            offline.write(context, golang_migrate=project.golang_migrate, keep=keep)
        elif "revision_context" in options and not options["revision_context"].command_args["autogenerate"]:
            _new_revision(context, options["revision_context"].command_args["message"])
        elif "destination_rev" in options:
            shown.outcome(migrate(_request(context, project, settings, shown, options)))
        else:
            _look(context, project, settings, comparing="revision_context" in options)


def _option(name: str) -> str:
    """Return the name of the setting that a name after ``-x`` stands for."""
    return next((o.name for o in config.OPTIONS if o.name.replace(".", "_") == name), name)


def _settings(context: Any) -> Settings:
    """Resolve the settings, including those of ``-x``, and set up logging accordingly."""
    flags = context.get_x_argument(as_dictionary=True)
    # A connection string may hold a password, and others can see the command line.
    options = [option.name for option in config.OPTIONS if not option.name.endswith(".dsn")]
    known = {name.replace(".", "_"): name for name in options}
    unknown = sorted(set(flags) - set(known))
    if unknown:
        raise UsageError(
            f"Unknown -x argument: {', '.join(unknown)}. Use one of {', '.join(known)}.",
            next_step="alembic -h",
        )
    settings = config.load({known[name]: value for name, value in flags.items()})
    logs.configure(settings)
    return settings


def _request(
    context: Any, project: Project, settings: Settings, shown: Console, options: dict[str, Any]
) -> Request:
    """Return the request that an upgrade, a downgrade or a stamp stands for."""
    if options.get("purge"):
        raise UsageError(
            "stamp --purge would empty alembic_version unguarded.", next_step="guvnor migrate force REV"
        )
    find = options["fn"]

    def find_steps(_script: ScriptDirectory, heads: tuple[str, ...]) -> Sequence[MigrationStep]:
        return list(find(heads, context.get_context()))

    return Request(
        settings,
        project,
        _direction(context.script, find_steps, options),
        find_steps,
        shown,
        environment=context,
        relative=str(options["destination_rev"])[:1] in ("+", "-"),
        tool=f"alembic {alembic.__version__}, guvnor {__version__}",
    )


def _direction(script: ScriptDirectory, find_steps: Any, options: dict[str, Any]) -> Direction:
    """Tell which way Alembic's step finder goes: only an upgrade has steps to run from no revision at all."""
    if "purge" in options:
        return Direction.STAMP
    try:
        return Direction.UP if find_steps(script, ()) else Direction.DOWN
    except (Exception, SystemExit):  # noqa: BLE001 - the pre-flight checks report files that cannot be read
        return Direction.DOWN


def _new_revision(context: Any, title: str | None) -> None:
    """Let Alembic write a revision file, which needs no database."""
    files.check_title(title or "")
    context.configure(dialect_name="postgresql", as_sql=True, process_revision_directives=_number)
    context.run_migrations()


def _number(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the next number, unless the user gave it one.

    :raises UsageError: when the file would go into an installed package (exit code 2).
    """
    assert context.script is not None
    files.check_not_installed(Path(context.script.dir))
    for script in directives:
        if context.opts["revision_context"].command_args["rev_id"] is None:
            script.rev_id = following(revision.revision for revision in context.script.walk_revisions())


def _generated(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
    """Number a generated revision; discard an empty one."""
    (script,) = directives
    if script.message is None:  # `alembic check` writes no file, and inspects this revision afterwards
        return
    files.check_title(script.message)
    _number(context, revision, directives)
    if script.upgrade_ops.is_empty():
        directives.clear()
        log.info("The database matches the models: there is no revision to write")


def _look(context: Any, project: Project, settings: Settings, *, comparing: bool) -> None:
    """Run a command that only reads: it takes no lock and creates no table.

    :param comparing: whether the command compares the database with the models.
    """
    database = Database.of(settings)
    options: dict[str, Any] = {}
    if comparing:
        from guvnor.autogenerate import plugin

        plugin.register()
        options = {
            "autogenerate_plugins": [plugin.NAME],
            "process_revision_directives": _generated,
            plugin.DATABASE: database,
        }
        if context.get_context().opts["revision_context"].command_args["message"] is not None:
            from guvnor.autogenerate import ignores
            from guvnor.lint import generated

            options[ignores.OPTION] = partial(
                generated.problems,
                Path(context.config.config_file_name or "alembic.ini"),
                database.shadow.dsn,
            )
    with connected(lambda: database.connect("look")) as connection:
        context.configure(
            connection=connection,
            target_metadata=project.load_metadata(),
            dont_mutate=True,
            version_table_schema=postgres.SCHEMA,
            **options,
        )
        context.run_migrations()
