"""The session of a shadow, made as new between two revisions, as that of a real run is.

A real run uses DISCARD ALL, which is not allowed within a transaction (PostgreSQL documentation, DISCARD).
Here each kind of thing that a revision can leave is taken away by itself. Then the shadow's own settings are
set again.
"""

from __future__ import annotations

from guvnor.postgres import Connection, rows
from guvnor.postgres.quoting import quoted
from guvnor.schema.escapes import PREPARED_LOOK

_SETTINGS = """
    SELECT array_agg(name), array_agg(setting)
    FROM pg_catalog.pg_settings
    WHERE source = 'session' AND name NOT LIKE 'transaction%' AND name <> 'role'
"""
_RENEW = """
    CLOSE ALL;
    UNLISTEN *;
    DISCARD TEMP;
    RESET SESSION AUTHORIZATION;
    RESET ALL;
    SELECT set_config('role', %s, true), pg_advisory_unlock_all();
    SELECT count(set_config(name, setting, true)) FROM unnest(%s::text[], %s::text[]) AS s (name, setting);
    SELECT name FROM pg_catalog.pg_prepared_statements WHERE name <> %s
"""


class ShadowSession:
    """The session in which a shadow is built."""

    def __init__(self, driver: Connection) -> None:
        """Remember the settings of the session.

        :param driver: in the transaction of the shadow, before the first revision; it holds no advisory lock.
        """
        self._driver = driver
        ((self._names, self._values),) = rows(driver, _SETTINGS)
        ((self._role,),) = rows(driver, "SELECT current_setting('role')")

    def renew(self) -> None:
        """Leave nothing of the revisions before: no temporary table, setting or prepared statement."""
        parameters = (self._role, self._names, self._values, PREPARED_LOOK)
        for (name,) in rows(self._driver, _RENEW, parameters):
            with self._driver.cursor() as cursor:
                cursor.execute(f"DEALLOCATE {quoted(name)}")
