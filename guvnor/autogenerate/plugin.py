"""The drift check as a plugin of Alembic, for ``alembic check`` and ``alembic revision --autogenerate``.

It replaces Alembic's own comparisons, so that both commands find what ``guvnor schema check --against
models`` finds. The upgrade and the downgrade are generated from the findings and then run in the shadow; for
what they fail to change, a TODO is added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from alembic import op
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation
from alembic.operations.ops import UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError

from guvnor.autogenerate import (
    changes,
    dependents,
    generated,
    ignores,
    other_objects,
    possible_renames,
    replacements,
    tables,
    transactions,
    types,
    unknown,
)
from guvnor.autogenerate.changes import Alteration, Changes
from guvnor.autogenerate.emitted_operations import (
    EmittedOperation,
    Phase,
    body,
    emitted,
    guarded,
    imports,
    todo,
    tried,
)
from guvnor.autogenerate.todos import Todo
from guvnor.database import Database
from guvnor.postgres import closing, primary_message
from guvnor.schema import catalog, ddl, drift, partitions, reading, root_causes, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.reading import LiveReader
from guvnor.schema.root_causes import Rename, RootCauses
from guvnor.schema.shadow import Shadow
from guvnor.schema.shadow_errors import ShadowEscapeError
from guvnor.schema.snapshot import Object, Snapshot

log = logging.getLogger(__name__)

NAME = "guvnor.drift"
DATABASE = "guvnor_database"  # the option of the migration context that holds the configured database

# Models cannot express these, so no revision is generated for them.
_NOT_WRITTEN = frozenset({"privilege", "default privileges", "schema"})

_Write = Callable[[Changes, Shadow, Object], Iterator[EmittedOperation]]
_Alter = Callable[[Changes, Shadow, Alteration], Iterator[EmittedOperation]]

_ADD: dict[str, _Write] = {"table": tables.add_table, "column": tables.add_column}
_DROP: dict[str, _Write] = {"column": tables.drop_column}
_ALTER: dict[str, _Alter] = {"table": tables.alter_table, "column": tables.alter_column, "type": types.alter}


@cache
def register() -> None:
    """Register the comparison with Alembic, which refuses a second one of the same name in one process."""
    Plugin(NAME).add_autogenerate_comparator(compare, "autogenerate", priority=DispatchPriority.FIRST)


class Difference(MigrateOperation):
    """One finding, as Alembic lists it."""

    def __init__(self, finding: Finding) -> None:
        """Take the finding."""
        self.finding = finding

    def reverse(self) -> MigrateOperation:
        """Return itself: the downgrade is generated from the finding, too."""
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what ``alembic check`` prints."""
        found = self.finding
        sides = {"expected": found.expected, "actual": found.actual}
        return found.change, found.kind, found.object, {k: v for k, v in sides.items() if v is not None}


@renderers.dispatch_for(Difference)
def _render(context: AutogenContext, _difference: Difference) -> list[str]:
    """Render nothing but the imports: the template inserts the whole code."""
    context.imports |= context.opts["template_args"].get("needed_imports", set())
    return []


def compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    """Compare the database with the metadata, and generate the code of a revision."""
    metadata = context.metadata
    assert isinstance(metadata, MetaData)
    database: Database = context.opts[DATABASE]
    with (
        reading.live_reader(database) as live,
        drift.built_alongside(live, database.shadow, shadow.from_models(metadata)) as built,
    ):
        expected = built.snapshot()
        actual, strays = _known(live, expected, context, database)

        def trace(schema: Snapshot) -> RootCauses:
            with built.undone():
                return root_causes.trace(built, schema, grantees=database.grantees, ignore=database.ignore)

        comparison = trace(actual)
        # alembic check, which takes no message, finds everything; a revision leaves out what is unknown.
        revision = context.opts.get("revision_context")
        checking = revision is not None and revision.command_args["message"] is None
        findings = comparison.findings
        if checking:
            findings = (trace(live.schema()) if strays else comparison).all_findings
        upgrade.ops.extend(map(Difference, findings))
        for finding in findings:
            log.info(f"Detected: {finding.title}")
        if not comparison.findings:
            return PriorityDispatchResult.STOP
        comparison = replace(
            comparison,
            actual=catalog.with_indexes(comparison.actual, live.connection, "public"),
            expected=catalog.with_indexes(comparison.expected, built.driver, built.name),
        )
        found = changes.find(comparison, expected)
        with built.undone():
            forward, back = _write(built, comparison, found, expected)
        forward += unknown.in_the_way(found, strays, live.schema())
        forward, back = transactions.apart(forward), transactions.apart(back)
    if judge := context.opts.get(ignores.OPTION):
        forward, back = ignores.explained(forward, back, judge)
    # Alembic would indent what it renders itself, including the bodies of functions, which the server stores
    # with their white space. So the template inserts the code.
    context.opts["template_args"].update(
        upgrade_code=body(forward), downgrade_code=body(back), needed_imports=imports([*forward, *back])
    )
    return PriorityDispatchResult.STOP


