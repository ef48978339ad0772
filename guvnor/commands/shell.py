"""``guvnor db shell``: psql on the configured database."""

from __future__ import annotations

import contextlib
import shutil

from guvnor import postgres
from guvnor.backup.pg_dump import connection_environment
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.errors import LocalServerError
from guvnor.postgres import Connection


def on_configured(settings: Settings) -> tuple[str, dict[str, str]]:
    """Return the program psql, and an environment in which it connects to the configured database.

    It acts as the role of ``storage.role``, as every session does.

    :raises PreflightError: when the database cannot be reached, or lacks TLS in production (exit code 3).
    :raises LocalServerError: when there is no psql (exit code 3).
    """
    with postgres.closing(Database.of(settings).connect("shell")) as connection:
        environment = connection_environment(connection)
        if settings.storage_role:
            role = f"-c role={settings.storage_role}".replace(" ", "\\ ").replace("-c\\ ", "-c ")
            environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {role}".strip()
        return _psql(connection), environment


def _psql(connection: Connection) -> str:
    """Find psql: on the PATH, else among the programs of the local server, which know no TLS."""
    if found := shutil.which("psql"):
        return found
    from guvnor.embedded import binaries

    with contextlib.suppress(LocalServerError):
        if (program := binaries() / "psql").exists() and not connection.info.ssl_in_use:
            return str(program)
    raise LocalServerError(
        "There is no psql on the PATH" + (" that knows TLS." if connection.info.ssl_in_use else "."),
        state="Nothing was changed.",
        next_step="apt-get install postgresql-client",
    )
