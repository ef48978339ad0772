"""The local PostgreSQL server for development: its data is in ``.guvnor/``, it runs until it is stopped."""

from guvnor.embedded.programs import binaries
from guvnor.embedded.server import LocalServer, LocalServerStatus

__all__ = ["LocalServer", "LocalServerStatus", "binaries"]
