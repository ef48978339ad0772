"""The online operations on constraints; see :mod:`guvnor.online.operations`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from guvnor.online import constraints, execute, partitioned_indexes, partitions, plain_forms
from guvnor.online.invoking import commit, invoke, note_plain_form, online, run_sql, runner_of, session_of
from guvnor.postgres.quoting import quoted, suffixed

_ADOPTS_UNVALIDATED = 180000  # since this version, a partitioned table takes a foreign key NOT VALID


@Operations.register_operation("validate_constraint")
@Operations.register_operation("set_not_null")
@Operations.register_operation("drop_not_null")
@Operations.register_operation("add_foreign_key")
@Operations.register_operation("add_unique_constraint")
@Operations.register_operation("add_primary_key")
class ConstraintOperations:
    """The methods that Alembic's ``op`` gains for constraints."""

    @classmethod
    def validate_constraint(cls, operations: Operations, table: str, name: str) -> None:
        """Validate a foreign key or check outside of the revision's transaction, without blocking writers.

        Partitions, and tables that inherit from the table, are read one by one.

        :param name: of the constraint, added before as ``NOT VALID``.
        """
        invoke(
            operations.migration_context,
            f"validate constraint {name} of {table}",
            run=lambda step: constraints.validate_constraint(step, quoted(table), name),
            plain=plain_forms.validate_constraint(table, name),
        )

    @classmethod
    def set_not_null(cls, operations: Operations, table: str, column: str) -> None:
        """Make a column NOT NULL without scanning the table under a lock, by way of a validated check.

        A valid check ``column IS NOT NULL`` spares SET NOT NULL its scan (PostgreSQL documentation, ALTER
        TABLE). The check is added and dropped in the revision's transactions, and validated online between
        them, partition by partition.

        :param column: a column that no longer holds a NULL.
        """
        context = operations.migration_context
        check, drop_check = _check_of(table, column)
        set_not_null = f"ALTER TABLE {quoted(table)} ALTER COLUMN {quoted(column)} SET NOT NULL"
        has_check = False
        if not context.as_sql:
            connection = session_of(context)
            if constraints.is_not_null(connection, quoted(table), column):
                run_sql(context, drop_check)
                return
            if runner_of(context) is None:
                run_sql(context, set_not_null)
                return
            has_check = constraints.constraint_is_valid(connection, quoted(table), check) is not None
        if not has_check:
            condition = f"CHECK ({quoted(column)} IS NOT NULL) NOT VALID"
            run_sql(context, f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(check)} {condition}")
        invoke(
            context,
            f"check that {table}.{column} holds no NULL",
            run=lambda step: constraints.check_not_null(step, quoted(table), check),
            plain=plain_forms.validate_constraint(table, check),
        )
        run_sql(context, set_not_null)
        run_sql(context, drop_check)

    @classmethod
    def drop_not_null(cls, operations: Operations, table: str, column: str) -> None:
        """Let a column be NULL again: the way back from ``op.set_not_null`` and ``op.add_primary_key``.

        It also drops the check that a killed ``op.set_not_null`` has left. Since PostgreSQL 18, a partition
        whose primary key was built by itself has a NOT NULL of its own, which stays when its table's goes.
        """
        context = operations.migration_context
        _, drop_check = _check_of(table, column)
        drop = f"ALTER COLUMN {quoted(column)} DROP NOT NULL"
        run_sql(context, drop_check)
        run_sql(context, f"ALTER TABLE {quoted(table)} {drop}")
        if not context.as_sql:
            for partition in constraints.partitions_not_null(session_of(context), quoted(table), column):
                run_sql(context, f"ALTER TABLE {partition} {drop}")

    @classmethod
    def add_foreign_key(cls, operations: Operations, table: str, name: str, definition: str) -> None:
        """Add a foreign key without reading the table under a lock.

        It is added NOT VALID and validated then. Before PostgreSQL 18, a partitioned table takes none that is
        not valid: there, each leaf gets its own, and the table adopts them.

        :param name: of the constraint.
        :param definition: ``FOREIGN KEY (incident_id) REFERENCES incidents (id)``.
        """
        context, add = operations.migration_context, plain_forms.add_foreign_key(table, name, definition)
        validate = plain_forms.validate_constraint(table, name)
        if runner_of(context) is None:
            if context.as_sql or _valid(context, table, name) is None:
                _plainly(context, add, (f"{add} NOT VALID", validate))
            return
        note_plain_form(context, add)
        connection = session_of(context)
        members = partitions.with_partitions(connection, table, "No foreign key can be added to it.")
        if _valid(context, table, name) is None:
            if members[0].kind == "p" and connection.server_version < _ADOPTS_UNVALIDATED:
                _add_to_leaves(context, table, name, definition)
                run_sql(context, add)
                commit(context)
                return
            run_sql(context, f"{add} NOT VALID")
        what = f"validate constraint {name} of {table}"
        online(context, what, lambda step: constraints.validate_constraint(step, quoted(table), name))

    @classmethod
    def add_unique_constraint(
        cls, operations: Operations, table: str, name: str, columns: Sequence[str]
    ) -> None:
        """Add a unique constraint, whose index is built without locking out writers.

        :param name: of the constraint, and of its index.
        """
        _add_key(operations.migration_context, table, name, "UNIQUE", columns)

    @classmethod
    def add_primary_key(cls, operations: Operations, table: str, name: str, columns: Sequence[str]) -> None:
        """Add a primary key, whose index is built without locking out writers.

        Its columns are made NOT NULL first, as ``op.set_not_null`` does.

        :param name: of the constraint, and of its index.
        """
        if isinstance(columns, str):
            raise _no_list("add_primary_key")
        for column in columns:
            cls.set_not_null(operations, table, column)
        _add_key(operations.migration_context, table, name, "PRIMARY KEY", columns)


