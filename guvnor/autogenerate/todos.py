"""The kinds of TODO: what autogenerate leaves to a person, and why it cannot write it safely."""

from __future__ import annotations

from enum import Enum


class Todo(Enum):
    """A kind of TODO; its value is the reason, with the facts of the case in braces."""

    # -- a person knows what the schemas do not say
    FILL_COLUMN = (
        "{column} is NOT NULL and has no default. Fill existing rows with {backfill}, "
        "and make sure that the application version that is running cannot insert a NULL."
    )
    POSSIBLE_RENAME = (
        "{old} is dropped and {new} is added: is that a rename? If it is, correct the backfill, which keeps "
        "the values, and move the drop to a later revision, because the application version that is running "
        "writes {old} until it is replaced. If it is none, delete the backfill. Then delete this."
    )
    POSSIBLE_RENAME_BACK = (
        "{old} is dropped and {new} comes back: if the upgrade renames it, correct the backfill, which "
        "brings the values back. If not, delete the backfill. Then delete this."
    )
    POSSIBLE_RENAME_OF_TABLE = (
        "the table {old} is dropped and {new} is added, which has most of its columns: is that a rename? If "
        "it is, delete this revision, rename the table in the models and nothing else, let autogenerate "
        "write that, and make the other changes in the next revision. If it is none, delete this."
    )
    REORDER_COLUMNS = (
        "the models name the columns of {table} in another order. PostgreSQL adds columns at the end: "
        "move them in the models to the order {order}; then delete this."
    )
    EXTENSION_STAYS = "the extension {extension} is not dropped: others in this database may use it."
    DIFFERENT_LABELS = (
        "the enum {type} loses values or has them in another order: PostgreSQL has to "
        "recreate the type and rewrite each table that uses it, while nobody can use the table. A "
        "value that nobody writes any more can stay in the models."
    )
    USED_BY_UNKNOWN = (
        "{unknown} depends on {item}, which changes or is dropped, and neither the models nor the revisions "
        "know it. The server will refuse the change as long as it exists: find out whose it is."
    )

    # -- the statement would make the application wait
    REWRITES_TABLE = (
        "the new column {column} rewrites the whole table while nobody can use it. If the table "
        "is small, use this; otherwise add a plain column and use op.backfill."
    )
    CHANGES_TYPE = (
        "{warning}{column} becomes {type} (it is {was}): the whole table would be read or "
        "written while nobody can use it. Add a column, fill it with op.backfill, and drop the old one "
        "in a later revision. {question}If the table is small, use this:"
    )
    BECOMES_GENERATED = (
        "{column} becomes a generated column: it is dropped with all that it holds, and added again, which "
        "writes the whole table while nobody can use it. Add a column under another name instead. If the "
        "values can go and the table is small, use this:"
    )
    NO_LONGER_COMPUTED = (
        "{column} is no longer computed when it is read: it is dropped, and added again with the values, "
        "which writes the whole table while nobody can use it. Add a column under another name instead, and "
        "fill it with op.backfill. If the table is small, use this:"
    )
    PARTITIONED_KEY = (
        "{constraint} is on a partitioned table: op.{operation} adds it partition by partition, without "
        "blocking writers. If the table is small, use this:"
    )
    BLOCKS_WRITERS = (
        "{constraint} cannot be added to {table} without blocking writers. If the table is small, use this:"
    )
    BUILDS_VIEW = (
        "the {view} is built anew from all its rows, while nobody can read it. If that is quick, use this; "
        "otherwise create one under another name and let the application move to it."
    )

    # -- autogenerate has no statement for it
    PARTITIONED_TABLE = "write the table {table} by hand, since it has partitions, inheritance or the like."
    GENERATED_TYPE = "the type of the generated column {column} becomes {type}."
    NO_STATEMENT = "write the {item} by hand."
    ATTRIBUTES = "write this change by hand: {changes}."
    NOT_IN_MODELS = "this is never written by autogenerate: {title}. {meaning}"

    # -- the revision was tried on empty tables
    NOTHING_FOUND = "no statement was found for the {way}."
    REACHES_OUTSIDE = "on empty tables, the revision failed. {message}"
    REFUSED = "on empty tables, the server refused the revision: {reason}."
    LEFT = "after these operations the {what}."

    @property
    def complete(self) -> bool:
        """Whether the revision makes the schema what it should be with the statements that the TODO shows."""
        return self not in _INCOMPLETE


_INCOMPLETE = frozenset(
    {
        Todo.EXTENSION_STAYS, Todo.DIFFERENT_LABELS, Todo.USED_BY_UNKNOWN, Todo.PARTITIONED_TABLE,
        Todo.GENERATED_TYPE, Todo.NO_STATEMENT, Todo.ATTRIBUTES, Todo.NOT_IN_MODELS,
        Todo.NOTHING_FOUND, Todo.REACHES_OUTSIDE, Todo.REFUSED, Todo.LEFT,
    }
)  # fmt: skip
