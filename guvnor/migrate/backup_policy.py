"""The backup before a plan is run: decided before the confirmation is asked for, taken under the run lock."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from guvnor import postgres, typed
from guvnor.config import Settings
from guvnor.errors import GuvnorError
from guvnor.migrate import guard
from guvnor.migrate.preflight import Ready
from guvnor.migrate.request import Request
from guvnor.migrate.signals import Canceller
from guvnor.online.progress import Progress
from guvnor.revisions.plan import Plan
from guvnor.revisions.script import Direction

if TYPE_CHECKING:
    from guvnor.backup.take import BackupOptions, TakenBackup
    from guvnor.schema.rehearsal import Effect
    from guvnor.schema.snapshot import Object

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackupDecision:
    """What a plan would lose, and whether and how that is backed up.

    :ivar losses: the data that it loses and no revision accepts, a line each.
    :ivar accepted: the data that it loses and the revisions accept, a line each, with the reason.
    :ivar does: what it does to the data that no revision accepts to lose: ``deletes and overwrites``.
    :ivar hashed: what a confirmation covers of that: kinds and names, and whether the backup is given up.
    :ivar backup: how the backup will be taken, or why none is; None where none was considered.
    :ivar options: of the backup; None for no backup.
    :ivar objects: the objects whose data is backed up; None for the whole database.
    """

    losses: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    does: str = "may lose"
    hashed: tuple[str, ...] = ()
    backup: str | None = None
    options: BackupOptions | None = None
    objects: tuple[Object, ...] | None = None


@dataclass
class BackupPolicy:
    """Decides which backup a plan of one run needs, and takes it; a signal cancels its statements."""

    request: Request
    ready: Ready
    canceller: Canceller
    _unknown: str | None = field(default=None, init=False)

    def decide(self, plan: Plan, *, production: bool) -> BackupDecision:
        """Find out what a plan would lose, and make sure that the backup it needs can be taken.

        :raises RefusedError: when it needs one and no directory is named (exit code 4).
        :raises BackupCheckError: when it needs one that cannot be taken (exit code 3).
        """
        settings, whole = self.request.settings, self.request.backup
        rolls_back = any(step.direction is Direction.DOWN for step in plan.steps)
        asked_for = settings.backup and settings.backup_directory is not None
        found = self._losses(plan) if production or (rolls_back and asked_for) else BackupDecision()
        hashed = (*found.hashed, *backup_hashed(plan, settings))
        found = replace(found, hashed=hashed)
        if whole is not None and plan.steps:
            from guvnor.backup.take import check_backup

            how = check_backup(self.ready.database, whole, whole=True)
            return replace(found, backup=how, options=whole)
        if not rolls_back or not (production or asked_for):
            return found
        losses = (*found.losses, *found.accepted)
        if not losses:
            return replace(found, backup="none, since no data is lost")
        if not settings.backup:
            return replace(found, backup="none (--no-backup)")
        if settings.backup_directory is None:
            raise guard.RefusedError(
                "A rollback in production takes a backup of what it loses, but no directory is named for it. "
                f"Data that would be lost: {'; '.join(losses)}.",
                next_step="\n".join(
                    (
                        typed.again(
                            "GUVNOR_BACKUP_DIR=DIR",
                            when=f"DIR is where the backup goes{typed.or_flag('--backup', 'DIR')}",
                        ),
                        typed.again(
                            "GUVNOR_BACKUP=no", when=f"loses the data for good{typed.or_flag('--no-backup')}"
                        ),
                    )
                ),
            )
        return self._decide_for_rollback(plan, found)

    def back_up(self, plan: Plan, decision: BackupDecision, *, production: bool) -> TakenBackup | None:
        """Take the backup that was decided on.

        :param plan: what is going to be run; objects that are gone by now are skipped.
        :returns: None when no backup is needed.
        :raises BackupError: when it fails; no part of it is left then (exit code 1).
        """
        if decision.options is None:  # rows may have been added since
            decision = self.decide(plan, production=production)
        options = decision.options
        if options is None:
            return None
        report = self.request.observer.progressed
        try:
            taken = self._take(options, decision.objects, report)
        finally:
            report(Progress("backup", "", ended=True))
        if taken is not None:
            log.info("backup taken", extra=asdict(taken))
        return taken

    def _take(
        self, options: BackupOptions, objects: Sequence[Object] | None, report: Callable[[Progress], None]
    ) -> TakenBackup | None:
        from guvnor.backup import take

        database = self.ready.database
        if options.command is not None:
            return take.run_backup_command(database, options.command, report)
        if objects is None:
            return take.back_up_database(database, options, report)
        with postgres.closing(database.connect("backup")) as connection:
            self.canceller.connections.append(connection)
            return take.back_up_dropped(connection, objects, options, report)

    def _decide_for_rollback(self, plan: Plan, found: BackupDecision) -> BackupDecision:
        """Choose a backup of what is lost if that is known and separable, else of the whole database."""
        from guvnor.backup.dropped import NotSeparableError, find_dropped
        from guvnor.backup.take import BackupOptions, check_backup, check_readable

        settings = self.request.settings
        options = BackupOptions(settings.backup_directory, settings.backup_recipients)
        effects = self._rehearse(plan)
        why = "it is unknown what is dropped"
        if effects is not None:
            from guvnor.backup import losses

            objects = losses.objects(effects)
            try:
                dropped = find_dropped(self.ready.connection, objects)
                check_readable(self.ready.connection, [data.table for data in dropped if data.table])
                how = check_backup(self.ready.database, options, whole=False)
                backup = f"of what is dropped, {how}"
                return replace(found, backup=backup, options=options, objects=objects)
            except NotSeparableError as error:
                why = error.message.rstrip(".")
        how = check_backup(self.ready.database, options, whole=True)
        return replace(found, backup=f"of the whole database ({why}), {how}", options=options)

    def _losses(self, plan: Plan) -> BackupDecision:
        """Say what data a plan would lose, or that this is unknown."""
        from guvnor.backup import losses

        if all(step.direction is Direction.STAMP for step in plan.steps):
            return BackupDecision()
        effects = self._rehearse(plan)
        if effects is None:
            return BackupDecision((f"unknown ({self._unknown})",), hashed=losses.UNKNOWN)
        found = [loss for loss in losses.read(self.ready.connection, effects) if loss.count != 0]
        asked = [loss for loss in found if loss.accepted is None]
        return BackupDecision(
            tuple(map(str, asked)),
            tuple(f"{loss} (accepted: {loss.accepted})" for loss in found if loss.accepted is not None),
            losses.verbs(asked),
            losses.hashed(effects),
        )

    def _rehearse(self, plan: Plan) -> list[Effect] | None:
        """Return what a plan does to the schema and the data; None where that is unknown.

        No step is rehearsed twice: what remains of a plan after another run did part of it has no new step.
        """
        keys = [(step.revision, step.direction) for step in plan.steps]
        known = self.ready.effects
        if self._unknown is None and not known.keys() >= set(keys):
            from guvnor.schema import rehearsal

            try:
                with postgres.closing(self.ready.database.shadow.connect("shadow")) as connection:
                    for effect in rehearsal.effects(connection, self.ready.script, plan.current, plan.steps):
                        known[effect.step.revision, effect.step.direction] = effect
            except GuvnorError as error:
                raise_first(error, plan, self.request.settings)
                self._unknown = error.message
        if self._unknown is not None:
            return None
        return [known[key] for key in keys]


_ASKS_CATALOGS = re.compile(r"\b(pg_[a-z]\w*|information_schema)\b", re.IGNORECASE)


def raise_first(error: GuvnorError, plan: Plan, settings: Settings) -> None:
    """Raise the error of a revision of the plan that would fail anyway: it is what has to be told.

    A scratch database on another server may lack what the revision uses. One that asks the catalogs whether
    something is there finds what the live schema has, and makes it no second time.
    """
    from guvnor.schema.shadow_errors import RevisionFailsError

    failing = {f"revision {step.revision}": step for step in plan.steps}
    if isinstance(error, RevisionFailsError) and error.doing in failing and not settings.shadow_dsn:
        step = failing[error.doing]
        if any(_ASKS_CATALOGS.search(statement) for statement in step.statements):
            return
        path = f"$EDITOR {step.file}\n" if step.file else ""
        reason = error.message.partition(" failed: ")[2]
        raise GuvnorError(
            f"Revision {step.revision} ({step.description}) fails going {step.direction}: {reason}",
            state="Nothing was run: this was found while the plan was made. The database is unchanged.",
            next_step=f"{path}{typed.again(when='once it is corrected')}",
        ) from None


def backup_hashed(plan: Plan, settings: Settings) -> tuple[str, ...]:
    """Return what a confirmation covers of the backup: that a rollback has none.

    Where it goes, and whether it is one of the whole database, makes no plan more dangerous.
    """
    rolls_back = any(step.direction is Direction.DOWN for step in plan.steps)
    return ("no backup",) * (rolls_back and not settings.backup)
