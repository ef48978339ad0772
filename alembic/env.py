"""Alembic's environment: hands Guvnor to the engine, so that plain alembic and guvnor do the same."""

from alembic import context

from guvnor.application import GUVNOR
from guvnor.cli.plain_alembic import run

run(context, GUVNOR)
