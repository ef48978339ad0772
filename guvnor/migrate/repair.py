"""The ways out of a dirty state that no run may finish by itself: forward, back, or as it is."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor.bookkeeping.state import State
from guvnor.errors import UsageError
from guvnor.revisions.files import Revision
from guvnor.revisions.script import Direction


@dataclass(frozen=True)
class Choice:
    """One way out.

    :ivar name: ``forward``, ``back`` or ``as-is``.
    :ivar direction: the direction in which the revision is run; None when nothing is run.
    :ivar revision: whose statements are run.
    :ivar from_version: the version that the run starts from; None for none.
    :ivar to_version: the version that the database is at afterwards.
    :ivar meaning: when to take it, in a sentence.
    """

    name: str
    direction: Direction | None
    revision: str
    from_version: str | None
    to_version: str | None
    meaning: str


def choices(state: State, revisions: tuple[Revision, ...]) -> tuple[Choice, ...]:
    """Return the ways out of a dirty state; none when the database is not dirty.

    golang-migrate names the version that it was moving to. Where Alembic knows nothing of the database, the
    move is taken to have begun at the version before that one.

    :raises UsageError: when the migration files do not know the version (exit code 2).
    """
    if not state.dirty:
        return ()
    target = max(state.golang or 0, 0)
    source = state.number if state.alembic else max(target - 1, 0)
    if target == source:
        # The version was set by hand but not the flag, or golang-migrate was rolling back revision 001.
        source = target - 1 if target else 1
    if max(target, source) > revisions[-1].number:
        raise UsageError(
            f"The database is dirty at version {target}, which the migration files do not know "
            f"(newest: {revisions[-1].identifier}).",
            next_step="Use the release that migrated it: guvnor migrate history",
        )
    revision = revisions[max(target, source) - 1].identifier
    onward, backward = Direction.UP, Direction.DOWN
    if target < source:
        onward, backward = backward, onward
    there, here = (revisions[number - 1].identifier if number else None for number in (target, source))
    run_onward = (
        f"runs revision {revision} {onward} again, all of it; what is in place already is left as it is"
    )
    run_backward = f"runs revision {revision} {backward}, all of it, and ends at version {source or 'none'}"
    run_nothing = f"runs nothing and takes the schema for that of version {target or 'none'}"
    if onward is Direction.UP:
        run_nothing += f": when everything of revision {revision} is in place"
    else:
        run_onward = f"runs revision {revision} down again, all of it; what is missing already is skipped"
        run_backward += f": when everything of revision {revision} is in place"
        run_nothing += f": when everything of revision {revision} is missing"
    return (
        Choice("forward", onward, revision, here, there, run_onward),
        Choice("back", backward, revision, there, here, run_backward),
        Choice("as-is", None, revision, there, there, run_nothing),
    )


def choose(state: State, revisions: tuple[Revision, ...], name: str) -> Choice | None:
    """Return the way out with a given name; None when there is nothing to repair."""
    return next((choice for choice in choices(state, revisions) if choice.name == name), None)
