"""PostgreSQL as a client sees it: connections, their TLS, why one fails, and quoting."""

from guvnor.postgres.connection import (
    APPLICATION_NAME as APPLICATION_NAME,
    SCHEMA as SCHEMA,
    Connection as Connection,
    DatabaseError as DatabaseError,
    Identity as Identity,
    closing as closing,
    connect as connect,
    explained as explained,
    identify as identify,
    masked as masked,
    parse as parse,
    pooled as pooled,
    prepare as prepare,
    quote_ident as quote_ident,
    row as row,
    rows as rows,
    scalar as scalar,
    snapshot as snapshot,
)
