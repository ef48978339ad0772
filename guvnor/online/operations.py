"""Online operations: what cannot run in a transaction, or must not hold its locks for long, as Alembic
operations.

They are used in revisions like ``op.execute``::

    op.create_index_concurrently("idx_x", "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_x ON x (y)")

Each looks first at what is there and does what is missing, so it can be run again after any failure. Where a
runner is attached, the transaction before it is committed (marked dirty) and the operation runs in autocommit
mode without a lock timeout. In a transaction that must not commit it takes its plain form; offline it keeps
its online form, between COMMIT and BEGIN.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Protocol

from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from guvnor.online import execute, plain_forms
from guvnor.postgres.quoting import quoted

RUNNER = "guvnor_runner"  # the option of the migration context that holds the runner
PLAIN_FORM = "guvnor_plain_form"  # the option that holds what records plain forms in offline mode


class Runner(Protocol):
    """What runs a revision for real, and may commit."""

    def online_step(
        self, context: MigrationContext, step: str
    ) -> contextlib.AbstractContextManager[execute.OnlineStep]:
        """Commit what came before, marked dirty and resumable, and give a connection in autocommit mode."""


def _invoke(
    operations: Operations,
    step: str,
    *,
    run: Callable[[execute.OnlineStep], object],
    plain: str,
    offline: tuple[str, ...],
) -> None:
    """Run an operation in the form that fits the context.

    :param run: does it for real.
    :param plain: the statement for a transaction that must not commit.
    :param offline: the statements for offline SQL.
    """
    context = operations.migration_context
    if context.as_sql:
        if record := context.opts.get(PLAIN_FORM):
            record(plain)
        with context.autocommit_block():
            for statement in offline:
                context.impl.execute(text(_escaped(statement)))
    elif runner := context.opts.get(RUNNER):
        with runner.online_step(context, step) as online_step:
            run(online_step)
    else:
        context.impl.execute(text(_escaped(plain)))


def _escaped(sql: str) -> str:
    """Keep SQLAlchemy from taking a colon for a bound parameter."""
    return re.sub(r"(?<!:):(?=\w)", r"\\:", sql)


@Operations.register_operation("create_index_concurrently")
class CreateIndexConcurrently(MigrateOperation):
    """Build an index without locking out writers."""

    def __init__(self, name: str, sql: str) -> None:
        """See :meth:`create_index_concurrently`."""
        self.name, self.sql = name, sql

    @classmethod
    def create_index_concurrently(cls, operations: Operations, name: str, sql: str) -> None:
        """Build an index concurrently.

        A valid index of that name is left alone; one that a surviving backend still builds is awaited; an
        invalid one is dropped concurrently and built again.

        :param name: of the index.
        :param sql: the statement: ``CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name ON ...``.
        :raises OnlineStepError: when the statement would lock writers out.
        """
        if not plain_forms.is_concurrent(sql):
            raise execute.OnlineStepError(
                f"The statement for index {name} does not say CONCURRENTLY, so it would lock writers out."
            )
        operations.invoke(cls(name, sql))


@Operations.implementation_for(CreateIndexConcurrently)
def _create_index_concurrently(operations: Operations, operation: CreateIndexConcurrently) -> None:
    _invoke(
        operations,
        f"build index {operation.name}",
        run=lambda step: execute.create_index(step, operation.name, operation.sql),
        plain=plain_forms.create_index(operation.sql),
        offline=(operation.sql,),
    )


@Operations.register_operation("drop_index_concurrently")
class DropIndexConcurrently(MigrateOperation):
    """Drop an index without locking out readers and writers."""

    def __init__(self, name: str) -> None:
        """See :meth:`drop_index_concurrently`."""
        self.name = name

    @classmethod
    def drop_index_concurrently(cls, operations: Operations, name: str) -> None:
        """Drop an index concurrently, when it is there.

        :param name: of the index.
        """
        operations.invoke(cls(name))


@Operations.implementation_for(DropIndexConcurrently)
def _drop_index_concurrently(operations: Operations, operation: DropIndexConcurrently) -> None:
    _invoke(
        operations,
        f"drop index {operation.name}",
        run=lambda step: execute.drop_index(step, operation.name),
        plain=plain_forms.drop_index(operation.name),
        offline=(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(operation.name)}",),
    )


@Operations.register_operation("validate_constraint")
class ValidateConstraint(MigrateOperation):
    """Validate a foreign key or check that was added as NOT VALID, while readers and writers go on."""

    def __init__(self, table: str, name: str) -> None:
        """See :meth:`validate_constraint`."""
        self.table, self.name = table, name

    @classmethod
    def validate_constraint(cls, operations: Operations, table: str, name: str) -> None:
        """Validate a constraint outside of the revision's transaction.

        :param table: of the constraint.
        :param name: of the constraint, added before as ``NOT VALID``.
        """
        operations.invoke(cls(table, name))


@Operations.implementation_for(ValidateConstraint)
def _validate_constraint(operations: Operations, operation: ValidateConstraint) -> None:
    statement = plain_forms.validate_constraint(operation.table, operation.name)
    _invoke(
        operations,
        f"validate constraint {operation.name} of {operation.table}",
        run=lambda step: execute.validate_constraint(step, operation.table, operation.name, statement),
        plain=statement,
        offline=(statement,),
    )


@Operations.register_operation("set_not_null")
class SetNotNull(MigrateOperation):
    """Make a column NOT NULL without scanning the table under a lock."""

    def __init__(self, table: str, column: str) -> None:
        """See :meth:`set_not_null`."""
        self.table, self.column = table, column

    @classmethod
    def set_not_null(cls, operations: Operations, table: str, column: str) -> None:
        """Set NOT NULL by way of a validated check.

        A valid check ``column IS NOT NULL`` spares SET NOT NULL its scan (PostgreSQL documentation, ALTER
        TABLE). The check is added and dropped in the revision's transactions, and validated online between
        them.

        :param table: of the column.
        :param column: that holds no NULL any more.
        """
        operations.invoke(cls(table, column))


@Operations.implementation_for(SetNotNull)
def _set_not_null(operations: Operations, operation: SetNotNull) -> None:
    table, column = quoted(operation.table), quoted(operation.column)
    check = f"guvnor_{operation.table}_{operation.column}_is_set"[:63]
    context = operations.migration_context
    if not context.as_sql:
        if execute.is_not_null(context.impl, operation.table, operation.column):
            context.impl.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quoted(check)}"))
            return
        if context.opts.get(RUNNER) is None:
            context.impl.execute(text(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"))
            return
    if context.as_sql or not execute.has_constraint(context.impl, operation.table, check):
        context.impl.execute(
            text(f"ALTER TABLE {table} ADD CONSTRAINT {quoted(check)} CHECK ({column} IS NOT NULL) NOT VALID")
        )
    statement = plain_forms.validate_constraint(operation.table, check)
    _invoke(
        operations,
        f"check that {operation.table}.{operation.column} holds no NULL",
        run=lambda step: execute.check_not_null(step, operation.table, check, statement),
        plain=statement,
        offline=(statement,),
    )
    context.impl.execute(text(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"))
    context.impl.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quoted(check)}"))


@Operations.register_operation("add_enum_value")
class AddEnumValue(MigrateOperation):
    """Add a value to an enum outside of the revision's transaction, so that it can be used after it."""

    def __init__(self, name: str, value: str, before: str | None, after: str | None) -> None:
        """See :meth:`add_enum_value`."""
        self.name, self.value, self.before, self.after = name, value, before, after

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
        """Add a value to an enum, when it is not there.

        A new value must not be used in the transaction that adds it (PostgreSQL documentation, ALTER TYPE),
        so that one is committed at once.

        :param name: of the enum.
        :param before: the value that comes after it; None for none.
        :param after: the value that comes before it; without either, it becomes the last one.
        """
        operations.invoke(cls(name, value, before, after))


