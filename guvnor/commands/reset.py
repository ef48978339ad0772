"""Starting the local database afresh: it is dropped and made again, empty."""

from __future__ import annotations

from guvnor import postgres, typed
from guvnor.bookkeeping import history, production
from guvnor.config import Settings
from guvnor.database import Database, local_server_home
from guvnor.embedded import LocalServer
from guvnor.errors import UsageError
from guvnor.migrate.guard import RefusedError


def reset(settings: Settings) -> None:
    """Empty the database of the local server, and start that if it is not running.

    :raises UsageError: when another database is configured (exit code 2).
    :raises RefusedError: when this is production, by the configuration or by its mark (exit code 4).
    :raises LocalServerError: when the local server cannot be used.
    """
    if settings.production:
        raise RefusedError(
            f"Refused: {production.reason(settings.environment, None)}, and a reset drops every table.",
            next_step="guvnor config show   # where that is set",
        )
    if settings.storage_type != "embedded" and settings.storage_dsn:
        raise UsageError(
            f"The configured database is another one (storage.dsn, from {settings.origins['storage.dsn']}); "
            "only that of the local server can be reset.",
            state="Nothing was changed.",
            next_step=typed.again("GUVNOR_STORAGE_TYPE=embedded", when="to reset the local one"),
        )
    server = LocalServer(local_server_home())
    server.start(tcp=server.status().tcp)
    with postgres.closing(Database(server.url()).connect("reset")) as connection:
        mark = production.read_mark(connection) if history.exists(connection) else None
    if mark is not None:
        raise RefusedError(
            f"Refused: {production.reason(None, mark)}, and a reset drops every table.",
            next_step="guvnor db mark --not-production   # if it is none",
        )
    server.reset()
