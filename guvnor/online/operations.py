"""Online operations: what cannot run in a transaction, or must not hold its locks for long, as Alembic
operations.

They are used in revisions like ``op.execute``::

    op.create_index_concurrently("idx_x", "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_x ON x (y)")

Each inspects the database and does only what is missing, so it can be run again after any failure. Where a
runner is attached, the transaction before it is committed (marked dirty) and the operation runs in autocommit
mode without a lock timeout. In a transaction that must not commit it takes its plain form; offline it keeps
its online form, between COMMIT and BEGIN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from guvnor.online import backfill, execute, kept_rows, plain_forms
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.keeping import KeptChange
from guvnor.online.kept_names import calling_revision
from guvnor.postgres.quoting import quoted, suffixed
from guvnor.postgres.raw_sql import RawPostgresqlImpl

# The option of the migration context that holds what runs a revision for real. The runner's
# `online_step(context, step)` commits what came before, and yields an OnlineStep to the body of a `with`;
# `builds_at_once(name, sql)` tells whether an index is to be built in the revision's transaction instead.
RUNNER = "guvnor_runner"
PLAIN_FORM = (
    "guvnor_plain_form"  # the option that holds what records plain forms, where nothing runs for real
)


@Operations.register_operation("create_index_concurrently")
@Operations.register_operation("drop_index_concurrently")
@Operations.register_operation("validate_constraint")
@Operations.register_operation("set_not_null")
@Operations.register_operation("add_enum_value")
@Operations.register_operation("backfill")
@Operations.register_operation("change_rows")
@Operations.register_operation("delete_rows")
@Operations.register_operation("bring_back")
@Operations.register_operation("forget_kept")
@Operations.register_operation("next_transaction")
class OnlineOperations:
    """The methods that Alembic's ``op`` gains."""

    @classmethod
    def create_index_concurrently(cls, operations: Operations, name: str, sql: str) -> None:
        """Build an index without locking out writers.

        A valid index of that name is left alone; one that a surviving backend still builds is awaited; an
        invalid one is dropped concurrently and built again. On a table of a few blocks that the revision's
        transaction has locked anyway, the index is built there at once.

        :param sql: the statement: ``CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name ON ...``.
        :raises OnlineStepError: when the statement would lock writers out.
        """
        if not plain_forms.is_concurrent(sql):
            raise execute.OnlineStepError(
                f"The statement for index {name} does not say CONCURRENTLY, so it would lock writers out."
            )
        context, plain = operations.migration_context, plain_forms.create_index(sql)
        runner = None if context.as_sql else context.opts.get(RUNNER)
        if runner is not None and runner.builds_at_once(name, plain):
            _execute(context, plain)
            return
        _invoke(
            context,
            f"build index {name}",
            run=lambda step: execute.create_index(step, name, sql),
            plain=plain,
            offline=(sql,),
        )

    @classmethod
    def drop_index_concurrently(cls, operations: Operations, name: str) -> None:
        """Drop an index, when it exists, without locking out readers and writers."""
        _invoke(
            operations.migration_context,
            f"drop index {name}",
            run=lambda step: execute.drop_index(step, name),
            plain=plain_forms.drop_index(name),
            offline=(plain_forms.drop_index(name, concurrently=True),),
        )

    @classmethod
    def validate_constraint(cls, operations: Operations, table: str, name: str) -> None:
        """Validate a foreign key or check outside of the revision's transaction, without blocking writers.

        :param name: of the constraint, added before as ``NOT VALID``.
        """
        _invoke(
            operations.migration_context,
            f"validate constraint {name} of {table}",
            run=lambda step: execute.validate_constraint(step, table, name),
            plain=plain_forms.validate_constraint(table, name),
        )

    @classmethod
    def set_not_null(cls, operations: Operations, table: str, column: str) -> None:
        """Make a column NOT NULL without scanning the table under a lock, by way of a validated check.

        A valid check ``column IS NOT NULL`` spares SET NOT NULL its scan (PostgreSQL documentation, ALTER
        TABLE). The check is added and dropped in the revision's transactions, and validated online between
        them.

        :param column: a column that no longer holds a NULL.
        """
        context = operations.migration_context
        check = suffixed(f"guvnor_{table}_{column}", "_is_set")
        drop_check = f"ALTER TABLE {quoted(table)} DROP CONSTRAINT IF EXISTS {quoted(check)}"
        set_not_null = f"ALTER TABLE {quoted(table)} ALTER COLUMN {quoted(column)} SET NOT NULL"
        has_check = False
        if not context.as_sql:
            assert context.connection is not None
            driver: Any = context.connection.connection.dbapi_connection
            if execute.is_not_null(driver, table, column):
                _execute(context, drop_check)
                return
            if context.opts.get(RUNNER) is None:
                _execute(context, set_not_null)
                return
            has_check = execute.constraint_is_valid(driver, table, check) is not None
        if not has_check:
            condition = f"CHECK ({quoted(column)} IS NOT NULL) NOT VALID"
            _execute(context, f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(check)} {condition}")
        _invoke(
            context,
            f"check that {table}.{column} holds no NULL",
            run=lambda step: execute.check_not_null(step, table, check),
            plain=plain_forms.validate_constraint(table, check),
        )
        _execute(context, set_not_null)
        _execute(context, drop_check)

    @classmethod
    def add_enum_value(
        cls,
        operations: Operations,
        name: str,
        value: str,
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Add a value to an enum, when it does not exist, so that the revision can use it.

        A new value must not be used in the transaction that adds it (PostgreSQL documentation, ALTER TYPE),
        so it is committed at once.

        :param before: the value that comes after it; None for none.
        :param after: the value that comes before it; without either, it becomes the last one.
        """
        statement = plain_forms.add_enum_value(name, value, before, after)
        _invoke(
            operations.migration_context,
            f"add value {value} to {name}",
            run=lambda step: step.execute(statement),
            plain=statement,
        )

    @classmethod
    def backfill(cls, operations: Operations, table: str, assignments: str, where: str) -> None:
        """Update rows batch by batch, each batch in its own transaction, until none is left.

        It resumes by its own predicate, so ``where`` must no longer hold for a row that has been updated. The
        batches adapt to a target duration, with pauses between them, and wait for replicas that lag.

        :param assignments: what follows SET: ``priority = 'normal'``.
        :param where: which rows are still to be done: ``priority IS NULL``.
        """
        whole = plain_forms.backfill(table, assignments, where)
        _invoke(
            operations.migration_context,
            f"backfill {table}",
            run=lambda step: backfill.backfill(step, table, assignments, where),
            plain=whole,
            offline=(whole, f"ANALYZE {quoted(table)}"),
        )

    @classmethod
    def change_rows(
        cls,
        operations: Operations,
        table: str,
        *,
        set: Mapping[str, str],  # noqa: A002 - as SQL calls it
        where: str,
        keep: bool,
    ) -> None:
        """Change rows batch by batch, and keep what was there in a table beside, for ``op.bring_back``.

        Each batch is one statement, which locks rows, keeps them and changes exactly those. No row is changed
        twice, so ``where`` may still hold for a row that was changed.

        :param set: an SQL expression for each column: ``{"active": "false"}``.
        :param where: which rows.
        :param keep: True; what needs not be kept is for ``op.backfill``.
        :raises OnlineStepError: when rows remain that cannot be changed.
        """
        if isinstance(set, str) or not set:
            raise execute.OnlineStepError('op.change_rows takes set={"column": "expression", ...}.')
        _require_keep(keep, "op.backfill changes rows without keeping them.")
        _keep(operations.migration_context, KeptChange(table, dict(set), where, calling_revision()))

    @classmethod
    def delete_rows(cls, operations: Operations, table: str, *, where: str, keep: bool) -> None:
        """Delete rows batch by batch, and keep them in a table beside, for ``op.bring_back``.

        A row to which rows of another table refer is not deleted: those rows would go without being kept.

        :param where: which rows.
        :param keep: True; what needs not be kept is for ``op.execute``.
        :raises OnlineStepError: when rows remain that cannot be deleted.
        """
        _require_keep(keep, "op.execute deletes rows without keeping them.")
        _keep(operations.migration_context, KeptChange(table, None, where, calling_revision()))

    @classmethod
    def bring_back(cls, operations: Operations, table: str) -> None:
        """Undo ``op.change_rows`` or ``op.delete_rows`` of the same revision, batch by batch.

        A column that still holds what the revision wrote gets back what it held before, and a deleted row is
        inserted again. What cannot come back stays in the table beside, and is reported; when nothing stays,
        that table is dropped.
        """
        context, rows = operations.migration_context, KeptReturn(table, calling_revision())
        whole = rows.whole()
        _invoke(
            context,
            f"bring back rows of {table}",
            run=lambda step: kept_rows.bring_back(step, rows),
            plain=whole,
            offline=(whole, f"ANALYZE {quoted(table)}"),
        )
        _execute(context, rows.drop())

    @classmethod
    def forget_kept(cls, operations: Operations, table: str, *, revision: str) -> None:
        """Drop what a revision kept of a table: from then on, its downgrade brings nothing back.

        :param revision: the one that kept it: ``004``.
        """
        _execute(operations.migration_context, plain_forms.forget_kept(table, revision))

    @classmethod
    def next_transaction(cls, operations: Operations) -> None:
        """Commit what the revision has done so far, so that no lock of it is held by what follows."""
        _invoke(
            operations.migration_context,
            "commit what is done so far",
            run=lambda _step: None,
            plain=plain_forms.next_transaction(),
        )


def _require_keep(keep: bool, instead: str) -> None:
    if keep is not True:
        raise execute.OnlineStepError(f"The rows are kept: keep=True. {instead}")


def _keep(context: MigrationContext, rows: KeptChange) -> None:
    """Make the table beside in the revision's transaction, then keep and change rows online."""
    _execute(context, rows.make())
    whole = rows.whole()
    _invoke(
        context,
        rows.operation,
        run=lambda step: kept_rows.change(step, rows),
        plain=whole,
        offline=(whole, f"ANALYZE {quoted(rows.table)}"),
    )


def _invoke(
    context: MigrationContext,
    step: str,
    *,
    run: Callable[[execute.OnlineStep], Any],
    plain: str,
    offline: tuple[str, ...] = (),
) -> None:
    """Run an operation in the form that fits the context.

    :param step: the operation, in words.
    :param run: runs it online.
    :param plain: the statement for a transaction that must not commit.
    :param offline: the statements for offline SQL; the plain one when left out.
    """
    if record := context.opts.get(PLAIN_FORM):
        record(plain)
    if context.as_sql:
        with context.autocommit_block():
            for statement in offline or (plain,):
                _execute(context, statement)
    elif runner := context.opts.get(RUNNER):
        with runner.online_step(context, step) as online_step:
            run(online_step)
    else:
        _execute(context, plain)


def _execute(context: MigrationContext, sql: str) -> None:
    assert isinstance(context.impl, RawPostgresqlImpl)
    context.impl.execute_text(sql)