def _known(
    live: LiveReader, models: Snapshot, context: AutogenContext, database: Database
) -> tuple[Snapshot, dict[str, Object]]:
    """Return the live schema without what neither the models nor the revisions know, and what that is.

    A partition that the models do not know is the business of its table.
    """
    actual = live.schema().without(database.ignore)
    assert context.migration_context is not None
    script = context.migration_context.script

    def of_revisions() -> Snapshot:
        with closing(database.shadow.connect("schema shadow")) as connection:
            return drift.expected_at(connection, script, live.recorded) if script else actual

    sides = partitions.apart(models, actual)
    for made in sides.partitions:
        log.info(f"Left out: table {made.table}, a partition of {made.of} that the models do not know")
    strays = unknown.find(sides.actual, models, of_revisions)
    for name in unknown.names(strays):
        log.warning(f"Left out: {name}, which neither the models nor the revisions know")
    return unknown.without(actual, strays), strays


def _write(
    built: Shadow, comparison: RootCauses, found: Changes, expected: Snapshot
) -> tuple[list[EmittedOperation], list[EmittedOperation]]:
    """Generate both directions, run them in the shadow, and add TODOs for what they fail to change.

    The shadow starts as the models' schema, so the downgrade is run first.
    """
    forward, back = _operations(found, built), _operations(found.reversed, built)
    for finding in comparison.findings:
        if finding.kind in _NOT_WRITTEN or (finding.kind, finding.change) == ("extension", "different"):
            sql = finding.sql.splitlines() if finding.sql else []
            facts = {"title": finding.title, "meaning": finding.meaning}
            forward.append(todo(Phase.LEAVE, Todo.NOT_IN_MODELS, sql, **facts))
    # A column that a downgrade brings back becomes the last one of its table.
    missed = _missed_back(built, back, comparison.actual)
    back_again = not missed and _is_complete(back)  # else the shadow is not what the upgrade starts from
    whole = back_again and _is_complete(forward)
    if back_again:
        forward += _missed(built, forward, expected, but={"owner"})
    if not whole:  # what is left is not known
        anew = {a.after.handle for a in found.altered if generated.is_added_again(found, a, built)}
        forward += tables.orders(found, anew)
    back += missed
    for operations, way in ((forward, "upgrade"), (back, "downgrade")):
        if not operations:
            operations.append(todo(Phase.LEAVE, Todo.NOTHING_FOUND, way=way))
    return forward, back


def _operations(changes: Changes, shadow: Shadow) -> list[EmittedOperation]:
    """Return the operations from one schema to another; their phases say in which order they run."""
    anew = {a.after.handle for a in changes.altered if generated.is_added_again(changes, a, shadow)}
    together = dependents.groups(changes, anew)
    done = {a.after.handle for group in together for a in group.columns}
    done |= {key for group in together for key in group.dependents.handles}
    maybe_renamed = possible_renames.find(changes, shadow)
    found = [] if changes.back else list(possible_renames.of_tables(changes))
    for item in changes.in_order:
        if item.handle in done:
            continue
        if item.inherited_from:
            found += _added_along(changes, item)
            continue
        added = list(_ADD.get(item.kind, other_objects.add)(changes, shadow, item))
        if backfill := maybe_renamed.get(item.handle):
            added = [backfill, *(op for op in added if op.todo is not Todo.FILL_COLUMN)]
        found += added
    for item in reversed(changes.reversed.in_order):
        if item.handle not in done and not item.inherited_from:
            found += _DROP.get(item.kind, other_objects.drop)(changes, shadow, item)
    for group in together:
        found += replacements.replace_together(changes, shadow, group)
    for alteration in changes.altered:
        if alteration.after.handle in done:
            alteration = replacements.rest(alteration)
        if alteration.names and alteration.after.kind != "extension":
            found += _ALTER.get(alteration.after.kind, other_objects.alter)(changes, shadow, alteration)
    return found + [_renamed(rename, back=changes.back) for rename in changes.renamed]