def _check_of(table: str, column: str) -> tuple[str, str]:
    """Return the name of the check that a column holds no NULL, and the statement that drops it."""
    check = suffixed(f"guvnor_{table}_{column}", "_is_set")
    return check, f"ALTER TABLE {quoted(table)} DROP CONSTRAINT IF EXISTS {quoted(check)}"


def _valid(context: MigrationContext, table: str, name: str) -> bool | None:
    return constraints.constraint_is_valid(session_of(context), quoted(table), name)


def _plainly(context: MigrationContext, plain: str, offline: tuple[str, ...]) -> None:
    """Run a statement in a transaction that must not commit, or write what does the same into a script."""
    invoke(context, "", run=lambda _step: None, plain=plain, offline=offline)


def _add_to_leaves(context: MigrationContext, table: str, name: str, definition: str) -> None:
    """Give each leaf its foreign key, and validate it, so that the table above has nothing to read."""
    connection = session_of(context)
    while True:
        leaves = [member for member in partitions.members(connection, table) if member.holds_rows]
        states = ((leaf, constraints.constraint_is_valid(connection, leaf.name, name)) for leaf in leaves)
        leaf, valid = next((state for state in states if not state[1]), (None, None))
        if leaf is None:
            return
        if valid is None:
            run_sql(context, f"ALTER TABLE {leaf.name} ADD CONSTRAINT {quoted(name)} {definition} NOT VALID")
        what = f"validate constraint {name} of {leaf.name}"
        online(context, what, partial(constraints.validate_constraint, table=leaf.name, name=name))


def _add_key(context: MigrationContext, table: str, name: str, kind: str, columns: Sequence[str]) -> None:
    """Add a constraint that an index enforces.

    :param kind: ``UNIQUE`` or ``PRIMARY KEY``.
    """
    if isinstance(columns, str):
        raise _no_list("add_unique_constraint")
    add = plain_forms.add_key(table, name, kind, columns)
    listed = ", ".join(map(quoted, columns))
    build = f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {quoted(name)} ON {quoted(table)} ({listed})"
    use = f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(name)} {kind} USING INDEX {quoted(name)}"
    if runner_of(context) is None:
        if context.as_sql or _valid(context, table, name) is None:
            _plainly(context, add, (build, use))
        return
    note_plain_form(context, add)
    connection = session_of(context)
    members = partitions.with_partitions(connection, table, "No index can be built on it.")
    is_there = _valid(context, table, name) is not None
    if members[0].kind == "p":
        if not is_there:
            run_sql(context, plain_forms.add_key(table, name, kind, columns, only=True))
        whole = partitioned_indexes.find(connection, name)
        assert whole is not None
        partitioned_indexes.complete(context, whole, changed=not is_there)
    elif not is_there:
        online(context, f"build index {name}", lambda step: execute.create_index(step, name, build))
        run_sql(context, use)


def _no_list(operation: str) -> execute.OnlineStepError:
    return execute.OnlineStepError(f'op.{operation} takes its columns as a list: ["id", "created_at"].')
