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

from collections.abc import Mapping

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from guvnor.online import (
    backfill,
    constraint_operations,
    execute,
    index_statement,
    invoking,
    kept_rows,
    partitioned_indexes,
    partitions,
    plain_forms,
)
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.invoking import invoke, note_plain_form, run_sql, runner_of, session_of
from guvnor.online.keeping import KeptChange
from guvnor.online.kept_names import calling_revision
from guvnor.postgres.quoting import quoted, unquoted

RUNNER, PLAIN_FORM = invoking.RUNNER, invoking.PLAIN_FORM
FILES = frozenset({__file__, constraint_operations.__file__})
"""The files that a revision's call of an operation passes through."""


@Operations.register_operation("create_index_concurrently")
@Operations.register_operation("drop_index_concurrently")
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
        transaction has locked anyway, the index is built there at once. On a partitioned table, each leaf's
        part of the index is built in this way.

        :param sql: the statement: ``CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name ON ...``.
        :raises OnlineStepError: when the statement would lock writers out.
        """
        if not plain_forms.is_concurrent(sql):
            raise execute.OnlineStepError(
                f"The statement for index {name} does not say CONCURRENTLY, so it would lock writers out."
            )
        context, plain = operations.migration_context, plain_forms.create_index(name, sql)
        runner = runner_of(context)
        if runner is not None and runner.builds_at_once(name, plain):
            run_sql(context, plain)
            return
        if runner is not None and _index_partitions(context, name, plain):
            return
        invoke(
            context,
            f"build index {name}",
            run=lambda step: execute.create_index(step, name, sql),
            plain=plain,
            offline=(sql,),
        )

    @classmethod
    def drop_index_concurrently(cls, operations: Operations, name: str) -> None:
        """Drop an index, when it exists, without locking out readers and writers.

        That of a partitioned table is dropped in the revision's transaction, with all its parts: the server
        does not drop it concurrently.
        """
        context = operations.migration_context
        if runner_of(context) is not None:
            connection = session_of(context)
            if whole := partitioned_indexes.parent_of(connection, name):
                raise partitions.refusal(
                    f"Index {name} is a part of {whole}, the index of a partitioned table, and goes with it.",
                    f'Drop that one: op.drop_index_concurrently("{unquoted(whole)}")',
                )
            if partitioned_indexes.find(connection, name) is not None:
                note_plain_form(context, plain_forms.drop_index(name))
                run_sql(context, plain_forms.drop_index(name))
                return
        invoke(
            context,
            f"drop index {name}",
            run=lambda step: execute.drop_index(step, name),
            plain=plain_forms.drop_index(name),
            offline=(plain_forms.drop_index(name, concurrently=True),),
        )

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
        invoke(
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
        context, whole = operations.migration_context, plain_forms.backfill(table, assignments, where)
        _check_rows(context, table)
        invoke(
            context,
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
        _check_rows(context, table)
        invoke(
            context,
            f"bring back rows of {table}",
            run=lambda step: kept_rows.bring_back(step, rows),
            plain=whole,
            offline=(whole, f"ANALYZE {quoted(table)}"),
        )
        run_sql(context, rows.drop())

    @classmethod
    def forget_kept(cls, operations: Operations, table: str, *, revision: str) -> None:
        """Drop what a revision kept of a table: from then on, its downgrade brings nothing back.

        :param revision: the one that kept it: ``004``.
        """
        run_sql(operations.migration_context, plain_forms.forget_kept(table, revision))

    @classmethod
    def next_transaction(cls, operations: Operations) -> None:
        """Commit what the revision has done so far, so that no lock of it is held by what follows."""
        invoke(
            operations.migration_context,
            "commit what is done so far",
            run=lambda _step: None,
            plain=plain_forms.next_transaction(),
        )


def _index_partitions(context: MigrationContext, name: str, plain: str) -> bool:
    """Build the index of a partitioned table, partition by partition.

    :param plain: the statement for the index without CONCURRENTLY.
    :returns: whether it is one; else nothing was done.
    :raises OnlineStepError: when a partition, or the table, can have no index.
    """
    connection = session_of(context)
    whole = partitioned_indexes.find(connection, name)
    target = None if whole else index_statement.target(connection, name, plain)
    if whole is None and target is None:
        return False
    table = whole.table if whole else target.table if target else ""
    partitions.with_partitions(connection, table, "No index can be built on it.")
    note_plain_form(context, plain)
    if target is not None:
        run_sql(context, target.on_table_alone(name))
    whole = whole or partitioned_indexes.find(connection, name)
    assert whole is not None
    partitioned_indexes.complete(context, whole, changed=target is not None)
    return True


def _check_rows(context: MigrationContext, table: str) -> None:
    """Check that rows of a table can be changed range by range, before anything is committed.

    :raises OnlineStepError: when they cannot.
    """
    if runner_of(context) is not None:
        partitions.with_rows(session_of(context), table)


def _require_keep(keep: bool, instead: str) -> None:
    if keep is not True:
        raise execute.OnlineStepError(f"The rows are kept: keep=True. {instead}")


def _keep(context: MigrationContext, rows: KeptChange) -> None:
    """Make the table beside in the revision's transaction, then keep and change rows online."""
    _check_rows(context, rows.table)
    run_sql(context, rows.make())
    whole = rows.whole()
    invoke(
        context,
        rows.operation,
        run=lambda step: kept_rows.change(step, rows),
        plain=whole,
        offline=(whole, f"ANALYZE {quoted(rows.table)}"),
    )
