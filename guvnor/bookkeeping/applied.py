"""What the history knows of the file that each applied revision came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from guvnor.bookkeeping import history, tables
from guvnor.postgres import Connection, rows
from guvnor.revisions.identifiers import number

ACCEPTED = "accepted"  # the event that lets a changed file pass


@dataclass(frozen=True)
class AppliedFile:
    """The file of a revision when it was applied, and as it was accepted since.

    :ivar checksums: of its SQL, each with how that was rendered (None by an older release).
    :ivar sources: the fingerprints of the file; none by an older release.
    :ivar when: when and by whom it was applied, in words.
    :ivar checkout: the branch and the commit that were checked out then; None where there was no Git.
    """

    revision: str
    checksums: tuple[tuple[str, str | None], ...]
    sources: frozenset[str]
    when: str
    checkout: str | None


def files(connection: Connection) -> dict[int, AppliedFile]:
    """Return what is known of the applied revisions, by number.

    Nothing is known of one that golang-migrate applied, or that another command than ``up`` moved the version
    over: what the schema has of it then did not come from a file that was seen.

    :param connection: to a database that has a history.
    """
    return _applied(
        rows(
            connection,
            """
            SELECT event, direction, revision, from_version, to_version, checksum,
                   -- an older release made the table without these columns
                   to_jsonb(h) ->> 'rendering', to_jsonb(h) ->> 'source', to_jsonb(h) ->> 'checkout',
                   concat(to_char(at, 'YYYY-MM-DD HH24:MI:SS TZ'), ' by ', database_role, ' (',
                          concat_ws(', ', os_user || '@' || host, job), ')')
            FROM public.guvnor_migration_history AS h
            WHERE event IN ('succeeded', 'accepted')
            ORDER BY id
            """,
        )
    )


def _applied(events: Iterable[tuple[Any, ...]]) -> dict[int, AppliedFile]:
    found: dict[int, AppliedFile] = {}
    for event, direction, revision, start, end, checksum, rendering, source, checkout, when in events:
        place, given = number(revision), frozenset({source} - {None})
        if event == ACCEPTED:
            if (known := found.get(place)) is not None:
                checksums = (*known.checksums, (checksum, rendering))
                found[place] = replace(known, checksums=checksums, sources=known.sources | given)
        elif direction == "up":
            found.pop(place, None)
            if checksum is not None:
                found[place] = AppliedFile(revision, ((checksum, rendering),), given, when, checkout)
        elif direction == "down":
            found.pop(place, None)
        else:  # force, adopt, stamp
            stays = min(number(start), number(end))
            found = {each: known for each, known in found.items() if each <= stays}
    return found


def accept(
    connection: Connection,
    known: AppliedFile,
    version: str | None,
    checksum: str,
    rendering: int,
    source: str | None,
) -> None:
    """Record that a revision's file is accepted as it is now, in one event.

    :param version: the revision that the database is at.
    """
    attempt = history.Attempt(
        "accept",
        known.revision,
        version,
        version,
        checksum,
        rendering,
        note=f"the file was changed after it was applied ({known.when})",
        source=source,
    )
    with connection.cursor() as cursor:
        tables.create_history(cursor)
        history.record(cursor, attempt, ACCEPTED)
