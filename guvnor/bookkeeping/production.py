"""Whether a database is production: as the configuration says, or as the database's own mark says.

The mark is an event of the history. It holds the identity of the database that was marked, so that a restored
copy is not production.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from guvnor.bookkeeping import history, tables
from guvnor.postgres import Connection, identify, row


@dataclass(frozen=True)
class Mark:
    """Who marked a database as production, and when."""

    at: datetime
    who: str


def reason(environment: str | None, mark: Mark | None) -> str | None:
    """Say why a database is production; the stricter of configuration and mark wins.

    :param environment: the configured environment where that is production, else None.
    :returns: None when it is not production.
    """
    if environment is not None:
        return f"GUVNOR_ENV is {environment}"
    if mark is not None:
        return f"the database was marked as production on {mark.at:%Y-%m-%d} by {mark.who}"
    return None


def read_mark(connection: Connection) -> Mark | None:
    """Return who marked this very database as production; a restored copy's mark does not count."""
    found = row(
        connection,
        """
        SELECT event, at, concat(database_role, ' (', os_user, '@', host, ')')
        FROM public.guvnor_migration_history
        WHERE event IN ('marked', 'unmarked') AND database_identity = %s
        ORDER BY id DESC
        LIMIT 1
        """,
        (database_identity(connection),),
    )
    return Mark(*found[1:]) if found and found[0] == "marked" else None


def set_mark(connection: Connection, *, production: bool) -> None:
    """Record that this very database is production, or no longer is."""
    attempt, event = history.Attempt("mark", None, None, None), "marked" if production else "unmarked"
    with connection.cursor() as cursor:
        tables.create_history(cursor)
        history.record(cursor, attempt, event, database_identity=database_identity(connection))


def database_identity(connection: Connection) -> str:
    """Return what distinguishes a database from its copies: its cluster's identifier and its oid."""
    identity = identify(connection)
    return f"{identity.system_identifier or ''}/{identity.oid}"
