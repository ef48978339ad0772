"""Adopting what golang-migrate did while a run was checking or waiting for its lock.

In a rollout, the init container of an old image and our job start at the same moment. Where golang-migrate
comes first, our run finds a part of its plan done. It adopts that part only where the schema proves it.
"""

from __future__ import annotations

import logging

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from guvnor.bookkeeping import consistency, versions
from guvnor.bookkeeping.state import State
from guvnor.errors import GuvnorError, reason
from guvnor.migrate.preflight import Ready
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import Plan, Step
from guvnor.revisions.script import Direction

log = logging.getLogger(__name__)


def adopt_progress(ready: Ready, plan: Plan, seen: State, current: State) -> bool:
    """Adopt the steps of a plan that golang-migrate has done meanwhile, if the schema proves them.

    :param seen: the state that the plan was made from.
    :param current: the state now, under the run lock and golang-migrate's locks.
    :returns: whether there was something to adopt, so that the state is another one now.
    :raises StateError: when the schema differs, or cannot be compared; nothing is changed then (exit code 5).
    """
    step = _last_step_done(ready, plan, seen, current)
    if step is None:
        return False
    if why := _difference(ready, step):
        raise consistency.StateError(
            f"golang-migrate moved the database to version {current.golang} while this run was waiting, and "
            f"{why}.",
            state="Nothing was changed by this run; the version tables disagree.",
            next_step="guvnor migrate adopt   # compares the schema with both, and shows the differences",
        )
    note = "golang-migrate did it while a run was waiting for its lock; the schema is equal"
    versions.set_version(ready.connection, current, step.to_version, "adopt", note=note)
    log.info(
        "adopted what golang-migrate did while this run was waiting: the schema is equal",
        extra={"from_version": plan.current, "to_version": step.to_version},
    )
    return True


def _last_step_done(ready: Ready, plan: Plan, seen: State, current: State) -> Step | None:
    """Return the step of a plan to which golang-migrate alone has moved the database forwards since then.

    None where nothing was moved, or where a person has to decide.
    """
    was_at_work = ready.running is not None and ready.running.is_golang
    if not (seen.agreed or was_at_work) or not consistency.golang_went_on(seen, current):
        return None
    for step in plan.steps:
        if step.direction is not Direction.UP:
            return None
        if number(step.to_version) == current.golang:
            return step
    return None


def _difference(ready: Ready, step: Step) -> str | None:
    """Say why the schema is not known to be that of a step's version; None when it is equal."""
    from guvnor.schema import drift

    try:
        report = drift.check(ready.database, ready.script, revision=step.to_version)
    except (GuvnorError, psycopg2.Error, SQLAlchemyError) as error:
        why = reason(error).rstrip(".")
        return f"the schema could not be compared with revision {step.to_version}: {why}"
    if report.clean:
        return None
    return f"the schema is not that of revision {step.to_version} ({len(report.findings)} differences)"
