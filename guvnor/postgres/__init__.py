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
    identify,
    masked,
    parse,
    pooled,
    prepare,
    quote_ident,
    scalar,
    snapshot,
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
    "identify",
    "masked",
    "parse",
    "pooled",
    "prepare",
    "quote_ident",
    "scalar",
    "snapshot",
]
