"""Imports all of Guvnor, and what commands import only when they need it, into the process that is forked.

Else each command would compile that again. It is a module of its own because tests look for ``pg_dump`` in
the process list, where a list of modules would stand.
"""

import importlib
import pkgutil

import guvnor

LATER = ("alembic.command", "alembic.config", "psycopg2.extras", "sqlalchemy.dialects.postgresql.psycopg2")
# Which models are the right ones depends on where the command is run.
NOT_YET = {"guvnor.__main__", "guvnor.models", "guvnor.reports.diagram"}
OURS = {found.name for found in pkgutil.walk_packages(guvnor.__path__, "guvnor.")} - NOT_YET

for name in (*sorted(OURS), *LATER):
    importlib.import_module(name)
