"""How an online operation is run: online, in its plain form, or as a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic.runtime.migration import MigrationContext

from guvnor.online.execute import OnlineStep
from guvnor.postgres import Connection
from guvnor.postgres.raw_sql import RawPostgresqlImpl

# The option of the migration context that holds what runs a revision for real. The runner's
# `online_step(context, step)` commits what came before, and yields an OnlineStep to the body of a `with`;
# `builds_at_once(name, sql)` tells whether an index is to be built in the revision's transaction instead.
RUNNER = "guvnor_runner"
PLAIN_FORM = (
    "guvnor_plain_form"  # the option that holds what records plain forms, where nothing runs for real
)


def runner_of(context: MigrationContext) -> Any:
    """Return what runs the revision for real; None where nothing may be committed, and in a script."""
    return None if context.as_sql else context.opts.get(RUNNER)


def session_of(context: MigrationContext) -> Connection:
    """Return the driver's connection that the revision runs on; not in a script."""
    assert context.connection is not None
    connection: Any = context.connection.connection.dbapi_connection
    return connection  # type: ignore[no-any-return]


def note_plain_form(context: MigrationContext, plain: str) -> None:
    """Let it be recorded which statement stands for the operation that comes next."""
    if record := context.opts.get(PLAIN_FORM):
        record(plain)


def invoke(
    context: MigrationContext,
    step: str,
    *,
    run: Callable[[OnlineStep], Any],
    plain: str,
    offline: tuple[str, ...] = (),
) -> None:
    """Run an operation in the form that fits the context.

    :param step: the operation, in words.
    :param run: runs it online.
    :param plain: the statement for a transaction that must not commit.
    :param offline: the statements for offline SQL; the plain one when left out.
    """
    note_plain_form(context, plain)
    if context.as_sql:
        with context.autocommit_block():
            for statement in offline or (plain,):
                run_sql(context, statement)
    elif runner_of(context):
        online(context, step, run)
    else:
        run_sql(context, plain)


def online(context: MigrationContext, step: str, run: Callable[[OnlineStep], Any]) -> None:
    """Commit what came before, and run a step outside of a transaction.

    :param step: in words.
    """
    with runner_of(context).online_step(context, step) as online_step:
        run(online_step)


def commit(context: MigrationContext) -> None:
    """Commit what was done so far, so that no lock is held by what follows."""
    online(context, "commit what is done so far", lambda _step: None)


def run_sql(context: MigrationContext, sql: str) -> None:
    """Run a statement in the revision's transaction."""
    assert isinstance(context.impl, RawPostgresqlImpl)
    context.impl.execute_text(sql)
