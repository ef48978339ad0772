"""Which errors of the server may pass by themselves, so that the same statement can succeed later."""

from __future__ import annotations

from psycopg2 import errorcodes

# The server is shutting down or starting (PostgreSQL documentation, "PostgreSQL Error Codes", class 57).
SERVER_GONE = (errorcodes.ADMIN_SHUTDOWN, errorcodes.CRASH_SHUTDOWN, errorcodes.CANNOT_CONNECT_NOW)

# Classes of SQLSTATE (PostgreSQL documentation, "PostgreSQL Error Codes").
_PASSING_CLASSES = (
    errorcodes.CLASS_CONNECTION_EXCEPTION,
    errorcodes.CLASS_TRANSACTION_ROLLBACK,
    errorcodes.CLASS_INSUFFICIENT_RESOURCES,
    errorcodes.CLASS_OPERATOR_INTERVENTION,
    errorcodes.CLASS_SYSTEM_ERROR,
)
_PASSING = (errorcodes.LOCK_NOT_AVAILABLE, errorcodes.OBJECT_IN_USE, errorcodes.INTERNAL_ERROR)
_STAYING = (errorcodes.DISK_FULL, errorcodes.CONFIGURATION_LIMIT_EXCEEDED)  # until somebody makes room


def may_pass(sqlstate: str | None) -> bool:
    """Tell whether an error may be gone when the same statement is run again.

    :param sqlstate: None for an error of the connection, of which the server has said nothing.
    """
    if sqlstate is None:
        return True
    return sqlstate not in _STAYING and (sqlstate in _PASSING or sqlstate[:2] in _PASSING_CLASSES)
