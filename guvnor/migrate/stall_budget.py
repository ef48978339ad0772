"""The budget of a step: how long it may make the application wait."""

from __future__ import annotations

from guvnor.config import Settings
from guvnor.revisions.plan import Step


def budget(settings: Settings, step: Step, *, production: bool = False) -> float | None:
    """Return the seconds for which a step may make the application wait; None for no limit.

    What the revision says for itself counts, else the setting; where that is ``off``, nothing is limited.

    :param production: whether the database is production, by the configuration or by its own mark.
    """
    limit = settings.max_stall_in_force(production=production)
    if limit is None or step.max_stall is None:
        return limit
    return step.max_stall.seconds