def _added_along(changes: Changes, item: Object) -> Iterator[EmittedOperation]:
    """Write what the server does not add to an object with that which it is inherited from: its comment."""
    if not changes.comes_with_table(item):
        yield from emitted(Phase.FINISH if item.kind == "index" else Phase.ATTACH, ddl.further(item))


def _renamed(rename: Rename, *, back: bool) -> EmittedOperation:
    """Rename an object; in a downgrade before everything else, in an upgrade after everything else."""
    asked_for = rename.item.kind in ("table", "column", "view", "materialized view")
    breaks = (
        f"BREAKS the application version that is running: it uses {rename.before}. Instead, add a new one, "
        "backfill it, and drop the old one in a later revision."
    )
    phase = Phase.RENAME_BACK if back else Phase.RENAME
    statement = ddl.rename(rename.item, rename.before, rename.after)
    return guarded(phase, statement, *([breaks] if asked_for else []))


def _missed_back(built: Shadow, back: list[EmittedOperation], actual: Snapshot) -> list[EmittedOperation]:
    """Run the downgrade in the shadow, and return a TODO for each difference that is left.

    A value that the upgrade adds to an enum could not be used in the shadow's transaction (55P04), so the
    enums keep the values of the models.
    """
    but = {"owner", "column order"}
    remaking = [operation for operation in back if operation.phase is Phase.REMAKE]
    if not remaking:
        return _missed(built, back, actual, but)
    with built.undone():
        missed = _missed(built, back, actual, but)
    if not missed:
        _missed(built, [operation for operation in back if operation not in remaking], actual, but)
    return missed


def _missed(
    built: Shadow, operations: list[EmittedOperation], wanted: Snapshot, but: set[str]
) -> list[EmittedOperation]:
    """Run operations in the shadow, and return a TODO for each difference that is left.

    :param but: attributes that may differ.
    """
    whole = _is_complete(operations)
    run = [part for operation in operations for part in tried(operation)]
    try:
        with built.watched():
            names: dict[str, Any] = {"op": op, "text": text}
            exec(f"def run():\n{body(run)}\n    return\n", names)  # noqa: S102 - generated by this module just now
            built.migrate(names["run"], "the new revision")
    except ShadowEscapeError as error:
        # A TODO may stand for the object that was not found in the shadow.
        return [todo(Phase.LEAVE, Todo.REACHES_OUTSIDE, message=error.message)] if whole else []
    except DBAPIError as error:
        reason = " ".join(primary_message(error.orig or error).split())
        return [todo(Phase.LEAVE, Todo.REFUSED, reason=reason)]
    if not whole:
        return []
    with built.undone():
        left = root_causes.trace(built, wanted).findings
    if any(operation.todo is Todo.REORDER_COLUMNS for operation in operations):
        but = {*but, "column order"}  # it is said already
    return [
        _left(finding)
        for finding in left
        if finding.kind not in _NOT_WRITTEN
        and not (finding.change == "different" and but.issuperset(finding.expected or ()))
    ]


def _is_complete(operations: list[EmittedOperation]) -> bool:
    """Tell whether operations make the whole change, with the statements that TODOs show."""
    return all(operation.todo is None or operation.todo.complete for operation in operations)


def _left(finding: Finding) -> EmittedOperation:
    """Return a TODO for a difference that is left; the shadow is the expected side of the comparison."""
    expected = (finding.expected or {}) if finding.change == "different" else {}
    if expected.keys() == {"column order"}:
        return tables.reordered(finding.object, expected["column order"])
    what = f" ({', '.join(expected)})" if expected else ""
    said = {"missing": "should not exist", "unexpected": "is missing", "different": "differs"}
    left = f"{finding.kind} {finding.object} {said[finding.change]}{what}"
    return todo(Phase.LEAVE, Todo.LEFT, what=left)
