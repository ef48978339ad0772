"""Alembic's environment: all of it lives in guvnor.migrate, so that plain alembic and guvnor do the same."""

from alembic import context

from guvnor.migrate.environment import run

run(context)
