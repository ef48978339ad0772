"""A scratch database: made for a review, and dropped after it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import psycopg2
from psycopg2 import extensions

from guvnor.errors import PreflightError
from guvnor.postgres import closing, connect, identifier


class ScratchError(PreflightError):
    """The scratch database could not be made."""


@contextlib.contextmanager
def database(dsn: str) -> Iterator[str]:
    """Make an empty database, and drop it at the end.

    :param dsn: of any database of the server, with a role that may make databases.
    :returns: the connection string of the new one.
    :raises ScratchError: when the role may not.
    """
    name = f"guvnor_review_{secrets.token_hex(8)}"
    with closing(connect(dsn, purpose="review")) as admin:
        try:
            with admin.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        except psycopg2.errors.InsufficientPrivilege:
            role = identifier(admin, admin.info.user)
            raise ScratchError(
                f"Role {role} may not make a scratch database on the server that GUVNOR_SHADOW_DSN names.",
                next_step=f"ALTER ROLE {role} CREATEDB;   -- or unset GUVNOR_SHADOW_DSN: the local server",
            ) from None
    try:
        yield extensions.make_dsn(dsn, dbname=name)
    finally:
        # A connection of its own: the first one would have been idle for long.
        with closing(connect(dsn, purpose="review")) as admin, admin.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
