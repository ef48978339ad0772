"""PostgreSQL as a client sees it: connections, their TLS, why one fails, and quoting."""

from guvnor.postgres.connection import (
    APPLICATION_NAME,
    SCHEMA,
    Connection,
    DatabaseError,
    Identity,
    closing,
    connect,
    explained,
    identifier,
    identify,
    masked,
    parse,
    pooled,
    prepare,
    scalar,
)

__all__ = [
    "APPLICATION_NAME",
    "SCHEMA",
    "Connection",
    "DatabaseError",
    "Identity",
    "closing",
    "connect",
    "explained",
    "identifier",
    "identify",
    "masked",
    "parse",
    "pooled",
    "prepare",
    "scalar",
]
