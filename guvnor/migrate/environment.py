"""What stands behind ``alembic/env.py``: the same for plain ``alembic`` and for ``guvnor``.

Alembic commands come in four kinds, told apart by what Alembic itself passes on: SQL written offline, a new
revision file, commands that look (current, check, revision --autogenerate), and commands that move the
version (upgrade, downgrade, stamp), which alone have a destination.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from guvnor import __version__, config, logs, postgres
from guvnor.errors import UsageError
from guvnor.migrate import commands, offline, preflight, revisions, signals, state
from guvnor.migrate.context import configure, connected
from guvnor.migrate.move import Move, Request

log = logging.getLogger(__name__)

REQUEST = "guvnor"  # the attribute of Alembic's configuration under which guvnor passes its request


def run(context: Any) -> None:
    """Do what an Alembic command asks for.

    :param context: the module ``alembic.context``.
    """
    request = context.config.attributes.get(REQUEST)
    if request is not None:
        _dispatch(context, request)
        return
    from guvnor import streams
    from guvnor.console import Console

    streams.open_closed()
    console = Console()
    with console.explaining():
        request = _request_of_plain_alembic(context, console)
        _dispatch(context, request)
        if request.outcome is not None:
            console.outcome(request.outcome)


def _request_of_plain_alembic(context: Any, console: Any) -> Request:
    flags = context.get_x_argument(as_dictionary=True)
    # What may hold a password does not belong on a command line, which others can see.
    options = [option.name for option in config.OPTIONS if not option.name.endswith(".dsn")]
    known = {name.replace(".", "_"): name for name in options}
    unknown = sorted(set(flags) - set(known))
    if unknown:
        raise UsageError(
            f"Unknown -x argument: {', '.join(unknown)}. Known are {', '.join(known)}.",
            next_step="alembic -h",
        )
    settings = config.load({known[name]: value for name, value in flags.items()})
    logs.configure(settings)
    import alembic

    return Request(
        settings,
        report=console.checked,
        ask=console.ask,
        progress=console.progressed,
        tool=f"alembic {alembic.__version__}, guvnor {__version__}",
    )


def _dispatch(context: Any, request: Request) -> None:
    context.configure(dialect_name="postgresql")
    options = context.get_context().opts
    if context.is_offline_mode():
        offline.write(context)
    elif "revision_context" in options and not options["revision_context"].command_args["autogenerate"]:
        _new_revision(context)
    elif "destination_rev" in options:
        _move(context, request, options)
    else:
        _look(context, request)


def _new_revision(context: Any) -> None:
    """Let Alembic write a revision file, which needs no database."""
    arguments = context.get_context().opts["revision_context"].command_args
    revisions.check_title(arguments["message"] or "")
    context.configure(dialect_name="postgresql", as_sql=True, process_revision_directives=_number)
    context.run_migrations()


def _number(context: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the next number, unless the user gave it one."""
    assert context.script is not None
    for script in directives:
        if context.opts["revision_context"].command_args["rev_id"] is None:
            script.rev_id = next_identifier(context.script)


def _generated(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
    """Number a revision that was generated; leave it out when there is nothing in it."""
    (script,) = directives
    if script.message is None:  # `alembic check` writes none, and looks at this one afterwards
        return
    revisions.check_title(script.message)
    _number(context, revision, directives)
    if script.upgrade_ops.is_empty():
        directives.clear()
        log.info("The database is what the models say: there is no revision to write")


def next_identifier(script: ScriptDirectory) -> str:
    """Return the identifier of the next revision: ``003``."""
    numbers = [state.number(revision.revision) for revision in script.walk_revisions()]
    return f"{max(numbers, default=0) + 1:03d}"


def _look(context: Any, request: Request) -> None:
    """Run a command that moves nothing: it takes no lock and creates no table."""
    comparing: dict[str, Any] = {}
    if "revision_context" in context.get_context().opts:
        from guvnor.autogenerate import plugin

        plugin.register()
        comparing = {
            "autogenerate_plugins": [plugin.NAME],
            "process_revision_directives": _generated,
            plugin.SETTINGS: request.settings,
        }
    dsn = postgres.connection_string(request.settings)
    with connected(dsn, "look") as connection:
        configure(context, connection, **comparing)
        context.run_migrations()


def _move(context: Any, request: Request, options: dict[str, Any]) -> None:
    """Run upgrade, downgrade or stamp: pre-flight, plan, guard, locks, and the plan's steps one by one."""
    if options.get("purge"):
        raise UsageError(
            "stamp --purge would empty alembic_version unguarded.", next_step="guvnor migrate force REV"
        )
    script: ScriptDirectory = context.script
    with signals.explained("No revision was being run.") as canceller:
        try:
            ready = preflight.run(
                request.settings,
                lambda: (
                    Path(context.config.config_file_name)
                    if context.config.config_file_name
                    else revisions.configuration_file()
                ),
                lambda _: script,
                request.report,
                patience=request.patience,
                purpose="control",
                repairing=request.repair is not None,
            )
            with postgres.closing(ready.connection):
                _announce(ready, request, options)
                move = Move(context, request, ready, script, options, canceller)
                request.outcome = move.run()
        except state.DirtyError as error:
            known = commands.diagnose(request.settings, error.found) if error.found else []
            error.state = "\n".join((error.state or "", *known))
            raise


def _announce(ready: preflight.Ready, request: Request, options: dict[str, Any]) -> None:
    """Say in the first record which tool works on which database, and that it starts."""
    identity = ready.identity
    log.info(
        request.tool,
        extra={
            "host": identity.host,
            "port": identity.port,
            "database": identity.database,
            "role": identity.role,
            "server_version": identity.version_text,
        },
    )
    name = options["fn"].__name__
    direction = {"upgrade": "up", "downgrade": "down", "do_stamp": "stamp"}.get(name, name)
    log.info(
        f"Starting database migration ({direction})",
        extra={"current_version": ready.state.number, "migrations_found": len(ready.revisions)},
    )
