"""The drift engine as a plugin of Alembic: what ``alembic check`` and ``--autogenerate`` see and write.

It stands in for all comparisons of Alembic itself, so that both see what ``guvnor schema check`` sees against
the models. A revision is written from the findings, both ways, and then run in the shadow: what it does not
bring about is added as a TODO.
"""

from __future__ import annotations

import logging
from typing import Any

from alembic import op
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy.exc import DBAPIError

from guvnor import postgres
from guvnor.autogenerate import changes, tables, write
from guvnor.autogenerate.changes import Changes
from guvnor.autogenerate.probe import Probe
from guvnor.autogenerate.steps import Phase, Step, body, todo
from guvnor.config import Settings
from guvnor.schema import catalog, drift, reading, settle, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.settle import Settled
from guvnor.schema.shadow import Shadow
from guvnor.schema.shadow_errors import ShadowEscapeError
from guvnor.schema.snapshot import Snapshot

log = logging.getLogger(__name__)

NAME = "guvnor.drift"
SETTINGS = "guvnor_settings"  # the option of the migration context that holds the settings

# Where the template finds the code. Alembic indents what it renders itself, and with it bodies of functions,
# which the server keeps to the letter.
UPGRADE, DOWNGRADE = "upgrade_code", "downgrade_code"


# What models cannot say, and so a revision is not written for.
_NOT_WRITTEN = frozenset({"privilege", "default privileges", "extension", "schema"})


def setup(plugin: Plugin) -> None:
    """Register the comparison; Alembic calls it with the plugin."""
    plugin.add_autogenerate_comparator(compare, "autogenerate", priority=DispatchPriority.FIRST)


def register() -> None:
    """Make the plugin known to Alembic."""
    import sys

    Plugin.setup_plugin_from_module(sys.modules[__name__], NAME)


class Difference(MigrateOperation):
    """One finding, as Alembic lists it."""

    def __init__(self, finding: Finding) -> None:
        """Take the finding."""
        self.finding = finding

    def reverse(self) -> MigrateOperation:
        """Return the same: what undoes it is written in the downgrade."""
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what ``alembic check`` prints."""
        found = self.finding
        details = {"expected": found.expected, "actual": found.actual}
        return (
            found.change,
            found.kind,
            found.object,
            {k: dict(v) for k, v in details.items() if v is not None},
        )


@renderers.dispatch_for(Difference)
def _render(_context: AutogenContext, _difference: Difference) -> list[str]:
    """Render nothing: the template takes the code as a whole."""
    return []


def compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    """Compare the database with the models, and write what a revision does about it."""
    from guvnor.models import metadata

    settings: Settings = context.opts[SETTINGS]
    dsn = postgres.connection_string(settings)
    with (
        reading.live_reader(dsn) as live,
        drift.built_alongside(live, settings.shadow_dsn or dsn, shadow.from_models(metadata)) as built,
    ):
        actual = live.schema()
        expected = built.snapshot()
        with built.undone():
            settled = settle.settled(built, actual, grantees=settings.grantees, ignore=settings.ignore)
        if not settled.findings:
            return PriorityDispatchResult.STOP
        found = changes.find(
            settled,
            indexes_before=catalog.constraint_indexes(live.connection(), "public"),
            indexes_after=catalog.constraint_indexes(built.driver, built.name),
        )
        with built.undone():
            forward, back = _write(built, settled, found, expected)
    for finding in settled.findings:
        log.info(f"Detected: {finding.title}")
    upgrade.ops.extend(map(Difference, settled.findings))
    template = context.opts["template_args"]
    template[UPGRADE], template[DOWNGRADE] = body(forward), body(back)
    return PriorityDispatchResult.STOP


def _write(
    built: Shadow, settled: Settled, found: Changes, expected: Snapshot
) -> tuple[list[Step], list[Step]]:
    """Write the steps of both directions, try them in the shadow, and add what they leave undone.

    The shadow holds what the models say, so the way back is tried first.
    """
    probe = Probe(built)
    forward, back = write.steps(found, probe), write.steps(found.reversed, probe)
    for finding in settled.findings:
        if finding.kind in _NOT_WRITTEN:
            sql = finding.sql.splitlines() if finding.sql else []
            forward.append(todo(Phase.FINISH, f"{finding.title}. {finding.meaning}", sql))
    # A column that a downgrade brings back is the last one, whatever it was before.
    missed = _missed(built, back, settled.actual, but={"owner", "column order"})
    if not missed:
        forward += _missed(built, forward, expected, but={"owner"})
    back += missed
    for steps, way in ((forward, "forward"), (back, "back")):
        if not steps:
            steps.append(todo(Phase.FINISH, f"no statement was found for the way {way}."))
    return forward, back


def _missed(built: Shadow, steps: list[Step], wanted: Snapshot, but: set[str]) -> list[Step]:
    """Run steps in the shadow, and say what they do not bring about.

    :param but: attributes that may differ.
    """
    try:
        with built.watched():
            _run(built, [step for step in steps if not step.todo])
    except ShadowEscapeError as error:
        # What is left to do may be what is reached for.
        if any(step.todo for step in steps):
            return []
        return [todo(Phase.FINISH, f"this was tried on empty tables. {error.message}")]
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        return [todo(Phase.FINISH, f"this was tried on empty tables, and the server refused it: {reason}.")]
    if any(step.todo for step in steps):
        return []
    with built.undone():
        left = settle.differences(built, wanted)
    return [
        _left(finding)
        for finding in left
        if finding.kind not in _NOT_WRITTEN
        and not (finding.change == "different" and but.issuperset(finding.expected or ()))
    ]


def _left(finding: Finding) -> Step:
    """Say what the steps do not bring about; of a comparison, the shadow was the side that was expected."""
    if finding.change == "different" and set(finding.expected or ()) == {"column order"}:
        return tables.reordered(finding.object, (finding.expected or {})["column order"])
    what = f" ({', '.join(finding.expected)})" if finding.expected and finding.change == "different" else ""
    said = {"missing": "should not be there", "unexpected": "is missing", "different": "is another one"}
    return todo(
        Phase.FINISH, f"after these steps the {finding.kind} {finding.object} {said[finding.change]}{what}."
    )


def _run(built: Shadow, steps: list[Step]) -> None:
    """Run steps as the revision will run them, in their plain form."""
    names: dict[str, Any] = {"op": op}
    exec(f"def run():\n{body(steps)}\n    return\n", names)  # noqa: S102 - it was written just now, by this module
    with Operations.context(MigrationContext.configure(built.connection)):
        names["run"]()
