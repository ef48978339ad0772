"""What a plan would lose, found out once, and the backup that is taken before it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory

from guvnor import postgres
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import GuvnorError
from guvnor.migrate import guard
from guvnor.migrate.signals import Canceller
from guvnor.postgres import Connection
from guvnor.revisions.plan import Plan

if TYPE_CHECKING:
    from guvnor.migrate.backup import Backup, Options, Report
    from guvnor.schema.snapshot import Object

log = logging.getLogger(__name__)


class NowhereError(guard.RefusedError):
    """A rollback in production takes a backup of what it drops, and nothing says where that goes."""

    next_step = (
        "Run the same command with GUVNOR_BACKUP_DIR=DIR (a flag of `down` and `repair`: --backup DIR),\n"
        "or with GUVNOR_BACKUP=no to lose the data for good (--no-backup)."
    )


@dataclass(frozen=True)
class Outlook:
    """What a plan would lose, and what is done about it.

    :ivar losses: the data that it drops, a line each.
    :ivar backup: how a backup will be taken first, or why none is; None where that is no question.
    :ivar options: of that backup; None for none.
    :ivar objects: what is backed up; None for the whole database.
    """

    losses: tuple[str, ...] = ()
    backup: str | None = None
    options: Options | None = None
    objects: tuple[Object, ...] | None = None


class Precaution:
    """Looks at what plans would lose and takes the backup that is called for."""

    def __init__(
        self,
        settings: Settings,
        script: ScriptDirectory,
        connection: Connection,
        whole: Options | None,
        report: Report,
        canceller: Canceller,
    ) -> None:
        """Know no plan yet.

        :param connection: in autocommit mode.
        :param whole: of a backup of the whole database that somebody asked for; None when nobody did.
        :param report: is told how far a backup is.
        :param canceller: cancels statements when a signal arrives.
        """
        self._settings = settings
        self._script = script
        self._connection = connection
        self._database = Database.of(settings)
        self._whole = whole
        self._report = report
        self._canceller = canceller
        self._dropped: dict[tuple[str, str], tuple[Object, ...]] = {}  # by revision and direction
        self._unknown: str | None = None

    def look(self, plan: Plan, *, production: bool) -> Outlook:
        """Find out what a plan would lose, and whether the backup that is called for can be taken.

        :raises NowhereError: when there has to be a backup and nothing says where it goes (exit code 4).
        :raises BackupCheckError: when there is to be one and it cannot be taken (exit code 3).
        """
        settings = self._settings
        rolls_back = any(step.direction == "down" for step in plan.steps)
        asked_for = settings.backup and settings.backup_directory is not None
        losses = self._losses(plan) if production or (rolls_back and asked_for) else ()
        if self._whole is not None and plan.steps:
            from guvnor.migrate import backup

            return Outlook(losses, backup.check(self._database, self._whole), self._whole)
        if not rolls_back or not (production or asked_for):
            return Outlook(losses)
        if not losses:
            return Outlook(losses, "none, since no data is lost")
        if not settings.backup:
            return Outlook(losses, "none (--no-backup)")
        if settings.backup_directory is None:
            raise NowhereError(f"{NowhereError.__doc__} Lost would be: {'; '.join(losses)}.")
        return self._of_a_rollback(plan, losses)

    def take(self, plan: Plan, outlook: Outlook, *, production: bool) -> Backup | None:
        """Take the backup that an earlier look has called for.

        :param plan: what is going to be run; what is gone by now is passed over.
        :returns: None when none is called for.
        :raises BackupError: when it fails; nothing is left of it then (exit code 1).
        """
        if outlook.options is None:
            outlook = self.look(plan, production=production)  # there may be rows that were not there then
        if outlook.options is None:
            return None
        from guvnor.migrate import backup

        taken: Backup | None
        if outlook.options.command is not None:
            taken = backup.by_command(self._database, outlook.options.command, self._report)
        elif outlook.objects is None:
            taken = backup.whole(self._database, outlook.options, self._report)
        else:
            with postgres.closing(self._database.connect("backup")) as connection:
                self._canceller.connections.append(connection)
                taken = backup.dropped(connection, outlook.objects, outlook.options, self._report)
        if taken is not None:
            log.info("backup taken", extra=asdict(taken))
        return taken

    def _of_a_rollback(self, plan: Plan, losses: tuple[str, ...]) -> Outlook:
        from guvnor.migrate import backup
        from guvnor.migrate.backup_columns import NoKeyError

        settings = self._settings
        options = backup.Options(settings.backup_directory, settings.backup_recipients)
        objects = self._find_dropped(plan)
        how = backup.check(self._database, options)
        why = "it cannot be told what is dropped"
        if objects is not None:
            try:
                backup.contents(self._connection, objects)
                return Outlook(losses, f"of what is dropped, {how}", options, objects)
            except NoKeyError as error:
                why = error.message.rstrip(".")
        return Outlook(losses, f"of the whole database ({why}), {how}", options)

    def _losses(self, plan: Plan) -> tuple[str, ...]:
        """Say what data a plan would lose; where that cannot be told, say so instead."""
        from guvnor.migrate import losses

        if all(step.direction == "stamp" for step in plan.steps):
            return ()
        objects = self._find_dropped(plan)
        if objects is None:
            return (f"it cannot be told ({self._unknown})",)
        found = losses.read(self._connection, objects)
        # An estimate of nothing is what a table has that was never analyzed.
        return tuple(str(loss) for loss in found if loss.count or not loss.exact)

    def _find_dropped(self, plan: Plan) -> tuple[Object, ...] | None:
        """Return what a plan drops; None where that cannot be told.

        It is seen once: what remains of a plan when another run has done a part of it drops no more.
        """
        keys = [(step.revision, step.direction) for step in plan.steps]
        if self._unknown is None and not self._dropped.keys() >= set(keys):
            from guvnor.schema import rehearsal

            try:
                with postgres.closing(self._database.shadow.connect("shadow")) as connection:
                    for effect in rehearsal.effects(connection, self._script, plan.current, plan.steps):
                        self._dropped[effect.step.revision, effect.step.direction] = effect.dropped
            except GuvnorError as error:
                self._unknown = error.message
        if self._unknown is not None:
            return None
        return tuple(item for key in keys for item in self._dropped[key])
