"""The fence of a step: the version is locked and read again before anything is changed.

The run lock keeps other runners away only while its connection lives. A runner whose lock was lost meets the
fence instead: it waits for the table that the other runner has locked, and then finds another version.
"""

from __future__ import annotations

from typing import Any

from guvnor import typed
from guvnor.bookkeeping.state import NO_VERSION
from guvnor.errors import ExitCode, GuvnorError
from guvnor.revisions.identifiers import number
from guvnor.revisions.plan import Step


def close(cursor: Any, step: Step, *, golang_migrate: bool) -> None:
    """Lock the version until the transaction ends, and check that the step starts from it.

    :param golang_migrate: whether golang-migrate's table is kept in step.
    :raises GuvnorError: when the version is not the one that this step starts from.
    """
    cursor.execute("LOCK TABLE public.alembic_version IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute("SELECT array_agg(version_num::text) FROM public.alembic_version")
    (versions,) = cursor.fetchone() or (None,)
    golang = None
    if golang_migrate:
        cursor.execute("SELECT version, dirty FROM public.schema_migrations")
        golang = cursor.fetchone() or (0, False)
    error = moved(step, versions or [], golang)
    if error is not None:
        raise error


def moved(step: Step, versions: list[str], golang: tuple[int, bool] | None) -> GuvnorError | None:
    """Return the error of a database that is not at the version that a step starts from; None when it is.

    :param versions: the rows of ``alembic_version``.
    :param golang: golang-migrate's version, 0 for none, and its dirty flag; None where its table is not kept
        in step.
    """
    moved_by_alembic = versions != ([step.from_version] if step.from_version else [])
    clean = (number(step.from_version), False)
    half_done = (number(step.to_version) or NO_VERSION, True)
    if not moved_by_alembic and golang in (None, clean, half_done):
        return None
    also = f" and schema_migrations {golang[0]}" if golang else ""
    error = GuvnorError(
        f"alembic_version holds {', '.join(versions or ['no version'])} now{also}; "
        f"revision {step.revision} starts from {step.from_version or 'no version'}: "
        "somebody else moved the database while this run was waiting.",
        state="This run changed nothing since then.",
        next_step=f"guvnor migrate status\n{typed.again()}",
    )
    if not moved_by_alembic:
        error.exit_code = ExitCode.DECISION  # golang-migrate moved it: the two tables disagree now
    return error
