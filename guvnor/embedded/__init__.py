"""The local PostgreSQL server for development: its data is in ``.guvnor/``; it runs until it is stopped."""

from guvnor.embedded.programs import binaries as binaries
from guvnor.embedded.server import LocalServer as LocalServer, LocalServerStatus as LocalServerStatus
