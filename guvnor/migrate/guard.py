"""The production guard: what can lose data is shown first and needs a confirmation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guvnor import typed
from guvnor.bookkeeping import production
from guvnor.bookkeeping.state import State
from guvnor.config import Settings
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Identity
from guvnor.revisions.confirmation import confirmation_hash

ROLLBACK = "rollback a migration"
APPLY = "apply a migration that {does} data"
STALL = "apply a migration that may make the application wait"
UNMARK = "take away the mark that guards this database"
RESTORE = "restore data from a backup"
FORCE = "set the version of a database, whatever its schema is,"


@dataclass(frozen=True)
class Risk:
    """What has to be confirmed.

    :ivar action: in the words that users know: ``rollback a migration``.
    :ivar why: why this is production.
    :ivar revisions: what is done, a line each.
    :ivar losses: what data would be lost, a line each.
    :ivar accepted: what data is lost as the revisions accept, a line each.
    :ivar waits: how long which revision may make the application wait, and why, a line each.
    :ivar backup: how a backup will be taken first, or why none is; None where none was considered.
    :ivar hash: the plan's hash, for a confirmation without a terminal.
    """

    action: str
    why: str
    database: Identity
    current: str | None
    target: str | None
    revisions: tuple[str, ...]
    hash: str
    losses: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    backup: str | None = None

    @property
    def may_lose_data(self) -> bool:
        """Whether data may be lost by it: not by a wait, nor by a mark, nor by a restore."""
        return self.action not in (STALL, UNMARK, RESTORE)


class RefusedError(GuvnorError):
    """Refused: this is a production database, and the command was not confirmed."""

    exit_code = ExitCode.REFUSED
    state = "Nothing was changed."


# Shows a risk and asks for a confirmation; None without a terminal.
Ask = Callable[[Risk], bool | None]


def confirm(
    settings: Settings,
    ask: Ask,
    database: Identity,
    current: State,
    action: str,
    target: str | None,
    details: tuple[str, ...],
    hashed: tuple[str, ...],
) -> None:
    """Let an action that runs no revision pass in production only when it is confirmed.

    :param action: in words; see :class:`Risk`.
    :param target: the version afterwards.
    :param details: what is done, a line each.
    :param hashed: what the confirmation refers to besides the database and the versions.
    :raises RefusedError: when it is not confirmed (exit code 4).
    """
    why = production.reason(settings.production_environment, current.production)
    if why is not None:
        confirmation = confirmation_hash(database, current.version, target, hashed)
        risk = Risk(action, why, database, current.version, target, details, confirmation)
        check(risk, settings.confirm, ask)


def check(risk: Risk, confirmation: str, ask: Ask) -> None:
    """Let a risk pass only when it is confirmed, by the hash given with ``--confirm`` or on a terminal.

    :raises RefusedError: when it is not confirmed (exit code 4).
    """
    if confirmation:
        if confirmation == risk.hash:
            return
        raise RefusedError(
            f"The confirmation {confirmation} does not belong to this plan, whose hash is {risk.hash}: "
            "the database, the versions or the statements are not those that were confirmed. If nothing was "
            "changed, a revision is not the same SQL twice (environment, clock, chance, files): "
            "guvnor schema lint finds it.",
            next_step=_look_again(risk),
        )
    answer = ask(risk)
    if answer is None:
        raise RefusedError(
            f"Refused to {risk.action} in production ({risk.why}) without a confirmation, and there is no "
            f"terminal to ask on. {_what(risk)}",
            next_step=_look_again(risk),
        )
    if not answer:
        raise RefusedError(
            "Operation cancelled.", next_step=typed.again(when="if you mean it; then type yes")
        )


def _what(risk: Risk) -> str:
    lost = f" Data that would be lost: {'; '.join(risk.losses)}." if risk.losses else ""
    lost += "".join(f" {wait}." for wait in risk.waits)
    return (
        f"Database {risk.database.database} on {risk.database.host or 'the local socket'}: "
        f"{'; '.join(risk.revisions)}.{lost} The hash of this plan is {risk.hash}."
    )


def _look_again(risk: Risk) -> str:
    return typed.again_with("confirm", risk.hash, when="if you mean it")