@Operations.implementation_for(AddEnumValue)
def _add_enum_value(operations: Operations, operation: AddEnumValue) -> None:
    statement = plain_forms.add_enum_value(operation.name, operation.value, operation.before, operation.after)
    _invoke(
        operations,
        f"add value {operation.value} to {operation.name}",
        run=lambda step: step.execute(statement),
        plain=statement,
        offline=(statement,),
    )


@Operations.register_operation("backfill")
class Backfill(MigrateOperation):
    """Change many rows in small steps, each a transaction of its own."""

    def __init__(self, table: str, assignments: str, where: str) -> None:
        """See :meth:`backfill`."""
        self.table, self.assignments, self.where = table, assignments, where

    @classmethod
    def backfill(cls, operations: Operations, table: str, assignments: str, where: str) -> None:
        """Update rows batch by batch until none is left.

        Resumes by its own predicate, so ``where`` must not hold any more for a row that has been updated. The
        batches adapt to a target duration, with pauses between them, and wait for replicas that lag.

        :param table: of the rows.
        :param assignments: what follows SET: ``priority = 'normal'``.
        :param where: which rows are still to be done: ``priority IS NULL``.
        """
        operations.invoke(cls(table, assignments, where))


@Operations.implementation_for(Backfill)
def _backfill(operations: Operations, operation: Backfill) -> None:
    whole = plain_forms.backfill(operation.table, operation.assignments, operation.where)
    _invoke(
        operations,
        f"backfill {operation.table}",
        run=lambda step: execute.backfill(step, operation.table, operation.assignments, operation.where),
        plain=whole,
        offline=(whole, f"ANALYZE {quoted(operation.table)}"),
    )
