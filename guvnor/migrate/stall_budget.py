"""The budget of a step: how long it may make the application wait."""

from __future__ import annotations

from guvnor.config import Settings
from guvnor.revisions.plan import Step


def budget(settings: Settings, step: Step) -> float | None:
    """Return the seconds for which a step may make the application wait; None for no limit.

    What the revision says for itself counts, else the setting; where that is ``off``, nothing is limited.
    """
    if settings.max_stall is None or step.max_stall is None:
        return settings.max_stall
    return step.max_stall.seconds
