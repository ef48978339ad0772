"""The local PostgreSQL server for development: its data under ``.guvnor/``, up until it is stopped."""

from guvnor.embedded.programs import binaries
from guvnor.embedded.server import LocalServer, Status

__all__ = ["LocalServer", "Status", "binaries"]
