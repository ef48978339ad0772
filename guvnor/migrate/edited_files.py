"""Whether the file of an applied revision was edited afterwards: other databases then get another schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from guvnor.bookkeeping import history
from guvnor.bookkeeping.state import State
from guvnor.postgres import Connection, rows
from guvnor.revisions.identifiers import number

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def warnings(connection: Connection, current: State, script: ScriptDirectory) -> tuple[str, ...]:
    """Name each applied revision whose file holds other statements now than when it was applied.

    Comments, white space and line ends do not count; see :func:`guvnor.revisions.statements.checksum`. Nor
    does it count that an older release rendered the same statements in another way.

    :param script: the revision files, which have been checked already.
    """
    if not current.version or not history.exists(connection):
        return ()
    from guvnor.revisions.statements import checksum, render

    def is_as_recorded(function: Callable[[], object], recorded: str, rendering: str | None) -> bool:
        now = render(function)
        found = (now.statements,) if rendering else (now.statements, now.rendered_before)
        return recorded in map(checksum, found)

    files = {file.revision: file.module.upgrade for file in script.walk_revisions()}
    return tuple(
        f"the file of revision {revision} was changed after it was applied ({applied})"
        for revision, recorded, rendering, applied in _applied(connection)
        if number(revision) <= current.number
        and revision in files
        and not is_as_recorded(files[revision], recorded, rendering)
    )


def _applied(connection: Connection) -> list[tuple[Any, ...]]:
    """Return for each revision whose last run was an ``up`` its checksum and how that was rendered (None by
    an older release), and when and by whom it was run."""
    return rows(
        connection,
        """
        SELECT revision, checksum,
               to_jsonb(last) ->> 'rendering',  -- an older release made the table without this column
               concat(to_char(at, 'YYYY-MM-DD HH24:MI:SS TZ'), ' by ', database_role, ' (',
                      concat_ws(', ', os_user || '@' || host, job), ')')
        FROM (
            SELECT DISTINCT ON (revision) *
            FROM public.guvnor_migration_history
            WHERE event = 'succeeded' AND direction IN ('up', 'down')
            ORDER BY revision, id DESC
        ) AS last
        WHERE direction = 'up' AND checksum IS NOT NULL
        ORDER BY revision
        """,
    )
